"""The stores that sit the exam. A new one is added here, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from approvals_bot.store import OpenStore, connect

Connect = Callable[[], Awaitable[OpenStore]]


@pytest.fixture(params=["sqlite"])
async def connected(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Connects to this test's own database; each call is as a further process would."""
    opened: list[OpenStore] = []
    urls = {"sqlite": f"sqlite:///{tmp_path}/runs.db"}

    async def once_more() -> OpenStore:
        opened.append(await connect(urls[request.param]))
        return opened[-1]

    yield once_more
    for store in opened:
        await store.close()


@pytest.fixture
async def store(connected: Connect) -> OpenStore:
    return await connected()
