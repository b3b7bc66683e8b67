"""pytest fixtures for testing workflows on a real engine.

# conftest.py
pytest_plugins = ["approvals_bot.testing.fixtures"]

# test_expenses.py (with pytest-asyncio)
async def test_a_reminder_is_sent_after_a_day(open_engine, clock):
    async with open_engine() as engine:
        await engine.start(expense, 420)
        await clock.advance("1 day")
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.testing.clock import FakeClock

OpenEngine = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that only moves when the test moves it."""
    return FakeClock()


@pytest.fixture
def open_engine(tmp_path: Path, clock: FakeClock) -> OpenEngine:
    """A function that opens an engine on this test's SQLite file and clock.

    It takes the options of `Engine.open`. Opened again, the engine finds the same runs, so two `async with` blocks test
    a restart.
    """

    def open(**options: Any) -> AbstractAsyncContextManager[Engine]:
        given = {"signing_keys": ["a test's key, 32 bytes and longer"], "base_url": "https://example.test"}
        return Engine.open(f"sqlite:///{tmp_path}/runs.db", **{"clock": clock, **given, **options})

    return open
