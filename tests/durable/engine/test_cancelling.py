"""Cancelling a run: its body gets `CancelledError`, tidies up within its time, and the run ends as cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot import (
    InvalidArgumentError,
    RunCancelledError,
    RunEndedError,
    WebhookRequest,
    create_hook,
    create_webhook,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.events import Event, NewEvent, from_micros, to_micros
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.replay import ReplayResult, replay
from approvals_bot.durable.engine import Engine, Run
from approvals_bot.durable.store import connect
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

tidied: list[str] = []


@pytest.fixture(autouse=True)
def nothing_is_tidied() -> None:
    tidied.clear()


@step
async def tidy(what: str) -> str:
    tidied.append(what)
    return what


def types(log: list[Event]) -> list[str]:
    return [event.type for event in log]


async def ended(run: Run[Any]) -> tuple[str, str | None]:
    """Wait for the run's end. Returns its status, and the reason that its log gives."""
    async with asyncio.timeout(60):
        with pytest.raises(RunCancelledError):
            await run.return_value()
    return await run.status(), (await run.events())[-1].data["reason"]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


# ── the body ──


@pytest.mark.conformance(134)
async def test_the_body_gets_a_cancelled_error_and_tidies_up(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def tidies_with_everything() -> str:
        try:
            return str(await create_hook(token="never"))
        except asyncio.CancelledError as cancelled:
            await tidy(f"because {cancelled}")
            raise
        finally:
            await sleep(30)
            await tidy(str(await create_hook(token="last words")))

    async with open_engine() as engine:
        run = await engine.start(tidies_with_everything)
        await engine.settle()
        await run.cancel("not needed")
        await engine.settle()
        assert (await run.status(), tidied) == ("running", ["because not needed"])
        await clock.advance(30)
        await engine.resume_hook("last words", "bye")
        assert await ended(run) == ("cancelled", "not needed")
        assert tidied == ["because not needed", "bye"]


@pytest.mark.parametrize("shape", ["returns", "raises", "another reason", "swallows"])
async def test_the_run_is_cancelled_whatever_its_body_does(
    open_engine: OpenEngine, clock: FakeClock, shape: str
) -> None:
    @workflow(name=f"cancelled: {shape}")
    async def answers_back() -> str:
        try:
            await sleep("1 day")
        except asyncio.CancelledError:
            match shape:
                case "returns":
                    return "all is well"
                case "raises":
                    raise ValueError("the clean-up failed") from None
                case "another reason":
                    raise asyncio.CancelledError("another one") from None
        await sleep("1 day")
        return "as if nothing had been"

    async with open_engine() as engine:
        run = await engine.start(answers_back)
        await engine.settle()
        await run.cancel("enough")
        if shape == "swallows":
            assert await run.status() == "running"
            await clock.advance(59)
            assert await run.status() == "running"
            await clock.advance(1)
        assert await ended(run) == ("cancelled", "enough")
        end = (await run.events())[-1]
        assert end.data.get("error", {}).get("message") == ("the clean-up failed" if shape == "raises" else None)


async def test_gathered_and_grouped_tasks_are_cancelled_as_in_asyncio(open_engine: OpenEngine) -> None:
    seen: list[str] = []

    async def part(name: str) -> None:
        try:
            await sleep("1 day")
        except asyncio.CancelledError:
            await tidy(name)
            raise

    @workflow
    async def in_many_ways() -> None:
        shielded = asyncio.create_task(tidies_later())
        try:
            async with asyncio.TaskGroup() as group, asyncio.timeout(3600):
                group.create_task(part("grouped"))
                await asyncio.gather(part("one"), part("two"), asyncio.shield(shielded))
        finally:
            await tidy(await shielded)

    async def tidies_later() -> str:
        await sleep(5)
        return "shielded"

    async with open_engine() as engine:
        run = await engine.start(in_many_ways)
        await engine.settle()
        await run.cancel()
        await engine.settle()
        assert await run.status() == "running"
        await engine.wake_up(run.id)
        assert await ended(run) == ("cancelled", None)
    seen += tidied
    assert seen == ["one", "two", "grouped", "shielded"]


async def test_a_cancelled_waiter_takes_no_payload(open_engine: OpenEngine) -> None:
    @workflow
    async def keeps_payloads() -> None:
        hook = create_hook(token="t")
        try:
            await hook
        finally:
            await tidy(str(await hook))

    async with open_engine() as engine:
        run = await engine.start(keeps_payloads)
        await engine.settle()
        await run.cancel()
        await engine.resume_hook("t", "kept")
        assert await ended(run) == ("cancelled", None)
        assert tidied == ["kept"]


# ── the time that it has ──


@pytest.mark.parametrize("restarts", [False, True])
async def test_the_time_to_tidy_up_is_durable(open_engine: OpenEngine, clock: FakeClock, restarts: bool) -> None:
    @workflow
    async def tidies_for_ever() -> None:
        hook = create_hook(token="t")
        while True:
            try:
                await hook
            except asyncio.CancelledError:
                await tidy("once")

    async with open_engine(cancel_grace=20) as engine:
        run = await engine.start(tidies_for_ever)
        await engine.settle()
        await run.cancel("enough")
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        assert record.wake_at == clock.now() + (from_micros(20_000_000) - from_micros(0)), "a row, and no task"
        assert not engine.scheduler._active
        if not restarts:
            await clock.advance(20)
            assert await ended(run) == ("cancelled", "enough")
    if restarts:
        await clock.advance(19)
        async with open_engine(cancel_grace=1000) as engine:
            await engine.settle()
            run = engine.get_run(run.id)
            assert await run.status() == "running"
            await clock.advance(1)
            assert await ended(run) == ("cancelled", "enough")
    assert tidied == ["once"]


async def test_no_payload_prolongs_the_time(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def tidies_on_every_call() -> None:
        hook = create_hook(token="t")
        while True:
            with suppress(asyncio.CancelledError):
                await tidy(str(await hook))

    async with open_engine() as engine:
        run = await engine.start(tidies_on_every_call)
        await engine.settle()
        await run.cancel("enough")
        await engine.resume_hook("t", "in time")
        await engine.settle()
        clock._now += from_micros(60_000_000) - from_micros(0)  # nobody has looked at the time yet
        await engine.resume_hook("t", "too late")
        assert await ended(run) == ("cancelled", "enough")
        assert tidied == ["in time"]


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), 10**9, "1m", None, timedelta(minutes=1)])
async def test_a_grace_that_makes_no_sense_is_refused(open_engine: OpenEngine, grace: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="cancel_grace"):
        async with open_engine(cancel_grace=grace):
            pass


# ── steps ──


@pytest.mark.parametrize("kind", ["async", "stubborn", "def"])
@pytest.mark.conformance(90)
async def test_a_running_step_is_stopped_and_recorded_as_cancelled(open_engine: OpenEngine, kind: str) -> None:
    began, let_go, seen = threading.Event(), threading.Event(), list[str]()

    async def coroutine() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            if kind != "stubborn":
                raise
            await asyncio.sleep(0.2)
        return "a result that nobody hears of"

    def thread() -> str:
        began.set()
        let_go.wait(10)
        seen.append("went on")
        return "a result that nobody hears of"

    working = step(thread if kind == "def" else coroutine)

    @workflow(name=f"stopped: {kind}")
    async def waits() -> None:
        await working()

    async with open_engine() as engine:
        run = await engine.start(waits)
        await until(began.is_set)
        await run.cancel("enough")
        assert await ended(run) == ("cancelled", "enough")
        let_go.set()
        await until(lambda: seen)
        await asyncio.sleep(0.3)
        log = await run.events()
    assert types(log)[-3:] == ["cancel_requested", "step_cancelled", "run_cancelled"]
    assert seen == ["went on" if kind == "def" else "cancelled"]


async def test_a_step_that_the_body_gives_up_to_end_is_cancelled(open_engine: OpenEngine, clock: FakeClock) -> None:
    began, seen = asyncio.Event(), list[str]()

    @step
    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    @workflow(name="gives up and ends")
    async def ends() -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await endless()
        return "too late"

    async with open_engine() as engine:
        run = await engine.start(ends)
        await began.wait()
        await clock.advance(10)
        assert await run.return_value() == "too late"
        await until(lambda: seen)


@pytest.mark.parametrize("how", ["timeout", "wait_for", "cancelled task"])
async def test_a_step_that_the_body_gives_up_is_cancelled(open_engine: OpenEngine, clock: FakeClock, how: str) -> None:
    began, seen = asyncio.Event(), list[str]()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("stopped")

    working = step(endless)

    async def given_up() -> None:
        match how:
            case "timeout":
                async with asyncio.timeout(10):
                    await working()
            case "wait_for":
                await asyncio.wait_for(working(), 10)
            case _:
                task = asyncio.create_task(_call(working))
                await sleep(10)
                task.cancel()
                await task

    @workflow(name=f"gives up by {how}")
    async def gives_up() -> str:
        try:
            await given_up()
        except (TimeoutError, asyncio.CancelledError) as error:
            return f"{type(error).__name__}, {await create_hook(token='t')}"
        return ""

    async with open_engine() as engine:
        run = await engine.start(gives_up)
        await began.wait()
        await clock.advance(10)
        await until(lambda: seen)
        await engine.settle()
        assert not engine.scheduler._active, "nothing keeps it in memory"
    async with open_engine() as engine:  # and it is not attempted again
        await engine.settle()
        await engine.resume_hook("t", "and on")
        kind = "CancelledError" if how == "cancelled task" else "TimeoutError"
        assert await engine.get_run(run.id).return_value() == f"{kind}, and on"
        log = await engine.events(run.id)
    assert types(log).count("step_cancelled") == 1
    assert types(log).count("step_started") == 1


async def _call(working: Callable[[], Awaitable[None]]) -> None:
    await working()


async def test_a_step_between_two_attempts_is_cancelled(open_engine: OpenEngine, clock: FakeClock) -> None:
    attempts: list[int] = []

    @step(retry_delay="1 hour")
    async def fails() -> None:
        attempts.append(1)
        raise ValueError("not now")

    @workflow
    async def gives_up_a_retry() -> str:
        try:
            async with asyncio.timeout(60):
                await fails()
        except TimeoutError:
            pass
        await sleep("3 hours")
        return "done"

    async with open_engine() as engine:
        run = await engine.start(gives_up_a_retry)
        await clock.advance(60)
        record = await engine.record(run.id)
        assert record is not None
        assert record.wake_at == clock.now() + 3 * (from_micros(3_600_000_000) - from_micros(0))
        await clock.advance("3 hours")
        assert await run.return_value() == "done"
        assert len(attempts) == 1
        assert types(await run.events()).count("step_cancelled") == 1


@pytest.mark.conformance(90)
async def test_a_result_that_came_first_is_no_cancellation(open_engine: OpenEngine, clock: FakeClock) -> None:
    """The result and the cancellation arrive in the same moment: the log decides, and every replay agrees."""
    began = asyncio.Event()
    may_end = asyncio.Event()

    @step
    async def finishing() -> str:
        began.set()
        await may_end.wait()
        return "a result"

    @workflow
    async def takes_the_result() -> None:
        await tidy(await finishing())
        await create_hook(token="t")

    async with open_engine() as engine:
        run = await engine.start(takes_the_result)
        await began.wait()
        store, now = engine.store, clock.now()
        asked = NewEvent("cancel_requested", {"reason": "late", "until": to_micros(now) + 60_000_000})
        await store.record(run.id, [NewEvent("step_completed", {"id": 1, "result": "a result"}), asked], now)
        may_end.set()
        engine.scheduler.wake(run.id)
        assert await ended(run) == ("cancelled", "late")
        log = await run.events()
    assert types(log)[-3:] == ["step_completed", "cancel_requested", "run_cancelled"], "tidy never began"
    assert tidied == []


def replayed(workflow_name: str, log: list[Event]) -> ReplayResult:
    return replay(registry.newest(workflow_name), log, link=lambda hook_id: hook_id)


async def test_a_cancellation_before_the_result_wins_in_every_replay(open_engine: OpenEngine) -> None:
    began = asyncio.Event()

    @step
    async def unheard() -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    @workflow(name="cancelled before its result")
    async def is_cancelled() -> None:
        try:
            await unheard()
        finally:
            await create_hook(token="t")

    async with open_engine() as engine:
        run = await engine.start(is_cancelled)
        await began.wait()
        await run.cancel()
        await engine.settle()
        late = NewEvent("step_completed", {"id": 1, "result": "too late"})
        (found,) = await engine.store.record(run.id, [late], engine.now())
        assert found.type == "step_cancelled", "one event ends a step"
        await engine.resume_hook("t", None)
        assert await ended(run) == ("cancelled", None)
        log = await run.events()
    for length in range(1, len(log)):
        replayed("cancelled before its result", log[:length])
    without = [event for event in log if event.type != "cancel_requested"]
    renumbered = [event._replace(seq=seq) for seq, event in enumerate(without, 1)]
    with pytest.raises(Exception, match="the cancellation of step #1"):
        replayed("cancelled before its result", renumbered[: types(renumbered).index("step_cancelled") + 1])


# ── when it is asked ──


async def test_cancelling_returns_before_the_run_has_tidied_up(open_engine: OpenEngine) -> None:
    @workflow
    async def takes_its_time() -> None:
        try:
            await sleep("1 day")
        finally:
            await create_hook(token="t")

    async with open_engine() as engine:
        run = await engine.start(takes_its_time)
        await engine.settle()
        async with asyncio.timeout(30):
            await run.cancel("first")
        assert await run.status() == "running"
        before = await run.events()
        assert before[-2].type == "wait_cancelled" or "cancel_requested" in types(before)
        await asyncio.gather(run.cancel("second"), run.cancel("third"))
        assert types(await run.events()).count("cancel_requested") == 1
        await engine.resume_hook("t", None)
        assert await ended(run) == ("cancelled", "first")
        with pytest.raises(RunEndedError):
            await run.cancel()


async def test_of_two_cancellations_and_an_end_one_wins(open_engine: OpenEngine) -> None:
    @workflow
    async def may_complete() -> str:
        return str(await create_hook(token="t"))

    outcomes = set()
    async with open_engine() as engine:
        for _ in range(20):
            run = await engine.start(may_complete)
            await engine.settle()

            async def cancel(run: Run[Any], reason: str) -> str:
                try:
                    await run.cancel(reason)
                except RunEndedError as error:
                    return error.status
                return "cancelled"

            calls = asyncio.gather(
                cancel(run, "a"), engine.resume_hook("t", "done"), cancel(run, "b"), return_exceptions=True
            )
            answers = await calls
            record = await run.wait(10)
            assert record.has_ended
            assert {answers[0], answers[2]} == {record.status} or record.status == "cancelled"
            outcomes.add(record.status)
    assert outcomes <= {"cancelled", "completed"}


@pytest.mark.drifts
async def test_a_stalled_run_is_ended_at_once(open_engine: OpenEngine) -> None:
    @workflow
    async def drifts_before_its_cancellation() -> None:
        await create_webhook()
        await (asyncio.sleep(1) if is_drifting else create_webhook())

    async def token(engine: Engine, number: int) -> str:
        hooks = [event for event in await engine.events(run.id) if event.type == "hook_created"]
        return str(hooks[number - 1].data["token"])

    is_drifting = False
    async with open_engine() as engine:
        run = await engine.start(drifts_before_its_cancellation)
        await engine.settle()
        await engine.resume_webhook(await token(engine, 1), WebhookRequest("POST"))
        await engine.settle()
    is_drifting = True
    async with open_engine() as engine:
        await engine.resume_webhook(await token(engine, 2), WebhookRequest("POST"))
        await engine.settle()
        run = engine.get_run(run.id)
        assert await run.status() == "stalled"
        await run.cancel("enough")
        assert await run.status() == "cancelled"
        assert types(await run.events())[-2:] == ["cancel_requested", "run_cancelled"]


@pytest.mark.drifts
@pytest.mark.parametrize("mended", [False, True])
async def test_a_bug_in_the_clean_up_stalls_only_for_its_time(
    open_engine: OpenEngine, clock: FakeClock, mended: bool
) -> None:
    is_mended = False

    @workflow(name=f"has a bug in its clean-up, mended {mended}")
    async def has_a_bug() -> None:
        try:
            await sleep("1 day")
        finally:
            await tidy("a" if is_mended else str(int.real + len))  # type: ignore[operator]

    async with open_engine() as engine:
        run = await engine.start(has_a_bug)
        await engine.settle()
        await run.cancel("enough")
        await engine.settle()
        assert await run.status() == "stalled"
        await run.cancel("again")
        assert await run.status() == "stalled"
        if mended:
            is_mended = True
            await run.retry()
        else:
            await clock.advance(60)
        assert await ended(run) == ("cancelled", "enough")
        assert tidied == (["a"] if mended else [])


async def test_a_run_at_work_elsewhere_is_cancelled_from_a_terminal(
    open_engine: OpenEngine, clock: FakeClock, database_url: str
) -> None:
    began = asyncio.Event()

    @step
    async def busy_elsewhere() -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def works_elsewhere() -> None:
        try:
            await busy_elsewhere()
        finally:
            await tidy("there")

    async with open_engine() as engine:
        run = await engine.start(works_elsewhere)
        await began.wait()
        terminal = Engine(await connect(database_url), clock=clock)
        async with terminal.running(work=False):
            await terminal.cancel(run.id, "from outside")
        async with asyncio.timeout(60):
            while (await engine.record(run.id)).status == "running":  # type: ignore[union-attr]
                await asyncio.sleep(0.05)
        assert await ended(engine.get_run(run.id)) == ("cancelled", "from outside")
        assert tidied == ["there"]


# ── what is no cancellation ──


async def test_a_process_that_stops_cancels_no_body(open_engine: OpenEngine) -> None:
    began, seen = list[int](), list[str]()

    @step
    async def interrupted_by_the_stop() -> str:
        began.append(1)
        if len(began) == 1:
            await asyncio.Event().wait()
        return "done"

    @workflow
    async def outlives_its_process() -> str:
        try:
            return await interrupted_by_the_stop()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with open_engine() as engine:
        engine.scheduler.closing = 0.0
        run = await engine.start(outlives_its_process)
        await until(lambda: began)
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == "done"
        assert "step_cancelled" not in types(await engine.events(run.id))
    assert seen == []
