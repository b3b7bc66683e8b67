"""The replicas of an installation, and the rotation of their signing keys without a broken link."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import httpx2
import pytest

from approvals_bot.app import open_service, read_configuration
from approvals_bot.app.service import Service
from approvals_bot.durable.core.api import create_webhook, workflow
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service import replicas
from approvals_bot.service.replicas import SKEW, Replicas, choose_key, missing_keys
from tests.support.new_runs import T0

OLD, NEW = "the-old-key-that-has-32-bytes-or-more", "the-new-key-that-has-32-bytes-or-more"
CONFIG = """\
[server]
base_url = "https://approve.acme.eu"
database = "{url}"
signing_keys = [{keys}]
workflows = "{folder}"
"""


def row(id: str, *key_ids: str, signs_with: str = "") -> ReplicaRow:
    return ReplicaRow(id, "0.1.0", T0, T0, 1, key_ids, signs_with or key_ids[0], "")


# ── the choice ──


def test_a_replica_signs_with_the_first_key_that_all_accept() -> None:
    assert choose_key(["new", "old"], [], None) == "new"
    assert choose_key(["new", "old"], [row("b", "old")], None) == "old"
    assert choose_key(["new", "old"], [row("b", "old"), row("c", "new", "old")], "old") == "old"
    assert choose_key(["new", "old"], [row("b", "new", "old"), row("c", "old", "new")], "old") == "new"
    assert choose_key(["new"], [row("b", "old")], None) == "new"


def test_a_newcomer_makes_nobody_go_back_to_an_older_key() -> None:
    assert choose_key(["new", "old"], [row("b", "old")], "new") == "new"
    assert choose_key(["old"], [row("b", "old")], "new") == "old"  # it has been taken away


def test_a_replica_lacks_what_others_sign_with() -> None:
    assert missing_keys(["new"], [row("b", "new", "old"), row("c", "new", "old", signs_with="old")]) == ["old"]
    assert missing_keys(["new"], [row("b", "new", "old")]) == []


# ── the rows ──


@asynccontextmanager
async def opened(url: str, *keys: str, at: datetime = T0) -> AsyncIterator[Replicas]:
    store = await connect(url)
    tokens = Tokens(keys, installation=store.installation)
    try:
        yield Replicas(store, tokens, version="0.1.0", now=lambda: at)
    finally:
        await store.close()


async def test_a_key_in_use_elsewhere_is_needed_to_be_ready(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(postgres_url, OLD) as one, opened(postgres_url, NEW) as two:
        await one.announce()
        await two.announce()
        await two.announce()
        assert two.missing
        assert [each.levelno for each in caplog.records if "lacks" in each.message] == [logging.ERROR]
        assert not one.missing  # it serves, and the newcomer doesn't
        two.use([NEW, OLD], "")
        assert not two.missing
        await one.leave()
        await two.announce()
        assert two.count == 1


async def test_a_newcomer_is_known_before_a_new_key_signs(postgres_url: str) -> None:
    async with opened(postgres_url, OLD) as one, opened(postgres_url, OLD) as newcomer:
        await one.announce()
        await newcomer.announce()
        signs = one._tokens
        old = signs.signs_with
        one.use([NEW, OLD], "")  # a reload, before it has heard of the newcomer
        assert signs.signs_with == old
        await one.announce()
        assert signs.signs_with == old
        newcomer.use([NEW, OLD], "")
        await newcomer.announce()
        await one.announce()
        assert signs.signs_with == signs.key_ids[0] != old


async def test_a_silent_replica_is_gone_after_half_a_minute(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(postgres_url, OLD) as dead, opened(postgres_url, NEW) as one:
        await dead.announce()
        await one.announce()
        assert one.missing
        monkeypatch.setattr(replicas, "SILENT", 0.05)
        await asyncio.sleep(0.06)
        await one.announce()
        assert (one.missing, one.count) == ([], 1)


async def test_a_row_from_long_ago_counts_for_nothing(postgres_url: str) -> None:
    ago = T0 - SKEW - timedelta(seconds=1)
    async with opened(postgres_url, OLD, at=ago) as dead, opened(postgres_url, NEW) as one:
        await dead.announce()
        for _ in range(2):
            await one.announce()
            assert (one.missing, one.count) == ([], 1)


async def test_an_idle_sqlite_service_writes_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "EVERY", 0.01)
    async with opened(f"sqlite:///{tmp_path}/runs.db", OLD) as one:
        await one.announce()
        announcing = asyncio.create_task(one.keep_announcing())
        reading = await connect(f"sqlite:///{tmp_path}/runs.db")
        await reading.changed()
        await asyncio.sleep(0.1)
        assert not await reading.changed()
        one.use([NEW, OLD], "")
        async with asyncio.timeout(60):
            while (await reading.replicas())[0].key_ids != one._tokens.key_ids:
                await asyncio.sleep(0.01)
        announcing.cancel()
        await reading.close()


# ── a rotation ──


@workflow
async def replicas_wait() -> str:
    return await (await create_webhook()).text()


@dataclass
class Replica:
    """One of two replicas, as a load balancer sees it."""

    service: Service
    http: httpx2.AsyncClient
    stack: AsyncExitStack


class Rotation:
    """Two replicas on one database, and people who click links of either at either."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.running: dict[str, Replica] = {}
        self.random = Random(1)  # noqa: S311
        self.answers: list[int] = []
        self.hook_id = ""

    def configured(self, name: str, keys: Sequence[str]) -> Path:
        folder = self.folder / name
        (folder / "workflows").mkdir(parents=True, exist_ok=True)
        for key in keys:
            (folder / f"{key[4:7]}.key").write_text(key)
        listed = ", ".join(f'"file:{key[4:7]}.key"' for key in keys)
        (folder / "config.toml").write_text(CONFIG.format(url=self.url, keys=listed, folder="workflows"))
        return folder / "config.toml"

    async def start(self, name: str, *keys: str) -> None:
        stack = AsyncExitStack()
        service = await stack.enter_async_context(open_service(read_configuration(self.configured(name, keys))))
        transport = httpx2.ASGITransport(service.app)
        http = await stack.enter_async_context(
            httpx2.AsyncClient(transport=transport, base_url="https://approve.acme.eu")
        )
        self.running[name] = Replica(service, http, stack)

    async def stop(self, name: str) -> None:
        await self.running.pop(name).stack.aclose()

    async def restart(self, name: str, *keys: str) -> None:
        await self.stop(name)
        await self.start(name, *keys)

    async def reload(self, name: str, *keys: str) -> None:
        later = self.running[name].service.reload(read_configuration(self.configured(name, keys)))
        assert list(later) == []

    async def all_sign_with(self, key: str) -> None:
        """Wait, as an operator does between two steps, until each says that it signs with this key."""
        store = next(iter(self.running.values())).service.engine.store
        (wanted,) = Tokens([key], installation=store.installation).key_ids
        async with asyncio.timeout(60):
            while {row.signs_with for row in await self.rows()} != {wanted}:
                await asyncio.sleep(0.02)

    async def rows(self) -> list[ReplicaRow]:
        return await next(iter(self.running.values())).service.engine.store.replicas()

    async def click(self, times: int) -> None:
        for _ in range(times):
            await self.begin()
            made, shown = (self.random.choice([*self.running.values()]) for _ in range(2))
            answer = await shown.http.get(made.service.engine.link(self.hook_id))
            self.answers.append(answer.status_code)
            await asyncio.sleep(0.002)

    async def begin(self) -> None:
        if not self.hook_id:
            engine = next(iter(self.running.values())).service.engine
            run = await engine.start(replicas_wait)
            await engine.settle()
            self.hook_id = next(e.data["hook_id"] for e in await engine.events(run.id) if e.type == "hook_created")


@pytest.mark.parametrize("clicks", [100, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["restart", "reload"])
async def test_a_rolling_rotation_breaks_no_link(
    clicks: int, how: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "EVERY", 0.05)
    rotation = Rotation(postgres_url, tmp_path)
    change = rotation.restart if how == "restart" else rotation.reload
    await rotation.start("a", OLD)
    await rotation.start("b", OLD)
    try:
        for before, keys in ((OLD, (NEW, OLD)), (NEW, (NEW,))):
            await rotation.all_sign_with(before)
            for name in ("a", "b"):
                clicking = asyncio.create_task(rotation.click(clicks // 4))
                await asyncio.sleep(0.01)
                await change(name, *keys)
                await clicking
        assert all([(await each.http.get("/readyz")).status_code == 200 for each in rotation.running.values()])
        assert len({row.signs_with for row in await rotation.rows()}) == 1
    finally:
        for name in [*rotation.running]:
            await rotation.stop(name)
    assert len(rotation.answers) == clicks
    assert set(rotation.answers) == {200}
    store = await connect(postgres_url)
    assert await store.replicas() == []  # a clean end leaves none
    await store.close()


async def test_a_replica_without_a_key_in_use_is_not_ready(postgres_url: str, tmp_path: Path) -> None:
    rotation = Rotation(postgres_url, tmp_path)
    await rotation.start("a", OLD)
    await rotation.start("b", NEW)
    try:
        b = rotation.running["b"]
        unready = await b.http.get("/readyz")
        assert (unready.status_code, unready.json()["status"]) == (503, "key_not_everywhere")
        assert (await b.http.get("/healthz")).status_code == 200
        assert (await rotation.running["a"].http.get("/readyz")).status_code == 200
        await rotation.reload("b", NEW, OLD)
        assert (await b.http.get("/readyz")).status_code == 200
    finally:
        for name in [*rotation.running]:
            await rotation.stop(name)
