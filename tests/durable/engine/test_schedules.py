"""Schedules on both stores, with time that the test moves: what starts, what doesn't, and what survives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot import create_hook, workflow
from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.core.idempotency import SentKey
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.schedules import (
    NotStarted,
    Outcome,
    Schedule,
    ScheduledRun,
    ScheduleState,
    decide_time,
    read_state,
)
from approvals_bot.durable.store.protocol import StateRow
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

HOUR = timedelta(hours=1)


@workflow
async def scheduled_wait() -> str:
    return str(await create_hook("scheduled wait"))


@workflow
async def scheduled_end() -> None:
    pass


HOURLY = Schedule("scheduled_wait", "scheduled_wait/hourly", Cron("0 * * * *", "UTC"))
"""Its run waits until somebody resumes it. FakeClock begins at 9:00."""


@dataclass
class Starts:
    """What starts the runs of schedules: as the service does, unless it is to fail."""

    engine: Engine
    made: list[tuple[str, datetime]] = field(default_factory=list)
    counted: list[tuple[str, Outcome]] = field(default_factory=list)
    fails: Callable[[], NotStarted | None] = lambda: None

    def use(self, *schedules: Schedule) -> None:
        self.engine.schedules.use(schedules, self.start, lambda *what: self.counted.append(what))

    async def start(self, schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
        failed = self.fails()
        if failed is not None:
            return failed
        key = SentKey(f"schedule {schedule.name} {at.isoformat()}", {})
        run = await self.engine.start(schedule.workflow, idempotency_key=key)
        if run.is_new:
            self.made.append((schedule.name, at))
        return ScheduledRun(run.id)

    def times(self) -> list[str]:
        return [f"{at:%H:%M}" for _, at in self.made]


async def state_of(engine: Engine, schedule: Schedule = HOURLY) -> ScheduleState:
    (row,) = [row for row in await engine.store.schedules() if row.name == schedule.name]
    state = read_state(row)
    assert state is not None
    return state


async def outcome_of(engine: Engine, schedule: Schedule = HOURLY) -> str:
    last = (await state_of(engine, schedule)).last
    return "nothing" if last is None else f"{last.outcome} {last.at:%H:%M}"


async def finish(engine: Engine) -> None:
    await engine.resume_hook("scheduled wait", "done")
    await engine.settle()


async def test_it_starts_at_each_time(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(
            replace(HOURLY, workflow="scheduled_end"), Schedule("scheduled_end", "late", Cron("30 11 * * *", "UTC"))
        )
        await clock.advance("3 hours")
        assert starts.made == [
            ("scheduled_wait/hourly", datetime(2026, 1, 1, 10, tzinfo=UTC)),
            ("scheduled_wait/hourly", datetime(2026, 1, 1, 11, tzinfo=UTC)),
            ("late", datetime(2026, 1, 1, 11, 30, tzinfo=UTC)),
            ("scheduled_wait/hourly", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ]
        assert starts.counted == [("scheduled_end", "started")] * 4


async def test_times_before_it_was_first_seen_are_none_of_its(open_engine: OpenEngine, clock: FakeClock) -> None:
    await clock.advance("5 minutes")
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(HOURLY)
        await clock.advance("54 minutes")
        assert starts.made == []


async def test_by_default_a_time_is_skipped_while_the_last_run_is_open(
    open_engine: OpenEngine, clock: FakeClock
) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(HOURLY)
        await clock.advance("2 hours")
        assert starts.times() == ["10:00"]
        state = await state_of(engine)
        assert state.last is not None
        assert state.started is not None
        assert (state.last.outcome, state.last.run_id) == ("skipped", state.started.run_id)
        await finish(engine)
        await clock.advance("1 hour")
        assert starts.times() == ["10:00", "12:00"]
        assert [outcome for _, outcome in starts.counted] == ["started", "skipped", "started"]


async def test_with_queue_one_start_waits_for_the_run_to_end(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, overlap="queue"))
        await clock.advance("3 hours 10 minutes")
        assert starts.times() == ["10:00"]
        assert await outcome_of(engine) == "skipped 12:00"  # one waits already
        await finish(engine)
        assert starts.times() == ["10:00", "11:00"]
        assert await outcome_of(engine) == "started 11:00"
        await finish(engine)
        assert starts.times() == ["10:00", "11:00"]
        assert [outcome for _, outcome in starts.counted] == ["started", "queued", "skipped", "started"]


async def test_with_allow_runs_overlap(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, overlap="allow"))
        await clock.advance("3 hours")
        assert starts.times() == ["10:00", "11:00", "12:00"]


async def test_a_queued_start_survives_a_restart(open_engine: OpenEngine, clock: FakeClock) -> None:
    queue = replace(HOURLY, overlap="queue")
    async with open_engine() as engine:
        Starts(engine).use(queue)
        await clock.advance("2 hours 10 minutes")
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(queue)
        await engine.settle()
        assert starts.made == []
        await finish(engine)
        assert starts.times() == ["11:00"]


async def test_the_run_in_place_of_one_that_was_reset_counts(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, overlap="queue"))
        await clock.advance("1 hour 10 minutes")
        started = (await state_of(engine)).started
        assert started is not None
        assert started.run_id is not None
        await clock.advance("1 hour")
        assert await outcome_of(engine) == "queued 11:00"
        again = await engine.reset(started.run_id, to=1)
        await engine.settle()
        assert starts.times() == ["10:00"]
        await clock.advance("1 hour")
        last = (await state_of(engine)).last
        assert last is not None
        assert (last.outcome, last.run_id) == ("skipped", again.id)
        await finish(engine)
        assert starts.times() == ["10:00", "11:00"]


async def test_the_last_missed_time_starts_if_it_is_recent(open_engine: OpenEngine, clock: FakeClock) -> None:
    often = replace(HOURLY, workflow="scheduled_end", cron=Cron("*/10 * * * *", "UTC"))
    async with open_engine() as engine:
        Starts(engine).use(often)
        await clock.advance("5 minutes")
    await clock.advance("40 minutes")
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(often)
        await engine.settle()
        assert starts.times() == ["09:40"]
        missed = (await state_of(engine, often)).missed
        assert missed is not None
        assert [f"{at:%H:%M}" for at in missed] == ["09:10", "09:30"]
        assert [outcome for _, outcome in starts.counted] == ["missed", "started"]
        await clock.advance("5 minutes")
        assert starts.times() == ["09:40", "09:50"]


async def test_a_time_older_than_catch_up_is_missed(
    open_engine: OpenEngine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        Starts(engine).use(replace(HOURLY, catch_up=HOUR / 4))
        await clock.advance("5 minutes")
    await clock.advance("3 hours 30 minutes")  # 12:35
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, catch_up=HOUR / 4))
        await engine.settle()
        assert starts.made == []
        assert await outcome_of(engine) == "missed 12:00"
        assert [outcome for _, outcome in starts.counted] == ["missed"]
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
            "schedule scheduled_wait/hourly: the times from 2026-01-01T10:00:00+00:00 to 2026-01-01T12:00:00+00:00 "
            "were missed"
        ]


async def test_another_cron_or_zone_begins_when_it_is_seen(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        Starts(engine).use(replace(HOURLY, cron=Cron("0 9 * * *", "UTC")))
        await clock.advance("1 minute")
    await clock.advance("1 hour")
    async with open_engine() as engine:  # 10:01
        starts = Starts(engine)
        starts.use(replace(HOURLY, cron=Cron("0 10 * * *", "UTC")))
        await engine.settle()
        starts.use(replace(HOURLY, cron=Cron("0 11 * * *", "Europe/Berlin")))
        await engine.settle()
        assert starts.made == []
        await clock.advance("1 day")
        assert starts.times() == ["10:00"]


async def test_one_that_is_gone_for_a_while_catches_up_with_nothing(open_engine: OpenEngine, clock: FakeClock) -> None:
    ends = replace(HOURLY, workflow="scheduled_end")
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(ends)
        await clock.advance("30 minutes")
        starts.use()
        await clock.advance("1 hour")
        starts.use(ends)  # 10:30
        await clock.advance("1 hour")
        assert starts.times() == ["11:00"]


async def test_one_that_comes_back_owes_nothing(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, overlap="queue"))
        await clock.advance("2 hours 10 minutes")
        starts.use()
        await engine.settle()
        await finish(engine)
        starts.use(replace(HOURLY, overlap="queue"))
        await engine.settle()
        assert starts.times() == ["10:00"]


async def test_it_still_skips_after_it_was_gone(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(HOURLY)
        await clock.advance("1 hour 10 minutes")
        starts.use()
        await engine.settle()
        starts.use(HOURLY)
        await clock.advance("1 hour")
        assert starts.times() == ["10:00"]
        assert await outcome_of(engine) == "skipped 11:00"


async def test_a_start_that_fails_for_now_is_tried_again(
    open_engine: OpenEngine, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.fails = lambda: NotStarted("the group can't be read", again=True)
        starts.use(HOURLY)
        await clock.advance("1 hour 10 minutes")
        assert starts.made == []
        starts.fails = lambda: None
        await clock.advance("1 minute")
        assert starts.times() == ["10:00"]
        warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warned == [
            "schedule scheduled_wait/hourly: no run can be started now, trying again: the group can't be read"
        ]


async def test_a_start_is_given_up_after_catch_up(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.fails = lambda: NotStarted("the group can't be read", again=True)
        starts.use(replace(HOURLY, catch_up=HOUR / 2))
        await clock.advance("1 hour 31 minutes")
        state = await state_of(engine)
        assert state.last is not None
        assert (state.last.outcome, state.last.why) == ("refused", "the group can't be read")
        assert starts.counted == [("scheduled_wait", "refused")]


async def test_a_start_that_another_process_makes_is_waited_for_no_more(
    open_engine: OpenEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as one, open_engine() as two:
        both = Starts(one), Starts(two)
        for starts in both:
            starts.fails = lambda: NotStarted("the group can't be read", again=True)
            starts.use(HOURLY)
        await clock.advance("1 hour")
        both[1].fails = lambda: None
        await clock.advance("2 minutes")
        assert both[1].times() == ["10:00"]
        asked, real = [0], one.store.schedules

        async def counted() -> list[StateRow]:
            asked[0] += 1
            return await real()

        monkeypatch.setattr(one.store, "schedules", counted)
        await asyncio.sleep(0.2)
        assert (asked[0], one.schedules.due) == (0, datetime(2026, 1, 1, 11, tzinfo=UTC))


async def test_a_queued_start_that_fails_for_now_is_tried_again(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(replace(HOURLY, overlap="queue"))
        await clock.advance("4 hours")
        assert (starts.times(), await outcome_of(engine)) == (["10:00"], "skipped 13:00")
        starts.fails = lambda: NotStarted("the group can't be read", again=True)
        await finish(engine)
        await clock.advance("10 minutes")
        starts.fails = lambda: None
        await clock.advance("1 minute")
        assert starts.times() == ["10:00", "11:00"]


async def test_a_bug_in_starting_one_harms_no_other(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)

        async def start(schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
            if schedule.name == "broken":
                raise KeyError("no")
            return await starts.start(schedule, at)

        engine.schedules.use([replace(HOURLY, name="broken"), replace(HOURLY, workflow="scheduled_end")], start)
        await clock.advance("2 hours")
        assert starts.times() == ["10:00", "11:00"]


async def test_a_start_that_was_owed_when_a_process_died_is_made_once(
    open_engine: OpenEngine, clock: FakeClock
) -> None:
    """The run was created, and nobody wrote that down."""
    async with open_engine() as engine:
        starts = Starts(engine)

        async def dies(schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
            await starts.start(schedule, at)
            raise asyncio.CancelledError

        engine.schedules.use([HOURLY], dies)
        await clock.advance("1 hour")
        state = await state_of(engine)
        assert state.starting == datetime(2026, 1, 1, 10, tzinfo=UTC)
    async with open_engine() as engine:
        again = Starts(engine)
        again.use(HOURLY)
        await engine.settle()
        assert (starts.times(), again.times()) == (["10:00"], [])
        assert await outcome_of(engine) == "started 10:00"


async def test_a_clock_that_is_set_back_starts_no_time_twice(open_engine: OpenEngine, clock: FakeClock) -> None:
    ends = replace(HOURLY, workflow="scheduled_end")
    async with open_engine() as engine:
        starts = Starts(engine)
        starts.use(ends)
        await clock.advance("3 hours")
        clock._now -= timedelta(hours=2, minutes=30)  # 9:30
        engine.schedules.look_again()
        await clock.advance("4 hours")
        assert starts.times() == ["10:00", "11:00", "12:00", "13:00"]
        assert await outcome_of(engine, ends) == "started 13:00"


async def test_replicas_whose_clocks_differ_start_each_time_once(
    open_engine: Callable[..., AbstractAsyncContextManager[Engine]], clock: FakeClock
) -> None:
    behind = FakeClock(clock.now() - timedelta(seconds=7))
    ends = replace(HOURLY, workflow="scheduled_end", cron=Cron("* * * * *", "UTC"))
    async with open_engine() as first, open_engine(clock=behind) as second:
        one, other = Starts(first), Starts(second)
        one.use(ends)
        await first.settle()
        other.use(ends)
        await second.settle()
        for _ in range(40):
            await behind.advance("9 seconds")
            await clock.advance("9 seconds")
        assert sorted([*one.times(), *other.times()]) == [f"09:0{minute}" for minute in range(1, 7)]
        assert len(one.counted) + len(other.counted) == 6


async def test_releases_side_by_side_start_the_times_of_both(
    open_engine: Callable[..., AbstractAsyncContextManager[Engine]], clock: FakeClock
) -> None:
    old = replace(HOURLY, workflow="scheduled_end")
    new = replace(old, cron=Cron("30 * * * *", "UTC"))
    async with open_engine() as first, open_engine() as second:
        one, other = Starts(first), Starts(second)
        one.use(old)
        await first.settle()
        other.use(new)
        await second.settle()
        await clock.advance("2 hours")
        assert (one.times(), other.times()) == (["10:00", "11:00"], ["09:30", "10:30"])


async def test_another_process_learns_that_the_run_has_ended(
    open_engine: Callable[..., AbstractAsyncContextManager[Engine]], clock: FakeClock
) -> None:
    queue = replace(HOURLY, overlap="queue")
    async with open_engine() as first:
        Starts(first).use(queue)
        await clock.advance("2 hours 10 minutes")
        async with open_engine() as second:
            other = Starts(second)
            other.use(queue)
            await second.settle()
            await first.resume_hook("scheduled wait", "done")
            async with asyncio.timeout(60):
                while (await state_of(second)).queued is not None:
                    await asyncio.sleep(0.02)


async def test_a_damaged_state_begins_again(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        await engine.store.set_schedule(StateRow(HOURLY.name, 1, {"since": "never"}))
        starts = Starts(engine)
        starts.use(HOURLY)
        await clock.advance("1 hour")
        assert starts.times() == ["10:00"]


async def test_a_store_that_is_away_is_asked_again(
    open_engine: OpenEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as engine:
        starts = Starts(engine)
        read = engine.store.schedules
        tries: list[int] = []

        async def away() -> Any:
            tries.append(1)
            if len(tries) < 4:
                raise StoreUnavailableError("away")
            return await read()

        monkeypatch.setattr(engine.store, "schedules", away)
        starts.use(HOURLY)
        await clock.advance("1 hour")
        assert starts.times() == ["10:00"]


async def test_waiting_costs_no_task_and_no_query(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        Starts(engine).use(*(replace(HOURLY, name=f"n{number}") for number in range(50)))
        await engine.settle()
        assert not [task for task in asyncio.all_tasks() if "schedules" in task.get_name()]
        assert engine.schedules.due == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_at_most_the_last_of_many_times_starts() -> None:
    since = datetime(2026, 1, 1, 9, tzinfo=UTC)
    now = since + timedelta(minutes=45, seconds=1)
    often = replace(HOURLY, cron=Cron("* * * * *", "UTC"))
    decided = decide_time(often, ScheduleState(since), since, now, None)
    assert decided is not None
    assert decided.starting == decided.until == since + timedelta(minutes=45)
    assert decided.missed == (since + timedelta(minutes=1), since + timedelta(minutes=44))
