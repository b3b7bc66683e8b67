"""No signed URL is in a database, whatever a workflow does with it; and it is one again when it is read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from approvals_bot.durable.core.api import (
    create_hook,
    create_webhook,
    publish,
    set_attributes,
    step,
    workflow,
)
from approvals_bot.durable.core.children import run_child
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.tokens import WEBHOOK, Tokens
from tests.support.postgres_server import PostgresServer

OLD, NEW = "the-old-key-that-has-32-bytes-or-more", "the-new-key-that-has-32-bytes-or-more"
GIVEN: list[Any] = []

Content = Callable[[], str]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Content]:
    """A database's URL, and what reads all the text in it."""
    if request.param == "sqlite":

        def content() -> str:
            with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
                return "\n".join(db.iterdump())

        return f"sqlite:///{tmp_path}/runs.db", content
    url = request.getfixturevalue("postgres_url")
    server: PostgresServer = request.getfixturevalue("postgres")
    tables = ("runs", "events", "hooks", "attributes", "taken")
    return url, lambda: "\n".join(str(server.execute(f"SELECT * FROM {table}", url)) for table in tables)  # noqa: S608


@step
async def urls_at_rest_send(url: str, more: dict[str, Any]) -> str:
    GIVEN.append((url, more))
    return f"sent {url}"


@workflow
async def urls_at_rest_child(url: str) -> str:
    return await urls_at_rest_send(url, {})


@workflow
async def urls_at_rest() -> dict[str, str]:
    webhook = create_webhook(metadata={"note": "?"})
    hook = create_hook(token="urls-at-rest")
    publish({"url": webhook.url})
    set_attributes({"callback": webhook.url})
    sent = await urls_at_rest_send(webhook.url, {"quoted": quote(webhook.url, safe=""), "text": f"<{webhook.url}>\\"})
    heard = await hook
    await urls_at_rest_send(heard["text"], {})
    return {"sent": sent, "child": await run_child(urls_at_rest_child, webhook.url), "url": webhook.url}


async def test_no_signed_url_is_stored(database: tuple[str, Content]) -> None:
    url, content = database
    GIVEN.clear()
    async with Engine.open(url, signing_keys=[OLD], base_url="https://a.test") as engine:
        run = await engine.start(urls_at_rest)
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        link = record.view["url"]
        assert link.startswith("https://a.test/webhooks/eyJ")
        found = await engine.records(attributes={"callback": link})
        assert [each.id for each in found.records] == [run.id]
    async with Engine.open(url, signing_keys=[NEW, OLD], base_url="https://a.test") as engine:
        await engine.resume_hook("urls-at-rest", {"text": "~hook~abc~1~ and ~hook~~"})
        result = await run_of(engine, run.id)
        new = result["url"]
        token = new.rpartition("/")[2]
        assert Tokens([NEW], installation=engine.installation).read(WEBHOOK, token)["g"] == 1
        assert result["sent"] == f"sent {new}"  # what was signed with the old key is signed with the new one
        assert result["child"] == f"sent {new}"
    assert [
        (link, {"quoted": quote(link, safe=""), "text": f"<{link}>\\"}),
        ("~hook~abc~1~ and ~hook~~", {}),
        (new, {}),
    ] == GIVEN
    text = content()
    assert "https://a.test/webhooks/~hook~" in text
    assert "eyJoIjoi" not in text


async def run_of(engine: Engine, run_id: str) -> Any:
    async with asyncio.timeout(60):
        return await engine.get_run(run_id).return_value()


def test_any_text_comes_back_as_it_was() -> None:
    random = Random(18)  # noqa: S311
    bearers = Bearers()
    tokens = bearers.tokens = Tokens([OLD], installation="one")
    own = tokens.sign(WEBHOOK, {"h": "Hook_1-a", "g": 1})
    foreign = Tokens([OLD], installation="two").sign(WEBHOOK, {"h": "Hook_1-a", "g": 1})
    parts = ["~hook~", "~", "hook", "1~", "Hook_1-a~1~", "eyJoIjoi", ".", "x", own, foreign, "\\", '"']
    for _ in range(2_000):
        text = "".join(random.choices(parts, k=random.randint(0, 8)))
        stored = bearers.without(text)
        assert own not in stored
        assert bearers.signed(stored) == text
    assert bearers.without(foreign) == foreign
