"""Durable time."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals_bot import NotInWorkflowError, RunFailedError, create_hook, now, sleep, step, workflow
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

DURATIONS: list[Any] = [
    "10s",
    "10 seconds",
    10,
    10.0,
    timedelta(seconds=10),
    datetime(2026, 1, 1, 9, 0, 10, tzinfo=UTC),
]


@step
async def note(text: str = "") -> str:
    return text


@pytest.mark.conformance(95)
@pytest.mark.parametrize("duration", DURATIONS)
async def test_a_sleep_is_never_short(open_engine: OpenEngine, clock: FakeClock, duration: Any) -> None:
    @workflow
    async def sleeps() -> float:
        began = now()
        await sleep(duration)
        return (now() - began).total_seconds()

    async with open_engine() as engine:
        run = await engine.start(sleeps)
        await clock.advance(timedelta(seconds=9.999999))
        assert await run.status() == "running"
        await clock.advance(timedelta(microseconds=1))
        assert await run.return_value() == 10
        created, completed = (e for e in await run.events() if e.type in ("wait_created", "wait_completed"))
        assert completed.at - created.at >= timedelta(seconds=10)


@pytest.mark.conformance(95)
async def test_the_real_clock_is_not_short_either(open_engine: OpenEngine) -> None:
    @workflow
    async def sleeps() -> None:
        for _ in range(3):
            await sleep(0.02)

    async with open_engine(clock=None) as engine:
        run = await engine.start(sleeps)
        await run.return_value()
        events = await run.events()
    created = [e.at for e in events if e.type == "wait_created"]
    completed = [e.at for e in events if e.type == "wait_completed"]
    assert all((c - b).total_seconds() >= 0.02 for b, c in zip(created, completed, strict=True))


@pytest.mark.conformance(96)
async def test_parallel_sleeps_pass_together(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def together() -> None:
        await asyncio.gather(*(sleep(1) for _ in range(10)))

    async with open_engine() as engine:
        run = await engine.start(together)
        await clock.advance("1s")
        await run.return_value()


@pytest.mark.conformance(97)
async def test_sleeping_until_a_past_date_returns_at_once(open_engine: OpenEngine) -> None:
    @workflow
    async def past() -> str:
        await sleep(datetime(2020, 1, 1, tzinfo=UTC))
        return "on"

    async with open_engine() as engine:
        assert await (await engine.start(past)).return_value() == "on"


BEYOND_ALL_DATES = ["999999999999 days", 1e18, 10**400, timedelta.max, datetime.max.replace(tzinfo=UTC)]


@pytest.mark.conformance(98)
@pytest.mark.parametrize(
    "wrong",
    ["-1s", "abc", "", "10", math.nan, math.inf, -1, True, None, datetime(2026, 1, 1), *BEYOND_ALL_DATES],  # noqa: DTZ001
)
async def test_an_invalid_duration_is_refused_at_the_call(open_engine: OpenEngine, wrong: Any) -> None:
    @workflow
    async def wrongly() -> str:
        try:
            await sleep(wrong)
        except ValueError:
            return "refused"
        return "taken"

    async with open_engine() as engine:
        assert await (await engine.start(wrongly)).return_value() == "refused"


@pytest.mark.conformance(99)
async def test_sleeps_in_a_loop_add_up(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def loops() -> list[float]:
        began, times = now(), []
        for _ in range(3):
            await sleep("1h")
            times.append((now() - began).total_seconds())
            await note()
        return times

    async with open_engine() as engine:
        run = await engine.start(loops)
        await clock.advance("3h")
        assert await run.return_value() == [3600, 7200, 10800]


@pytest.mark.conformance(100)
async def test_a_restarted_run_sleeps_only_the_remaining_time(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def three() -> None:
        await asyncio.gather(sleep("1h"), sleep("2h"), sleep("3h"))

    async with open_engine() as engine:
        run = await engine.start(three)
        await clock.advance("2h")
    async with open_engine() as engine:
        run = engine.get_run(run.id)
        await engine.settle()
        assert [e.type for e in await run.events()].count("wait_completed") == 2
        assert await engine.next_wake() == clock.now() + timedelta(hours=1)
        await clock.advance("1h")
        await run.return_value()


@pytest.mark.conformance(101)
async def test_the_end_of_a_sleep_is_read_from_the_log(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def sleeps() -> Any:
        task = asyncio.create_task(sleep("1h"))
        await create_hook(token="t")  # a replay in the middle of it
        await task

    async with open_engine() as engine:
        run = await engine.start(sleeps)
        await clock.advance("40m")
        await engine.resume_hook("t", 1)
    async with open_engine() as engine:
        await clock.advance("19m")
        assert await engine.get_run(run.id).status() == "running"
        await clock.advance("1m")
        await engine.get_run(run.id).return_value()


@pytest.mark.conformance(102, 105)
async def test_a_sleep_of_thirty_days_survives_restarts_and_downtime(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def long() -> str:
        await sleep("30 days")
        return now().isoformat()

    async with open_engine() as engine:
        run = await engine.start(long)
        await clock.advance("25 days")
    async with open_engine():
        await clock.advance("4 days")
    await clock.advance("10 days")  # nobody is there when it is due
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == clock.now().isoformat()


@pytest.mark.conformance(103)
async def test_wake_up_ends_sleeps_in_order_but_not_timeouts(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def sleeps() -> list[str]:
        order: list[str] = []

        async def one(name: str, duration: str) -> None:
            await sleep(duration)
            order.append(name)

        try:
            async with asyncio.timeout(timedelta(days=100).total_seconds()):
                await asyncio.gather(one("long", "9 days"), one("short", "2 days"))
                await create_hook(token="t")
        except TimeoutError:
            order.append("timed out")
        return order

    async with open_engine() as engine:
        run = await engine.start(sleeps)
        await engine.settle()
        assert await run.wake_up() == 2
        await engine.settle()
        assert await run.wake_up() == 0
        await clock.advance("100 days")
        assert await run.return_value() == ["long", "short", "timed out"]


@pytest.mark.conformance(104)
async def test_a_step_cannot_sleep_durably(open_engine: OpenEngine) -> None:
    @step(retries=0)
    async def dozes() -> None:
        await sleep(1)

    @workflow
    async def through_a_step() -> None:
        await dozes()

    with pytest.raises(NotInWorkflowError):
        await sleep(1)
    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="inside a step"):
            await (await engine.start(through_a_step)).return_value()


async def test_the_test_clock_stops_at_each_retry_and_sleep_on_the_way(
    open_engine: OpenEngine, clock: FakeClock
) -> None:
    times: list[float] = []

    @step(retries=2, retry_delay="10m", backoff=1, jitter=False)
    async def fails() -> None:
        times.append((clock.now() - began).total_seconds() / 60)
        if len(times) % 3:
            raise ValueError

    @workflow
    async def chain() -> None:
        for _ in range(2):
            await sleep("1h")
            await fails()

    began = clock.now()
    async with open_engine() as engine:
        run = await engine.start(chain)
        await clock.advance("1 day")
        await run.return_value()
    assert times == [60, 70, 80, 140, 150, 160]


async def test_a_leap_of_the_clock_keeps_a_running_step(open_engine: OpenEngine, clock: FakeClock) -> None:
    calls: list[int] = []
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        calls.append(1)
        began.set()
        await may_end.wait()

    @workflow
    async def waits() -> None:
        await slow()

    async with open_engine() as engine:
        run = await engine.start(waits)
        await began.wait()
        await clock.advance("30 days")
        may_end.set()
        await run.return_value()
    assert len(calls) == 1


async def test_now_never_goes_back_when_the_clock_does(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def times() -> list[datetime]:
        seen = [now()]
        hook = create_hook(token="t")
        for _ in range(2):
            await hook
            seen.append(now())
        return seen

    async with open_engine() as engine:
        run = await engine.start(times)
        await clock.advance("1h")
        await engine.resume_hook("t", 1)
        await engine.settle()
        clock._now -= timedelta(hours=5)
        await engine.resume_hook("t", 2)
        seen = await run.return_value()
        assert seen == sorted(seen)
        ats = [e.at for e in await run.events()]
        assert ats == sorted(ats)


async def test_a_timer_recorded_late_is_waited_for_without_spinning(
    open_engine: OpenEngine, clock: FakeClock, store_url: str
) -> None:
    """The payload arrived an hour before anybody worked on the run. The sleep starts now, not then."""
    never = asyncio.Event()

    @step
    async def takes_long() -> None:
        await never.wait()

    @workflow
    async def asked_late() -> None:
        await create_hook(token="late")
        await asyncio.gather(takes_long(), sleep(60))

    async with open_engine() as engine:
        run = await engine.start(asked_late)
        await clock.advance(1)
    looking = Engine(await connect(store_url), clock=clock)
    async with looking.running(work=False):
        await looking.resume_hook("late", None)
        await clock.advance("1h")
    async with open_engine() as engine:
        run = engine.get_run(run.id)
        rested = 0

        class Counted(asyncio.Event):
            def set(self) -> None:
                nonlocal rested
                rested += 1
                super().set()

        engine.scheduler.progress = Counted()
        while "step_started" not in [e.type for e in await run.events()]:
            await asyncio.sleep(0.01)
        for _ in range(200):
            await asyncio.sleep(0)
        assert rested <= 3
        await run.cancel()
