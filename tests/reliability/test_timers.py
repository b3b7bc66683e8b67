"""P13: a timer fires once, never early and promptly, despite `kill -9`, clock jumps and daylight saving time.

CI runs a thousand timers; `TIMERS=10000` runs as many as promised.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest

from approvals_bot import sleep, step, workflow
from approvals_bot.approvals.business_time import BusinessTime, Calendar, after
from approvals_bot.durable.core.commands import resume_at
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine import batch as turn
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

TIMERS = int(os.environ.get("TIMERS", "1000"))
A_SECOND = 150  # timers that are due each second
KILLS = max(2, TIMERS // 1000)
LATE = 1.0  # seconds, for 99 of 100, as promised
CATCHES_UP = 2.0  # seconds after a start within which overdue timers fire
BUSY = 10.0  # seconds that a very busy machine may add
SERVICE = Path(__file__).parents[1] / "support" / "timers_service.py"


@dataclass(frozen=True)
class Fired:
    """One timer: when it was due, and when its run continued."""

    due: datetime
    at: datetime


async def fired(engine: Engine, run_id: str) -> list[Fired]:
    """Return the timers of a run, after checking that each fired once and none early."""
    log = await engine.events(run_id)
    due = {e.data["id"]: resume_at(e) for e in log if e.type == "wait_created"}
    over = [(e.data["id"], e.at) for e in log if e.type == "wait_completed"]
    assert Counter(number for number, _ in over) == Counter(due.keys()), "each fires once"
    assert [at for number, at in over if at < due[number]] == [], "none is early"
    return [Fired(due[number], at) for number, at in over]


async def every_run(engine: Engine) -> list[str]:
    found, cursor = list[str](), None
    while True:
        page = await engine.records(cursor=cursor, limit=200)
        found += [record.id for record in page.records]
        if (cursor := page.cursor) is None:
            return found


# ── killed in the middle ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def served(database: Path, spread: float) -> Iterator[float]:
    """When it was ready; killed at the end."""
    command = [sys.executable, str(SERVICE), str(database), str(TIMERS // 2), str(spread)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield float(process.stdout.readline())
        finally:
            process.kill()


def until(look: Callable[[], bool], seconds: float) -> None:
    over = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < over, "it has not happened"
        time.sleep(0.05)


def waiting(database: Path) -> int:
    """Runs that have not ended."""
    with closing(sqlite3.connect(database)) as db:
        return int(db.execute("SELECT count(*) FROM runs WHERE ended_at IS NULL").fetchone()[0])


@pytest.mark.timeout(180 + TIMERS // 20)
@pytest.mark.promise(13)
async def test_each_timer_fires_once_and_none_early_despite_kills(tmp_path: Path) -> None:
    database, spread = tmp_path / "runs.db", TIMERS / A_SECOND
    lives, runs = list[float](), TIMERS // 2
    for number in range(1, KILLS + 1):
        with served(database, spread) as ready:
            lives.append(ready)
            left = runs - runs * number // (KILLS + 1)
            until(lambda: waiting(database) <= left, spread + 60)  # noqa: B023  # it is asked at once
    with served(database, spread) as ready:
        lives.append(ready)
        until(lambda: not waiting(database), spread + 60)
    caught_up, on_time = list[float](), list[float]()
    async with Engine.open(f"sqlite:///{database}") as engine:
        found = await every_run(engine)
        assert len(found) == runs
        for run_id in found:
            timers = sorted(await fired(engine, run_id), key=lambda each: each.due)
            result: list[float] = await engine.get_run(run_id).return_value()
            for timer, went_on in zip(timers, sorted(result), strict=True):
                assert went_on >= timer.due.timestamp()
                alive = max((ready for ready in lives if ready <= went_on), default=0.0)
                at_work = timer.due.timestamp() > alive + CATCHES_UP
                (on_time if at_work else caught_up).append(went_on - max(timer.due.timestamp(), alive))
    figures = [
        f"{len(late)} {what}: {seconds(late, 50):.2f}, {seconds(late, 99):.2f} s"
        for what, late in (("while it was up", on_time), ("after a start", caught_up))
    ]
    sys.stdout.write(f"{TIMERS} timers, {KILLS} kills; p50 and p99 of lateness, {', '.join(figures)}\n")
    assert len(on_time) > TIMERS // 20
    assert seconds(on_time, 99) < LATE + BUSY
    assert seconds(caught_up, 99) < LATE + BUSY


def seconds(late: list[float], percent: int) -> float:
    return sorted(late)[max(0, len(late) * percent // 100 - 1)]


# ── leaps of the clock ────────────────────────────────────────────────────────────────────────────────────────────


class LeapingClock:
    """The time of the day, which somebody sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@step
async def takes_its_time(hold: str) -> None:
    while Path(hold).exists():
        await asyncio.sleep(0.02)


@workflow(name="a timer, perhaps beside a step")
async def one_timer(due: datetime, hold: str) -> None:
    await asyncio.gather(sleep(due), *([takes_its_time(hold)] if hold else []))


async def gone_off(engine: Engine, run_id: str) -> bool:
    return any(event.type == "wait_completed" for event in await engine.events(run_id))


async def soon(engine: Engine, runs: list[str]) -> None:
    """All of these go off, without anybody's help."""
    async with asyncio.timeout(LATE + BUSY):
        for run_id in runs:
            while not await gone_off(engine, run_id):
                await asyncio.sleep(0.02)


@pytest.mark.promise(13)
async def test_a_jumping_clock_fires_no_timer_early_or_twice(tmp_path: Path) -> None:
    clock, hold = LeapingClock(), tmp_path / "hold"
    hold.touch()
    async with Engine.open(f"sqlite:///{tmp_path}/runs.db", clock=clock) as engine:
        base = clock.now()
        in_hours: dict[int, list[str]] = {}
        for hours in (1, 2, 3):
            due = base + timedelta(hours=hours)
            held = [str(hold) if n == 0 else "" for n in range(20)]  # one of them beside a step that is under way
            in_hours[hours] = [(await engine.start(one_timer, due, each)).id for each in held]
        clock.ahead = timedelta(hours=1)
        await soon(engine, in_hours[1])
        clock.ahead = timedelta(hours=-5)
        fresh = (await engine.start(one_timer, clock.now() + timedelta(seconds=0.2), "")).id
        await soon(engine, [fresh])
        assert not any([await gone_off(engine, run_id) for run_id in in_hours[2]])
        clock.ahead = timedelta(hours=2)
        await soon(engine, in_hours[2])
        assert not any([await gone_off(engine, run_id) for run_id in in_hours[3]])
        clock.ahead = timedelta(days=40)
        await soon(engine, in_hours[3])
        hold.unlink()
        for run_id in [fresh, *(run_id for runs in in_hours.values() for run_id in runs)]:
            await asyncio.wait_for(engine.get_run(run_id).return_value(), 20)
            assert len(await fired(engine, run_id)) == 1


# ── where clocks are changed ──────────────────────────────────────────────────────────────────────────────────────

ZONES = {  # and a day on which its clocks are changed
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),  # by half an hour
    "America/St_Johns": ("2026-03-08", "2026-11-01"),
    "Africa/Casablanca": ("2026-02-15", "2026-03-22"),
}
OFFICE = {"mon-sun": "00:00-24:00"}


@workflow(name="waits for a time of the wall")
async def waits(due: datetime) -> None:
    await sleep(due)


def walls(chance: Random) -> Iterator[datetime]:
    """Times of the wall around the changes, also such as are skipped or come twice; and ends of business time."""
    while True:
        zone = chance.choice([*ZONES])
        day = datetime.fromisoformat(chance.choice(ZONES[zone])).replace(tzinfo=ZoneInfo(zone))
        wall = day + timedelta(minutes=chance.randrange(-3 * 60, 8 * 60))
        if chance.random() < 0.2:
            length = BusinessTime(chance.randrange(1, 4), chance.choice(("days", "hours")))
            yield after(wall, length, Calendar(zone=zone, hours=OFFICE))
        else:
            yield wall.replace(fold=chance.randrange(2))


@pytest.mark.promise(13)
async def test_daylight_saving_changes_move_no_timer(open_engine: OpenEngine, clock: FakeClock) -> None:
    """Restarted on the way. What is due when is reckoned here by the zone's own offset, not by the product."""
    made = walls(Random(13))  # noqa: S311  # the same each time
    expected: dict[str, datetime] = {}
    clock._now = datetime(2026, 1, 1, tzinfo=UTC)
    async with open_engine() as engine:
        for due, _ in zip(made, range(TIMERS // 4), strict=False):
            offset = due.utcoffset()
            assert offset is not None
            expected[(await engine.start(waits, due)).id] = (due.replace(tzinfo=None) - offset).replace(tzinfo=UTC)
    for _ in range(12):
        async with open_engine() as engine:
            await clock.advance("29 days")
    async with open_engine() as engine:
        for run_id, due in expected.items():
            (timer,) = await fired(engine, run_id)
            assert timer == Fired(due, due)
    assert len({due.date() for due in expected.values()}) >= 10


# ── a control ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.drifts
@pytest.mark.promise(13)
async def test_an_engine_that_fires_a_little_early_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = turn.LogIndex.due
    monkeypatch.setattr(turn.LogIndex, "due", lambda index, now: real(index, now + timedelta(seconds=0.5)))

    @workflow(name="two timers, one soon after the other")
    async def two() -> None:
        await asyncio.gather(sleep(0.2), sleep(0.5))

    async with Engine.open(f"sqlite:///{tmp_path}/runs.db") as engine:
        run = await engine.start(two)
        await asyncio.wait_for(run.return_value(), 20)
        with pytest.raises(AssertionError, match="none is early"):
            await fired(engine, run.id)
