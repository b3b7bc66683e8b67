"""The stores that sit the exam. A new one is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from approvals_bot.durable.store import connect
from approvals_bot.durable.store.protocol import OpenStore

Connect = Callable[[], Awaitable[OpenStore]]


@pytest.fixture(params=["sqlite", "postgres"])
async def connected(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects to this test's own database; each call is as a further process would."""
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
