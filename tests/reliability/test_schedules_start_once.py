"""Real processes keep schedules of every second, and are killed at random: each time starts once at most."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from approvals_bot.durable.engine.schedules import ScheduleState, read_state
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.protocol import Filter, RunRecord
from tests.support.scheduling_replica import OVERLAPS

KILLS = int(os.environ.get("APPROVALS_TEST_LOSSES", "6"))
AHEAD = (0.0, 2.5)  # seconds that the replicas' clocks are ahead
CALM = 8.0  # seconds at the end without kills; a dead process's runs wait for their lease


@contextmanager
def replicas(url: str, log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run two replicas. The list has those that run now."""
    running = [launch(url, ahead, log) for ahead in AHEAD]
    try:
        yield running
    finally:
        for each in running:
            each.kill()
            each.wait()


def launch(url: str, ahead: float, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.scheduling_replica", url, str(ahead)]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


async def all_runs(url: str) -> list[tuple[RunRecord, str, datetime]]:
    """Return every run with its schedule and its time."""
    store = await connect(url)
    found, cursor = [], None
    while True:
        rows, cursor = await store.runs(Filter(cursor=cursor, limit=200, oldest_first=True))
        for row in rows:
            read = await store.read(row.id)
            assert read is not None
            given = read[1][0].data["input"]
            found.append((read[0], given["schedule"], datetime.fromisoformat(given["time"])))
        if cursor is None:
            await store.close()
            return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", [pytest.param("sqlite", marks=pytest.mark.long), "postgres"])
def test_each_time_starts_once_however_replicas_die(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db" if database == "sqlite" else request.getfixturevalue("postgres_url")
    log, chance = tmp_path / "log", random.Random(7)  # noqa: S311  # the same kills each time
    with replicas(url, log) as running:
        wait_until_ready(log, running)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 2.5))
            victim = chance.randrange(2)
            running[victim].kill()
            running[victim].wait()
            running[victim] = launch(url, AHEAD[victim], log)
            if chance.random() < 0.5:  # else it may be killed while it starts
                wait_until_ready(log, running)
        wait_until_ready(log, running)
        time.sleep(CALM)
        end = datetime.now(UTC)
    runs = asyncio.run(all_runs(url))
    repeated = [each for each, count in Counter((name, at) for _, name, at in runs).items() if count > 1]
    assert repeated == []
    for overlap in OVERLAPS:
        mine = sorted((at, row) for row, name, at in runs if name == f"{overlap}/a")
        assert len(mine) > 2, (overlap, log.read_text())
        assert overlap == "allow" or [row.id for row in overlapping([row for _, row in mine])] == []
    assert max(at for _, name, at in runs if name == "allow/a") > end - timedelta(seconds=5)
    states = asyncio.run(read_states(url))
    started = {row.id for row, *_ in runs}
    assert {state.started.run_id for state in states if state is not None and state.started is not None} <= started


def overlapping(rows: list[RunRecord]) -> list[RunRecord]:
    """Return the runs that began before the one before them had ended.

    Their times are those of two clocks, so each may be off by the difference.
    """
    skew = timedelta(seconds=max(AHEAD))
    return [later for row, later in pairwise(rows) if row.ended_at is None or later.created_at + skew < row.ended_at]


async def read_states(url: str) -> list[ScheduleState | None]:
    store = await connect(url)
    try:
        return [read_state(row) for row in await store.schedules()]
    finally:
        await store.close()


def wait_until_ready(log: Path, running: Sequence[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 60
    while not all(f"ready {each.pid}\n" in log.read_text() for each in running):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
