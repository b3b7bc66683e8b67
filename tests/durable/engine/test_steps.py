"""Steps: at least once, recorded once."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import random as chance
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import (
    FatalError,
    NotInStepError,
    NotInWorkflowError,
    RetryableError,
    RunFailedError,
    StepFailedError,
    create_hook,
    get_run,
    get_step_metadata,
    get_workflow_metadata,
    resource,
    sleep,
    start,
    step,
    workflow,
)
from approvals_bot.durable.engine import Engine, slots
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


async def log(engine: Engine, run_id: str, type: str) -> list[dict[str, Any]]:
    return [event.data for event in await engine.events(run_id) if event.type == type]


@step
async def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.conformance(69, 70)
async def test_steps_in_sequence_each_recorded_once(open_engine: OpenEngine) -> None:
    @workflow
    async def add_ten(value: int) -> int:
        for part in (2, 3, 5):
            value = await add(value, part)
        return value

    async with open_engine() as engine:
        run = await engine.start(add_ten, 123)
        assert await run.return_value() == 133
        for type in ("step_created", "step_started", "step_completed"):
            assert len(await log(engine, run.id, type)) == 3


@pytest.mark.conformance(71)
async def test_attempts_are_counted(open_engine: OpenEngine, clock: FakeClock) -> None:
    @step
    async def third_time() -> int:
        if get_step_metadata().attempt < 3:
            raise ValueError("not yet")
        return get_step_metadata().attempt

    @workflow
    async def persists() -> int:
        return await third_time()

    async with open_engine() as engine:
        run = await engine.start(persists)
        await clock.advance("1 minute")
        assert await run.return_value() == 3
        assert [e["attempt"] for e in await log(engine, run.id, "step_started")] == [1, 2, 3]


@pytest.mark.conformance(72)
async def test_a_fatal_error_is_not_retried_and_survives_a_replay(
    open_engine: OpenEngine,
) -> None:
    @step
    async def refuses() -> None:
        raise FatalError("never")

    @workflow
    async def catches() -> list[Any]:
        try:
            await refuses()
        except FatalError as error:
            await add(1, 1)  # so that it is caught in a replay
            return [str(error), type(error.__cause__).__name__]
        return []

    async with open_engine() as engine:
        run = await engine.start(catches)
        assert await run.return_value() == ['Step "refuses" failed after 0 retries: never', "FatalError"]
        assert len(await log(engine, run.id, "step_started")) == 3 - 1


@pytest.mark.conformance(73)
@pytest.mark.parametrize(
    ("after", "waits"),
    [("10s", 10), (10, 10), (timedelta(seconds=10), 10), (datetime(2026, 1, 1, 9, 0, 10, tzinfo=UTC), 10),
     (datetime(2025, 1, 1, tzinfo=UTC), 0), (None, 1)],
)  # fmt: skip
async def test_retry_after_is_respected(open_engine: OpenEngine, clock: FakeClock, after: Any, waits: int) -> None:
    times: list[datetime] = []

    @step(jitter=False)
    async def later() -> None:
        times.append(clock.now())
        if len(times) == 1:
            raise RetryableError("busy", retry_after=after)

    @workflow
    async def waits_for_it() -> None:
        await later()

    async with open_engine() as engine:
        run = await engine.start(waits_for_it)
        await clock.advance("1 minute")
        await run.return_value()
    assert (times[1] - times[0]).total_seconds() == waits


@pytest.mark.conformance(74, 75)
@pytest.mark.parametrize(("retries", "words"), [(0, "0 retries"), (1, "1 retry"), (3, "3 retries")])
async def test_retries_are_counted_and_named(
    open_engine: OpenEngine, clock: FakeClock, retries: int, words: str
) -> None:
    calls: list[int] = []

    @step(retries=retries)
    async def breaks() -> None:
        calls.append(1)
        raise ValueError("broken")

    @workflow
    async def tries() -> str:
        try:
            await breaks()
        except StepFailedError as error:
            return f"{error} ({type(error.__cause__).__name__})"
        return ""

    async with open_engine() as engine:
        run = await engine.start(tries)
        await clock.advance("1 minute")
        assert await run.return_value() == f'Step "breaks" failed after {words}: broken (ValueError)'
    assert len(calls) == retries + 1


@pytest.mark.conformance(75)
async def test_the_default_is_four_attempts(open_engine: OpenEngine, clock: FakeClock) -> None:
    calls: list[int] = []

    @step
    async def breaks() -> None:
        calls.append(1)
        raise ValueError("broken")

    @workflow
    async def tries() -> None:
        await breaks()

    async with open_engine() as engine:
        run = await engine.start(tries)
        await clock.advance("1h")
        with pytest.raises(RunFailedError, match="failed after 3 retries: broken") as caught:
            await run.return_value()
    assert len(calls) == 4
    assert isinstance(caught.value.__cause__, StepFailedError)


@pytest.mark.conformance(76)
async def test_a_workflow_catches_a_steps_error_and_completes(open_engine: OpenEngine) -> None:
    @step(retries=0)
    async def charge() -> None:
        raise ValueError("no money")

    @workflow
    async def apologises() -> list[str]:
        try:
            await charge()
        except StepFailedError as error:
            return [str(error), str(error.__cause__)]
        return []

    async with open_engine() as engine:
        run = await engine.start(apologises)
        assert await run.return_value() == ['Step "charge" failed after 0 retries: no money', "no money"]
        assert await run.status() == "completed"
        assert "in charge" in (await log(engine, run.id, "step_failed"))[0]["error"]["traceback"]


@pytest.mark.conformance(120)
async def test_an_uncaught_error_keeps_its_frames_and_its_cause(open_engine: OpenEngine) -> None:
    def look_up() -> None:
        raise ValueError("no such order")

    def order() -> None:
        try:
            look_up()
        except ValueError as error:
            raise RuntimeError("can't order") from error

    @workflow
    async def orders() -> None:
        await add(1, 2)
        order()

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="can't order") as caught:
            await (await engine.start(orders)).return_value()
    for frame in ("in orders", "in order", "in look_up", "ValueError: no such order"):
        assert frame in caught.value.traceback


@pytest.mark.conformance(120)
async def test_an_error_keeps_its_message_and_the_authors_frames(open_engine: OpenEngine) -> None:
    def deep() -> None:
        raise KeyError("deep down")

    @step(retries=0)
    async def fails() -> None:
        deep()

    @workflow
    async def fails_too() -> None:
        await fails()

    async with open_engine() as engine:
        run = await engine.start(fails_too)
        with pytest.raises(RunFailedError) as caught:
            await run.return_value()
        assert caught.value.cause_type == "StepFailedError"
        assert "deep down" in caught.value.cause_message
        assert "in fails_too" in caught.value.traceback
        assert "in deep" in (await log(engine, run.id, "step_failed"))[0]["error"]["traceback"]


@pytest.mark.conformance(77)
async def test_unprintable_errors_and_exits_are_failures(open_engine: OpenEngine) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    @step(retries=0)
    async def fails(how: str) -> None:
        raise Unprintable() if how == "unprintable" else SystemExit(3)

    @workflow
    async def both() -> list[str]:
        said = []
        for how in ("unprintable", "exit"):
            try:
                await fails(how)
            except StepFailedError as error:
                said.append(error.cause_type.rpartition(".")[2])
        return said

    async with open_engine() as engine:
        assert await (await engine.start(both)).return_value() == ["Unprintable", "SystemExit"]


async def test_an_errors_class_does_not_depend_on_imports_of_the_process(
    open_engine: OpenEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_late.py").write_text("class Refused(ValueError): pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    @step(retries=0)
    async def charge() -> None:
        raise importlib.import_module("imported_late").Refused("no money")

    @workflow
    async def apologises() -> Any:
        try:
            await charge()
        except StepFailedError as error:
            if isinstance(error.__cause__, ValueError):
                await add(1, 1)
        return await create_hook("t")

    async with open_engine() as engine:
        run = await engine.start(apologises)
        await engine.settle()
    monkeypatch.delitem(sys.modules, "imported_late")
    async with open_engine() as engine:
        await engine.resume_hook("t", "then")
        async with asyncio.timeout(30):
            assert await engine.get_run(run.id).return_value() == "then"
    assert "imported_late" not in sys.modules  # what a log names is not imported


class Abort(BaseException):
    """Exceptions like those of test runners and cancellation libraries, which `except Exception` doesn't catch."""


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def aborts() -> None:
    raise Abort("enough")


async def aborts_in_a_group() -> None:
    raise BaseExceptionGroup("several", [Abort("enough"), ValueError("and this")])


def aborts_in_a_thread() -> None:
    raise Abort("enough")


def takes_what_is_not_there() -> None:
    next(iter([]))


async def asks_for_the_end_of_time() -> None:
    raise RetryableError("much later", retry_after=1e18)


async def asks_for_a_day_that_utc_has_not() -> None:
    raise RetryableError("much later", retry_after=datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))))


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (aborts, "enough"),
        (aborts_in_a_group, "several"),
        (aborts_in_a_thread, "enough"),
        (takes_what_is_not_there, "StopIteration"),
        (cancels_itself, ""),
        (asks_for_the_end_of_time, "thousand years"),
        (asks_for_a_day_that_utc_has_not, "thousand years"),
    ],
)
async def test_anything_a_step_raises_counts_as_an_attempt(open_engine: OpenEngine, does: Any, said: str) -> None:
    ran = []

    @step(retries=1, retry_delay=0)
    async def fails() -> None:
        ran.append(1)
        if len(ran) > 10:
            raise FatalError("it runs on and on")
        await does()

    attempted = fails if inspect.iscoroutinefunction(does) else step(retries=1, retry_delay=0)(does)

    @workflow
    async def catches() -> str:
        try:
            await attempted()
        except StepFailedError as error:
            return str(error.cause_message)
        return "nothing"

    async with open_engine() as engine:
        run = await engine.start(catches)
        async with asyncio.timeout(30):
            assert said in await run.return_value()
        assert len(await log(engine, run.id, "step_started")) == (1 if said == "thousand years" else 2)
        assert len(ran) <= 2


@pytest.mark.conformance(78)
async def test_a_step_id_is_equal_over_attempts_and_differs_between_calls(
    open_engine: OpenEngine, clock: FakeClock
) -> None:
    seen: list[tuple[str, int]] = []

    @step
    async def twice(n: int) -> None:
        metadata = get_step_metadata()
        seen.append((metadata.step_id, metadata.attempt))
        if metadata.attempt == 1:
            raise ValueError

    @workflow
    async def calls() -> None:
        await twice(1)
        await twice(1)

    async with open_engine() as engine:
        run = await engine.start(calls)
        await clock.advance("1 minute")
        await run.return_value()
    assert [attempt for _, attempt in seen] == [1, 2, 1, 2]
    assert seen[0][0] == seen[1][0] != seen[2][0] == seen[3][0]


@pytest.mark.conformance(79)
async def test_replays_return_the_recorded_results(open_engine: OpenEngine) -> None:
    drawn: list[float] = []

    @step
    async def draw() -> float:
        drawn.append(chance.random())  # noqa: S311
        return drawn[-1]

    @workflow
    async def sums() -> float:
        return sum([await draw() for _ in range(20)])

    async with open_engine() as engine:
        assert await (await engine.start(sums)).return_value() == pytest.approx(sum(drawn))
    assert len(drawn) == 20


@pytest.mark.conformance(80)
async def test_arguments_are_passed_by_value(open_engine: OpenEngine) -> None:
    @step
    async def spoils(items: list[int]) -> list[int]:
        items.append(99)
        return items

    @workflow
    async def keeps() -> list[list[int]]:
        mine = [1]
        theirs = await spoils(mine)
        theirs.append(7)
        return [mine, theirs, await spoils(mine)]

    async with open_engine() as engine:
        assert await (await engine.start(keeps)).return_value() == [[1], [1, 99, 7], [1, 99]]


async def test_changes_to_arguments_are_not_seen_by_the_next_attempt(open_engine: OpenEngine, clock: FakeClock) -> None:
    @step
    async def takes_one_off(orders: list[dict[str, Any]], more: dict[str, list[Any]]) -> list[Any]:
        orders[0]["lines"].pop()
        more["lines"][0].clear()
        if get_step_metadata().attempt == 1:
            raise ValueError("not yet")
        return [orders, more]

    @workflow
    async def orders() -> list[Any]:
        return await takes_one_off([{"lines": [1, 2, 3]}], {"lines": [[1, 2]]})

    async with open_engine() as engine:
        run = await engine.start(orders)
        await clock.advance("1 minute")
        assert await run.return_value() == [[{"lines": [1, 2]}], {"lines": [[]]}]


async def test_changes_to_results_and_payloads_do_not_reach_the_log(open_engine: OpenEngine, clock: FakeClock) -> None:
    class Order(BaseModel):
        lines: Any

    @step
    async def fetch() -> list[dict[str, Any]]:
        return [{"lines": [1, 2, 3]}]

    @workflow
    async def takes_the_first_of_each() -> list[dict[str, Any]]:
        hook = create_hook("orders", schema=Order)
        orders = await fetch()
        mine = orders[0]["lines"].pop(0)
        order: Order = await hook
        theirs = order.lines.pop(0)
        await sleep("1h")
        return [{"first": [mine, theirs]}]

    async with open_engine() as engine:
        run = await engine.start(takes_the_first_of_each)
        await clock.advance(0)
        await engine.resume_hook("orders", {"lines": [7, 8, 9]})
        await clock.advance(0)
        assert (await log(engine, run.id, "step_completed"))[0]["result"] == [{"lines": [1, 2, 3]}]
        assert (await log(engine, run.id, "hook_received"))[0]["payload"] == {"lines": [7, 8, 9]}
    async with open_engine() as engine:  # where nothing is remembered
        await clock.advance("1h")
        value = await engine.get_run(run.id).return_value()
        assert value == [{"first": [1, 7]}]


@pytest.mark.conformance(81)
async def test_none_is_a_result(open_engine: OpenEngine) -> None:
    calls: list[int] = []

    @step
    async def nothing() -> None:
        calls.append(1)

    @workflow
    async def asks() -> list[Any]:
        return [await nothing(), await add(1, 1)]  # type: ignore[func-returns-value]

    async with open_engine() as engine:
        assert await (await engine.start(asks)).return_value() == [None, 2]
    assert len(calls) == 1


@pytest.mark.conformance(82)
async def test_outside_a_workflow_a_step_is_just_the_function() -> None:
    assert await add(3, 5) == 8


@pytest.mark.conformance(85)
async def test_a_step_whose_process_died_runs_again_and_keeps_its_retries(
    open_engine: OpenEngine, clock: FakeClock
) -> None:
    calls: list[int] = []
    began = asyncio.Event()

    @step(retries=0)
    async def interrupted() -> int:
        calls.append(get_step_metadata().attempt)
        began.set()
        if len(calls) < 4:
            await asyncio.Event().wait()
        return len(calls)

    @workflow
    async def survives() -> int:
        return await interrupted()

    run_id = ""
    for _ in range(3):
        async with open_engine() as engine:
            engine.scheduler.closing = 0.0
            run_id = run_id or (await engine.start(survives)).id
            await began.wait()
            began.clear()
    async with open_engine() as engine:
        assert await engine.get_run(run_id).return_value() == 4
    assert calls == [1, 1, 1, 1]


@pytest.mark.conformance(90)
async def test_a_step_that_ends_after_the_cancellation_changes_nothing(open_engine: OpenEngine) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> None:
        began.set()
        await may_end.wait()

    @workflow
    async def waits() -> None:
        await slow()

    async with open_engine() as engine:
        run = await engine.start(waits)
        await began.wait()
        await run.cancel("enough")
        before = await engine.events(run.id)
        may_end.set()
        await engine.settle()
        assert await run.status() == "cancelled"
    async with open_engine() as engine:
        assert await engine.events(run.id) == before


@pytest.mark.conformance(91)
async def test_a_step_can_start_a_child_run_and_wait_for_it(open_engine: OpenEngine) -> None:
    @workflow(name="child of 91")
    async def child(n: int) -> int:
        return await add(n, 1)

    @step
    async def run_child(n: int) -> int:
        run = await start(child, n, idempotency_key=get_step_metadata().step_id)
        return await get_run(run.id).return_value()  # type: ignore[no-any-return]

    @workflow
    async def parent() -> int:
        return await run_child(1) + await run_child(10)

    @workflow
    async def directly() -> None:
        await start(child, 1)

    async with open_engine() as engine:
        assert await (await engine.start(parent)).return_value() == 13
        assert len((await engine.records(workflow="child of 91")).records) == 2
        with pytest.raises(RunFailedError, match="do that in a @step"):
            await (await engine.start(directly)).return_value()


def ask_from_elsewhere() -> str:
    return get_workflow_metadata().run_id


async def test_runs_that_wait_for_others_in_steps_give_up_their_slots(
    open_engine: OpenEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "MAX_ACTIVE", 3)

    @workflow
    async def rests(number: int) -> int:
        await sleep("1h")
        return await add(number, 1)

    @step
    async def asks_another(number: int) -> int:
        return int(await (await start(rests, number)).return_value())

    @workflow
    async def asks_two(number: int) -> list[int]:
        return list(await asyncio.gather(asks_another(number), asks_another(number + 1)))

    async with open_engine() as engine:
        runs = [await engine.start(asks_two, number) for number in range(10)]
        async with asyncio.timeout(60):
            while len((await engine.records(workflow="rests", status="running")).records) < 20:
                await asyncio.sleep(0.01)
            await clock.advance("1h")
            assert [await run.return_value() for run in runs] == [[n + 1, n + 2] for n in range(10)]
        assert engine.scheduler.slots.free == 3


@pytest.mark.conformance(92)
async def test_metadata_is_available_only_in_workflows_and_steps(open_engine: OpenEngine) -> None:
    @step
    async def reports() -> list[str]:
        return [ask_from_elsewhere(), get_step_metadata().name]

    @step
    def reports_from_a_thread() -> str:
        return ask_from_elsewhere()

    @workflow
    async def compares() -> list[Any]:
        metadata = get_workflow_metadata()
        return [
            metadata.workflow_name,
            metadata.run_id,
            ask_from_elsewhere(),
            await reports(),
            await reports_from_a_thread(),
        ]

    async with open_engine() as engine:
        run = await engine.start(compares)
        assert await run.return_value() == ["compares", run.id, run.id, [run.id, "reports"], run.id]
    with pytest.raises(NotInWorkflowError):
        get_workflow_metadata()

    @workflow
    async def asks_for_a_step() -> str:
        try:
            return get_step_metadata().name
        except NotInStepError:
            return "no step"

    async with open_engine() as engine:
        assert await (await engine.start(asks_for_a_step)).return_value() == "no step"


@pytest.mark.conformance(93)
@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "💥", "\u2028", "$", '{"$": "datetime"}'])
async def test_any_text_survives_the_log(open_engine: OpenEngine, text: str) -> None:
    @step
    async def gives(text: str) -> Any:
        return {"$": text, "plain": [text]}

    @workflow
    async def echoes(text: str) -> Any:
        return await gives(text)

    async with open_engine() as engine:
        assert await (await engine.start(echoes, text)).return_value() == {"$": text, "plain": [text]}


@pytest.mark.conformance(94)
async def test_closures_and_threads_are_steps_too(open_engine: OpenEngine) -> None:
    factor = 3

    @step
    def times(n: int) -> int:
        return n * factor

    class Calculator:
        offset = 1

        async def more(self, n: int) -> int:
            return n + self.offset

        @staticmethod
        async def less(n: int) -> int:
            return n - 1

    more, less = step(Calculator().more), step(Calculator.less)

    @workflow
    async def uses() -> list[int]:
        return [await times(14), await more(1), await less(1)]

    async with open_engine() as engine:
        assert await (await engine.start(uses)).return_value() == [42, 2, 0]


async def test_a_step_that_times_out_is_retried(open_engine: OpenEngine, clock: FakeClock) -> None:
    @step(timeout=0.05, retries=1)
    async def slow() -> str:
        if get_step_metadata().attempt == 1:
            await asyncio.Event().wait()
        return "second time"

    @workflow
    async def waits() -> str:
        return await slow()

    async with open_engine() as engine:
        run = await engine.start(waits)
        await clock.advance("1 minute")
        assert await run.return_value() == "second time"
        assert "longer than its timeout" in (await log(engine, run.id, "step_retrying"))[0]["error"]["message"]


async def test_a_resource_is_given_by_type_and_a_missing_one_is_named(open_engine: OpenEngine) -> None:
    class Mailer:
        def __init__(self) -> None:
            self.sent: list[str] = []

    @step(retries=0)
    async def send(text: str, mailer: Mailer = resource(Mailer)) -> None:  # noqa: B008  # a marker
        mailer.sent.append(text)

    @workflow
    async def sends() -> None:
        await send("hello")

    mailer = Mailer()
    async with open_engine(resources=[mailer]) as engine:
        await (await engine.start(sends)).return_value()
    assert mailer.sent == ["hello"]
    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="needs a Mailer"):
            await (await engine.start(sends)).return_value()


@pytest.mark.conformance(88)
async def test_a_payload_does_not_restart_a_running_step(open_engine: OpenEngine) -> None:
    calls: list[int] = []
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def slow() -> str:
        calls.append(1)
        began.set()
        await may_end.wait()
        return "done"

    @workflow
    async def both() -> list[Any]:
        hook = create_hook(token="t")
        task = asyncio.create_task(slow())
        return [await hook, await task]

    async with open_engine() as engine:
        run = await engine.start(both)
        await began.wait()
        await engine.resume_hook("t", "payload")
        while len(await engine.events(run.id)) < 6:
            await asyncio.sleep(0)
        may_end.set()
        assert await run.return_value() == ["payload", "done"]
    assert len(calls) == 1


async def test_steps_in_threads_do_not_block_the_engine(open_engine: OpenEngine) -> None:
    may_end = threading.Event()

    @step
    def blocks() -> str:
        assert may_end.wait(60)
        return "done"

    @workflow
    async def waits() -> str:
        return await blocks()

    async with open_engine() as engine:
        slow = await engine.start(waits)
        async with asyncio.timeout(30):
            await engine.records()
        may_end.set()
        assert await slow.return_value() == "done"
