"""What a step needs before it begins: a thread, if it is a `def`, and a place of its limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import pytest

from approvals_bot import (
    FatalError,
    InvalidArgumentError,
    RunFailedError,
    StepFailedError,
    UnknownLimitError,
    create_hook,
    get_step_metadata,
    resource,
    resume_hook,
    start,
    step,
    workflow,
)
from approvals_bot.durable.engine import Engine, Run, executor, slots
from approvals_bot.durable.engine.limits import LEASE
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

T = TypeVar("T")

PATIENCE = 60  # seconds; only a test that fails waits so long


class Gate:
    """Where steps in threads wait until the test lets them go on."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self._open = threading.Event()

    def wait(self, what: Any = None) -> None:
        self.entered.append(what)
        assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


async def until(holds: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.005)


async def started(engine: Engine, run_id: str) -> list[int]:
    return [event.data["id"] for event in await engine.events(run_id) if event.type == "step_started"]


async def in_line(engine: Engine, run: Run[T]) -> Run[T]:
    """Return the run once this engine has its step in a line, parked, or at work. Runs that start together come to a
    line in any order."""
    async with asyncio.timeout(PATIENCE):
        while not any(engine.scheduler.places_in_line(run.id)[:2]) and not await started(engine, run.id):
            await asyncio.sleep(0.005)
    return run


async def test_a_step_starts_when_a_thread_is_free(open_engine: OpenEngine, gate: Gate) -> None:
    first_starts: list[float] = []

    @step(retries=0)
    def blocks(number: int) -> int:
        first_starts.append(get_step_metadata().first_started_at.timestamp())
        gate.wait(number)
        return number

    @workflow
    async def blocks_three() -> list[int]:
        return list(await asyncio.gather(*(blocks(n) for n in range(3))))

    async with open_engine(step_threads=2) as engine:
        run = await engine.start(blocks_three)
        await until(lambda: len(gate.entered) == 2)
        await engine.settle()
        assert await started(engine, run.id) == [1, 2]
        gate.open()
        assert await run.return_value() == [0, 1, 2]
        assert await started(engine, run.id) == [1, 2, 3]
        events = [event.type for event in await engine.events(run.id)]
        assert events.index("step_completed") < len(events) - 1 - events[::-1].index("step_started")


async def test_the_time_limit_does_not_count_while_a_step_waits_for_a_thread(
    open_engine: OpenEngine, gate: Gate
) -> None:
    @step(retries=0)
    def blocks() -> None:
        gate.wait()

    @step(retries=0, timeout=1)
    def is_quick() -> str:
        return "quick"

    @workflow
    async def waits_behind() -> str:
        _, said = await asyncio.gather(blocks(), is_quick())
        return said

    async with open_engine(step_threads=1) as engine:
        run = await engine.start(waits_behind)
        await until(lambda: gate.entered)
        await asyncio.sleep(1.2)
        gate.open()
        assert await run.return_value() == "quick"


async def test_blocked_steps_hold_up_no_look_ups(open_engine: OpenEngine, gate: Gate) -> None:
    @step
    def blocks() -> None:
        gate.wait()

    @workflow
    async def blocks_forty() -> None:
        await asyncio.gather(*(blocks() for _ in range(40)))

    async with open_engine(step_threads=40) as engine:
        run = await engine.start(blocks_forty)
        await until(lambda: len(gate.entered) == 40)
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
            assert await asyncio.to_thread(lambda: 1) == 1
        gate.open()
        await run.return_value()


async def test_a_step_called_by_a_step_holds_up_no_look_ups(gate: Gate) -> None:
    @step
    def blocks() -> None:
        gate.wait()

    calls = [asyncio.ensure_future(blocks()) for _ in range(40)]
    await until(lambda: len(gate.entered) == 40)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.to_thread(lambda: 1) == 1
    gate.open()
    await asyncio.gather(*calls)


async def test_a_limit_lets_few_begin_at_a_time_in_order(open_engine: OpenEngine) -> None:
    begun: list[int] = []
    may_end = [asyncio.Event() for _ in range(6)]

    @step(limit="erp")
    async def calls_erp(number: int) -> int:
        begun.append(number)
        await may_end[number].wait()
        return number

    @workflow
    async def one_call(number: int) -> int:
        return await calls_erp(number)

    async with open_engine(limits={"erp": 2}) as engine:
        runs = [await in_line(engine, await engine.start(one_call, number)) for number in range(6)]
        await until(lambda: len(begun) == 2)
        begun.sort()  # each has its place, and begins once that is in its log
        await engine.settle()
        assert [await started(engine, run.id) for run in runs] == [[1], [1], [], [], [], []]
        for number in range(4):
            may_end[number].set()
            await until(lambda count=number + 3: len(begun) == count)
            assert begun == [*range(number + 3)]
        for event in may_end:
            event.set()
        assert [await run.return_value() for run in runs] == list(range(6))


async def test_waiting_for_a_limit_takes_no_thread(open_engine: OpenEngine, gate: Gate) -> None:
    @step(limit="erp")
    def calls_erp() -> None:
        gate.wait()

    @step
    def other() -> str:
        return "other"

    @workflow
    async def many_calls() -> None:
        await asyncio.gather(*(calls_erp() for _ in range(5)))

    @workflow
    async def another() -> str:
        return await other()

    async with open_engine(step_threads=2, limits={"erp": 1}) as engine:
        calls = await engine.start(many_calls)
        await until(lambda: gate.entered)
        async with asyncio.timeout(PATIENCE):
            assert await (await engine.start(another)).return_value() == "other"
        gate.open()
        await calls.return_value()


async def test_a_cancelled_run_leaves_the_line(open_engine: OpenEngine) -> None:
    begun: list[str] = []
    may_end = asyncio.Event()

    @step(limit="erp")
    async def calls_erp(who: str) -> None:
        begun.append(who)
        await may_end.wait()

    @workflow
    async def one_call(who: str) -> None:
        await calls_erp(who)

    async with open_engine(limits={"erp": 1}) as engine:
        names = ("first", "second", "third")
        first, second, third = [await in_line(engine, await engine.start(one_call, name)) for name in names]
        await second.cancel()
        await engine.settle()
        may_end.set()
        await first.return_value()
        await third.return_value()
    assert begun == ["first", "third"]


async def test_runs_in_line_leave_their_slots_to_others(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "MAX_ACTIVE", 3)
    may_end = asyncio.Event()
    begun: list[int] = []

    @step(limit="erp")
    async def calls_erp(number: int) -> None:
        begun.append(number)
        await may_end.wait()

    @workflow
    async def one_call(number: int) -> None:
        await calls_erp(number)

    @step
    async def is_free() -> str:
        return "free"

    @workflow
    async def another() -> str:
        return await is_free()

    async with open_engine(limits={"erp": 1}) as engine:
        runs = [await engine.start(one_call, number) for number in range(10)]
        async with asyncio.timeout(PATIENCE):
            assert await (await engine.start(another)).return_value() == "free"
            await until(lambda: begun)
            assert len(begun) == 1
            may_end.set()
            for run in runs:
                await run.return_value()
        assert sorted(begun) == list(range(10))
        assert engine.scheduler.slots.free == 3


async def test_a_step_in_line_begins_after_a_restart(open_engine: OpenEngine) -> None:
    begun: list[str] = []
    may_end = asyncio.Event()

    @step(limit="erp", retries=0)
    async def calls_erp(who: str) -> str:
        begun.append(who)
        await may_end.wait()
        return who

    @workflow
    async def one_call(who: str) -> str:
        return await calls_erp(who)

    async with open_engine(limits={"erp": 1}) as engine:
        engine.scheduler.closing = 0.0
        runs = [await in_line(engine, await engine.start(one_call, name)) for name in ("first", "second")]
        await until(lambda: begun)
    may_end.set()
    async with open_engine(limits={"erp": 1}) as engine:
        assert [await engine.get_run(run.id).return_value() for run in runs] == ["first", "second"]
        assert [await started(engine, run.id) for run in runs] == [[1], [1]]
    assert sorted(begun) == ["first", "first", "second"]


async def test_a_retry_waits_in_line_again(open_engine: OpenEngine, clock: FakeClock) -> None:
    begun: list[tuple[str, int]] = []
    ended: list[int] = []  # how many had begun before each ended

    @step(limit="erp", retries=2, retry_delay="1m", jitter=False)
    async def calls_erp(who: str) -> str:
        begun.append((who, get_step_metadata().attempt))
        await asyncio.sleep(0.01)
        ended.append(len(begun))
        if get_step_metadata().attempt == 1:
            raise ValueError("busy")
        return who

    @workflow
    async def one_call(who: str) -> str:
        return await calls_erp(who)

    async with open_engine(limits={"erp": 1}) as engine:
        runs = [await engine.start(one_call, name) for name in ("first", "second")]
        await clock.advance("2m")
        assert [await run.return_value() for run in runs] == ["first", "second"]
    assert sorted(begun[:2]) == [("first", 1), ("second", 1)]  # the retries are due at the same time
    assert sorted(begun[2:]) == [("first", 2), ("second", 2)]
    assert ended == [1, 2, 3, 4], "one at a time"


async def test_hung_threads_are_replaced(open_engine: OpenEngine, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    @step(retries=1, retry_delay=0, timeout=0.05)
    def hangs() -> None:
        gate.wait()

    @step
    def other() -> str:
        return "other"

    @workflow
    async def hangs_then_goes_on() -> str:
        with contextlib.suppress(StepFailedError):
            await hangs()
        return await other()

    with caplog.at_level(logging.WARNING, "approvals_bot.durable.engine"):
        async with open_engine(step_threads=1) as engine:
            async with asyncio.timeout(PATIENCE):
                assert await (await engine.start(hangs_then_goes_on)).return_value() == "other"
            assert len(gate.entered) == 2
    assert [record.message for record in caplog.records if "thread goes on" in record.message] == [
        "step hangs: its attempt is over, but its thread goes on, and can't be stopped; another thread takes its place "
        "(further such threads of this step aren't logged)"
    ]


async def test_too_many_hung_threads_are_waited_for(
    open_engine: OpenEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "MAX_LEFT_BEHIND", 1)

    @step(retries=0, timeout=0.05)
    def hangs() -> None:
        gate.wait()

    @step
    def other() -> str:
        return "other"

    @workflow
    async def hangs_twice() -> str:
        for _ in range(2):
            with contextlib.suppress(StepFailedError):
                await hangs()
        return await other()

    async with open_engine(step_threads=1) as engine:
        run = await engine.start(hangs_twice)
        await until(lambda: any("restart the service" in record.message for record in caplog.records))
        await engine.settle()
        assert await run.status() == "running"
        gate.open()
        async with asyncio.timeout(PATIENCE):
            assert await run.return_value() == "other"


async def plain() -> str:
    return "plain"


async def test_an_unknown_limit_is_refused_when_the_engine_opens(open_engine: OpenEngine) -> None:
    made = step(limit="nowhere", name="goes nowhere")(plain)
    line = plain.__code__.co_firstlineno
    said = rf"test_step_places.py:{line}: goes nowhere\(\) has the limit 'nowhere', .* There are: crm, erp\. Add it to"
    with pytest.raises(UnknownLimitError, match=said):
        async with open_engine(limits={"erp": 1, "crm": 2}):
            pass
    async with open_engine(limits={"nowhere": 1}):
        pass
    assert made.limit == "nowhere"


async def test_a_step_made_in_a_body_fails_with_an_unknown_limit(open_engine: OpenEngine) -> None:
    @workflow
    async def asks_with_a_limit() -> str:
        return await step(limit="nowhere", name="goes nowhere")(plain)()

    async with open_engine(limits={"erp": 1}) as engine:
        with pytest.raises(RunFailedError, match=r"has the limit 'nowhere', .* There are: erp\."):
            await (await engine.start(asks_with_a_limit)).return_value()


@pytest.mark.parametrize("given", [{"erp": 0}, {"erp": True}, {"erp": "5"}, {"": 1}, ["erp"]])
async def test_limits_that_make_no_sense_are_refused(open_engine: OpenEngine, given: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="limits"):
        async with open_engine(limits=given):
            pass
    with pytest.raises(InvalidArgumentError, match="step_threads must be a whole number, 1 or more, not 0"):
        async with open_engine(step_threads=0):
            pass


@pytest.mark.conformance(85)
async def test_what_a_step_raises_when_it_is_cut_off_uses_up_no_retry(open_engine: OpenEngine) -> None:
    attempts: list[int] = []
    began = asyncio.Event()

    @step(retries=0)
    async def cleans_up_badly() -> str:
        attempts.append(get_step_metadata().attempt)
        if len(attempts) == 1:
            began.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise FatalError("the connection was closed") from None
        return "done"

    @workflow
    async def asks() -> str:
        return await cleans_up_badly()

    async with open_engine() as engine:
        engine.scheduler.closing = 0.0
        run = await engine.start(asks)
        await began.wait()
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == "done"
    assert attempts == [1, 1]


# ── context variables ──

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


async def test_context_variables_of_callers_reach_no_step(open_engine: OpenEngine, clock: FakeClock) -> None:
    seen: dict[str, str] = {}

    class Seeing:
        def see(self, what: str) -> None:
            seen[what] = whose.get()

    def note(what: str) -> None:
        seen[f"{what}, attempt {get_step_metadata().attempt}"] = whose.get()
        whose.set(f"set by {what}")
        if get_step_metadata().attempt == 1:
            raise ValueError(what)

    @step(retry_delay=1)
    async def is_async(what: str, seeing: Seeing = resource(Seeing)) -> None:  # noqa: B008  # a marker
        seeing.see(what)
        note(what)

    @step(retry_delay=1)
    def is_plain(what: str) -> None:
        note(what)

    @step
    async def starts_another() -> str:
        whose.set("set by a step that starts a run")
        return (await start(child)).id

    @step
    async def resumes_another(token: str) -> None:
        whose.set("set by a step that resumes a run")
        await resume_hook(token, None)

    @workflow(name="child with contexts")
    async def child() -> None:
        seen["body of the child"] = whose.get()
        await is_async("first of the child")
        await create_hook("child's token")
        await is_plain("resumed child")

    @workflow
    async def with_contexts() -> str:
        seen["body"] = whose.get()
        await is_async("first")
        await is_plain("second")
        seen["body after steps"] = whose.get()
        await create_hook("whose token")
        await is_async("resumed")
        return await starts_another()

    @workflow
    async def resumes() -> None:
        await resumes_another("child's token")

    async with open_engine(resources=[Seeing()]) as engine:
        whose.set("the starter's")
        run = await engine.start(with_contexts)
        await clock.advance("1m")
        whose.set("the resumer's")
        await engine.resume_hook("whose token", None)
        await clock.advance("1m")
        child_id = await run.return_value()
        await clock.advance("1m")
        await (await engine.start(resumes)).return_value()
        await clock.advance("1m")
        await engine.get_run(child_id).return_value()
    assert len(seen) == 16
    assert set(seen.values()) == {"nobody's"}


async def test_a_step_in_a_thread_knows_its_metadata(open_engine: OpenEngine) -> None:
    @step
    def gives_its_name() -> str:
        return get_step_metadata().name

    @workflow
    async def asks() -> str:
        return await gives_its_name()

    async with open_engine() as engine:
        assert await (await engine.start(asks)).return_value() == "gives_its_name"


@pytest.mark.parametrize("what", ["ends", "goes on", "thread"])
async def test_another_engine_goes_on_at_once_when_one_closes(open_engine: OpenEngine, gate: Gate, what: str) -> None:
    begun: list[int] = []
    may_end = asyncio.Event()

    async def goes_on() -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    async def first_attempt() -> None:
        await (may_end.wait() if what == "ends" else goes_on())

    @step(name="cut_off", retries=0)
    async def cut_off() -> int:
        begun.append(1)
        if len(begun) == 1:
            await first_attempt()
        return len(begun)

    @step(name="cut_off", retries=0)
    def cut_off_in_thread() -> int:
        begun.append(1)
        if len(begun) == 1:
            gate.wait()
        return len(begun)

    @workflow
    async def places_cut_off() -> int:
        return await (cut_off_in_thread() if what == "thread" else cut_off())

    async with open_engine() as other:
        async with open_engine() as engine:
            engine.scheduler.closing = 0.0
            run = await engine.start(places_cut_off)
            await until(lambda: begun)
        async with asyncio.timeout(LEASE.total_seconds() / 2):
            assert await other.get_run(run.id).return_value() == 2
        assert await started(other, run.id) == [1]
        may_end.set()


async def test_a_def_that_returns_a_coroutine_fails_with_what_to_do(open_engine: OpenEngine) -> None:
    calls: list[int] = []

    async def book() -> str:
        return "booked"

    @step
    def places_books() -> Any:
        calls.append(1)
        return book()

    @workflow
    async def places_books_once() -> Any:
        return await places_books()

    async with open_engine() as engine:
        with pytest.raises(RunFailedError) as failed:
            await (await engine.start(places_books_once)).return_value()
    assert "Make it an `async def places_books(…)`" in str(failed.value.__cause__)
    assert calls == [1]
    with pytest.raises(FatalError, match="returned a coroutine"):
        await places_books()
