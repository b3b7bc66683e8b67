"""The stores that the tests of promises run on. Add a new store here."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from approvals_bot.durable.store import connect
from approvals_bot.durable.store.protocol import OpenStore

Connect = Callable[[], Awaitable[OpenStore]]


@pytest.fixture(params=["sqlite", "postgres"])
async def connected(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Return a function that connects to the test's own database, each time as another process would."""
    opened: list[OpenStore] = []
    url = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")

    async def once_more() -> OpenStore:
        opened.append(await connect(url))
        return opened[-1]

    yield once_more
    for store in opened:
        await store.close()


@pytest.fixture
async def store(connected: Connect) -> OpenStore:
    return await connected()


@pytest.fixture
def damage(request: pytest.FixtureRequest, connected: Connect, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that changes rows behind the program's back."""

    def execute(sql: str) -> None:
        if "sqlite" in request.node.callspec.id:
            with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
                db.execute(sql)
        else:
            request.getfixturevalue("postgres").execute(sql, request.getfixturevalue("postgres_url"))

    return execute
