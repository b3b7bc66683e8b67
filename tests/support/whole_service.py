"""A whole service over HTTP, in one process: the real routes, engine and SQLite store; time is the test's."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.keys import ApiKey
from approvals_bot.testing import FakeClock
from approvals_bot.web.links import DECISION
from approvals_bot.web.routes import build
from tests.support.slack_office import office, open_office  # noqa: F401  # the fixtures of Slack's tests

BASE_URL = "https://approve.acme.eu"
KEY = "a-key-of-the-tests-that-has-32-bytes!"
DESK = ApiKey("desk", ("desk-key",), frozenset({"start", "read-all", "vote", "operate"}), requesters=("*",))
CI = ApiKey("ci", ("ci-key",), requesters=("@engineers",))
GROUPS = {
    "engineers": ("ann@acme.eu", "bo@acme.eu", "cy@acme.eu", "di@acme.eu"),
    "release-managers": ("ann@acme.eu", "bo@acme.eu", "cy@acme.eu"),
    "sre": ("bo@acme.eu", "cy@acme.eu", "di@acme.eu"),
    "finance": ("cfo@acme.eu",),
}
PERSONS = (
    Person("ann@acme.eu", "Ann Ode", zone="Europe/Berlin"),
    Person("bo@acme.eu", "Bo Lund"),
    Person("cy@acme.eu", "Cy Rus", numbers="1.234,56"),
    Person("di@acme.eu", "Di Oz"),
    Person("cfo@acme.eu", "Fay Cash"),
)
MANAGERS = {"ann@acme.eu": "cfo@acme.eu", **dict.fromkeys(("bo@acme.eu", "cy@acme.eu", "di@acme.eu"), "ann@acme.eu")}


@dataclass
class Service:
    """The service and who calls it. `api` bears a key that may vote, `plain` one that may not, `web` none."""

    engine: Engine
    clock: FakeClock
    tokens: Tokens
    workflows: dict[str, Listed]
    database: Path
    api: httpx2.AsyncClient
    plain: httpx2.AsyncClient
    web: httpx2.AsyncClient
    app: ASGIApp

    async def start(self, workflow: str, input: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Open a run over the API; its id, once the engine has done all that it can do without anybody."""
        answer = await self.api.post("/api/runs", json={"workflow": workflow, "input": dict(input or {}), **more})
        assert answer.status_code == 202, answer.text
        await self.engine.settle()
        return str(answer.json()["run_id"])

    async def run(self, run_id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/api/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def view(self, run_id: str) -> dict[str, Any]:
        record = await self.engine.record(run_id)
        assert record is not None
        published: dict[str, Any] = record.view
        return Request.model_validate(record.parts[0]).model_dump(mode="json") if record.parts else published

    async def link(self, run_id: str, address: str) -> str:
        """The path of this person's decision page, as a mail would carry it."""
        view = await self.view(run_id)
        hook = await self.engine.find_hook(view["hook_id"])
        assert hook is not None
        recipient = next(id for id, known in view["recipients"].items() if known == address)
        token = self.tokens.sign(DECISION, {"h": hook.hook_id, "r": recipient, "g": hook.generation})
        return f"/decisions/{token}"

    def content(self) -> dict[str, list[Any]]:
        """Everything in the store, by table, but for notes of the last use of keys: those come when they come."""
        with closing(sqlite3.connect(self.database)) as store:
            tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: store.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
        rows["counters"] = [row for row in rows["counters"] if not str(row[0]).startswith("api_key ")]
        return {name: sorted(found, key=repr) for name, found in rows.items()}


Opened = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def open_service(tmp_path: Path, store_url: str) -> Opened:
    """Opens a service, with other API keys or channels if asked."""

    @asynccontextmanager
    async def opened(
        *,
        keys: bool = True,
        open_pages: bool = False,
        channels: Channels | None = None,
        base_url: str = BASE_URL,
        loopback_only: bool = False,
        also: Sequence[ApiKey] = (),
    ) -> AsyncIterator[Service]:
        clock, people, listed = FakeClock(), People(PERSONS, GROUPS, managers=MANAGERS), dict[str, Listed]()
        database = tmp_path / "runs.db"
        async with Engine.open(
            store_url,
            signing_keys=[KEY],
            base_url=base_url,
            clock=clock,
            resources=[people, channels or Channels()],
        ) as engine:
            app = build(
                engine=engine,
                tokens=Tokens([KEY], installation=engine.installation),
                people=people,
                workflows=Catalog(listed),
                api_keys=[DESK, CI, *also] if keys else [],
                base_url=base_url,
                open_pages=open_pages,
                loopback_only=loopback_only,
            )

            def client(key: str | None) -> httpx2.AsyncClient:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=base_url, headers=headers)

            async with client("desk-key") as api, client("ci-key") as plain, client(None) as web:
                yield Service(
                    engine,
                    clock,
                    Tokens([KEY], installation=engine.installation),
                    listed,
                    database,
                    api,
                    plain,
                    web,
                    app,
                )

    return opened


@pytest.fixture
async def service(open_service: Opened) -> AsyncIterator[Service]:
    """A service without channels."""
    async with open_service() as opened:
        yield opened
