"""Which runs a bulk repair finds, and how much of the store it reads for that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot import workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.service import repairs
from approvals_bot.testing import FakeClock

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


@workflow
async def refused(number: int) -> None:
    raise ValueError(f"number {number} is refused")


async def test_since_reads_only_runs_that_ended_since(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "PAGE_SIZE", 2)
    clock = FakeClock(START)
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db", clock=clock) as engine:
        for number in range(9):
            await engine.start(refused, number)
            await clock.advance(3600)
        pages: list[int] = []
        listed = engine.store.runs

        async def counted(which: Any) -> Any:
            rows, cursor = await listed(which)
            pages.append(len(rows))
            return rows, cursor

        monkeypatch.setattr(engine.store, "runs", counted)
        since = START + timedelta(hours=6)
        found = [repairs.error_of(run) async for run in repairs.find_broken(engine, statuses=["failed"], since=since)]
        assert found == [f"ValueError: number {number} is refused" for number in (6, 7, 8)]
        assert pages == [2, 1], "the six that failed before aren't read"
