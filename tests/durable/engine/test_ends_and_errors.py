"""How runs end, fail and stall, and the errors that authors see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import (
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidPayloadError,
    LimitExceededError,
    RunCancelledError,
    RunEndedError,
    RunFailedError,
    RunNotFoundError,
    SerializationError,
    WorkflowNotFoundError,
    create_hook,
    define_hook,
    get_run,
    now,
    publish,
    random,
    sleep,
    start,
    step,
    uuid4,
    workflow,
)
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import replayer as replaying
from approvals_bot.durable.store import connect
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


@step
async def note(text: Any = "") -> Any:
    return text


@workflow(name="waits for one answer")
async def waits() -> Any:
    return await create_hook(token="t")


@pytest.mark.conformance(126)
async def test_too_many_events_fail_the_run_and_free_its_hooks(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "MAX_EVENTS", 50)

    @workflow
    async def endless() -> None:
        create_hook(token="t")
        while True:
            await note()

    async with open_engine() as engine:
        run = await engine.start(endless)
        with pytest.raises(RunFailedError, match="limit of 50"):
            await run.return_value()
        with pytest.raises(HookNotFoundError):
            await engine.get_hook_by_token("t")


@pytest.mark.conformance(128)
async def test_two_engines_on_one_file_work_on_each_run_once(open_engine: OpenEngine) -> None:
    calls: list[str] = []

    @step
    async def counted(key: str) -> None:
        calls.append(key)

    @workflow
    async def four(n: int) -> int:
        await asyncio.gather(*(counted(f"{n}.{i}") for i in range(4)))
        return n

    async with open_engine(clock=None) as first, open_engine(clock=None) as second:
        runs = [await (first if n % 2 else second).start(four, n) for n in range(20)]
        assert [await run.return_value() for run in runs] == list(range(20))
    assert len(calls) == len(set(calls)) == 80


@pytest.mark.conformance(129)
async def test_runs_continue_after_a_restart_in_every_state(
    open_engine: OpenEngine, clock: FakeClock, store_url: str
) -> None:
    began, attempts = asyncio.Event(), list[int]()

    @step
    async def interrupted() -> str:
        attempts.append(1)
        began.set()
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return "in a step"

    @workflow
    async def states() -> list[Any]:
        first = await interrupted()
        await sleep("1h")
        return [first, await create_hook(token="t")]

    looking = Engine(await connect(store_url), clock=clock)
    async with looking.running(work=False):
        run = await looking.start(states)
        assert await run.status() == "pending"
    async with open_engine() as engine:
        engine.scheduler.closing = 0.0
        await began.wait()  # in a step
    async with open_engine() as engine:
        await engine.settle()
        assert len(attempts) == 2
    async with open_engine():  # asleep
        await clock.advance("1h")
    async with open_engine() as engine:
        await engine.resume_hook("t", "yes")
        assert await engine.get_run(run.id).return_value() == ["in a step", "yes"]


@pytest.mark.conformance(130)
async def test_random_uuid4_and_now_are_equal_on_replay_and_differ_by_run(
    open_engine: OpenEngine,
) -> None:
    @workflow
    async def draws() -> list[list[Any]]:
        drawn: list[list[Any]] = []
        for _ in range(3):
            drawn.append([random().random(), str(uuid4()), now().isoformat()])
            assert await note(drawn[-1]) == drawn[-1]
        return drawn

    async with open_engine() as engine:
        first = await (await engine.start(draws)).return_value()
        second = await (await engine.start(draws)).return_value()
    assert len({str(each[:2]) for each in first + second}) == 6
    assert [each[2] for each in first] == sorted(each[2] for each in first)


@pytest.mark.conformance(133, 134)
async def test_cancelling_a_run_frees_everything(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def both() -> None:
        await asyncio.gather(sleep("1 day"), asyncio.ensure_future(_take("t")))

    async with open_engine() as engine:
        run = await engine.start(both)
        await engine.settle()
        await run.cancel(reason="not needed")
        assert (await run.wait(60)).status == "cancelled"
        with pytest.raises(RunCancelledError, match="not needed"):
            await run.return_value()
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("t", 1)
        assert await engine.next_wake() is None


async def _take(token: str) -> Any:
    return await create_hook(token=token)


@pytest.mark.conformance(135)
async def test_an_ended_run_keeps_its_status(open_engine: OpenEngine) -> None:
    @workflow
    async def fails() -> None:
        raise ValueError("bad")

    async with open_engine() as engine:
        completed, failed = await engine.start(note_it), await engine.start(fails)
        await engine.settle()
        cancelled = await engine.start(waits)
        await cancelled.cancel()
        for run, status in ((completed, "completed"), (failed, "failed"), (cancelled, "cancelled")):
            with pytest.raises(RunEndedError, match=status):
                await run.cancel()
            assert await run.status() == status


@workflow(name="notes it")
async def note_it() -> Any:
    return await note("it")


@pytest.mark.conformance(136)
async def test_a_run_cancelled_before_its_start_never_runs(
    open_engine: OpenEngine, store_url: str, clock: FakeClock
) -> None:
    began: list[int] = []

    @workflow
    async def never() -> None:
        began.append(1)

    looking = Engine(await connect(store_url), clock=clock)
    async with looking.running(work=False):
        run = await looking.start(never)
        assert await run.status() == "pending"
        await run.cancel()
    async with open_engine() as engine:
        await engine.settle()
        assert await engine.get_run(run.id).status() == "cancelled"
    assert began == []


@pytest.mark.conformance(137)
@pytest.mark.parametrize("unknown", ["run_unknown", "", "a\x00b", "\ud800"])  # as a terminal may give them
async def test_an_unknown_run_raises_when_it_is_read(open_engine: OpenEngine, unknown: str) -> None:
    async with open_engine() as engine:
        run = engine.get_run(unknown)
        for ask in (run.status, run.return_value, run.cancel, run.wake_up, run.events):
            call: Callable[[], Any] = ask
            with pytest.raises(RunNotFoundError):
                await call()
        assert await engine.record(unknown) is None
        assert await engine.find_hook(unknown) is None


@pytest.mark.conformance(138)
async def test_a_failed_run_says_why_with_its_cause(open_engine: OpenEngine) -> None:
    @workflow
    async def fails() -> None:
        raise ValueError("by zero")

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="by zero") as caught:
            await (await engine.start(fails)).return_value()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.cause_type == "ValueError"


async def test_two_starts_with_one_key_are_one_run(open_engine: OpenEngine) -> None:
    @workflow
    async def keyed(amount: int) -> int:
        return amount

    async with open_engine() as engine:
        runs = await asyncio.gather(*(engine.start(keyed, 1, idempotency_key="k") for _ in range(10)))
        assert len({run.id for run in runs}) == 1
        assert sum(run.is_new for run in runs) == 1
        with pytest.raises(IdempotencyConflictError, match=r"input\.amount was 1, and is now 2"):
            await engine.start(keyed, 2, idempotency_key="k")


@pytest.mark.conformance(140)
async def test_attributes_find_runs_and_have_limits(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        red = await engine.start(note_it, attributes={"colour": "red", "size": "L"})
        await engine.start(note_it, attributes={"colour": "blue"})
        assert [r.id for r in (await engine.records(attributes={"colour": "red"})).records] == [red.id]
        assert (await engine.records(attributes={"colour": "red", "size": "M"})).records == []
        for wrong in ({"$own": "x"}, {"n": "x" * 257}, {"n" * 257: "x"}, {str(n): "" for n in range(65)}):
            with pytest.raises((ValueError, LimitExceededError)):
                await engine.start(note_it, attributes=wrong)
        assert len((await engine.records()).records) == 2


@pytest.mark.conformance(148)
async def test_unserializable_values_are_refused_by_path_and_not_written(
    open_engine: OpenEngine,
) -> None:
    @workflow
    async def takes(argument: Any, typed: int = 0) -> Any:
        return await create_hook(token="t")

    async with open_engine() as engine:
        with pytest.raises(SerializationError) as caught:
            await engine.start(takes, {"handlers": [print]})
        assert caught.value.path == "argument.handlers[0]"
        with pytest.raises(InvalidPayloadError):
            await engine.start(takes, 1, typed="many")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await engine.start(takes)  # type: ignore[call-overload]
        with pytest.raises(LimitExceededError):
            await engine.start(takes, "x" * 1_100_000)
        assert (await engine.records()).records == []
        run = await engine.start(takes, 1)
        await engine.settle()
        before = await run.events()
        with pytest.raises(SerializationError, match=r"payload\.a"):
            await engine.resume_hook("t", {"a": object()})
        assert await run.events() == before


@pytest.mark.parametrize("where", ["input", "result", "view", "step"])
async def test_values_that_are_too_large_fail_their_run_and_are_named(open_engine: OpenEngine, where: str) -> None:
    @workflow
    async def large() -> Any:
        match where:
            case "input":
                return await note("x" * 1_100_000)
            case "view":
                publish("x" * 1_100_000)
                return await create_hook()
            case "step":
                return await produce()
            case _:
                return "x" * 1_100_000

    @step
    async def produce() -> str:
        return "x" * 1_100_000

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="limit of 1,000,000 bytes"):
            await (await engine.start(large)).return_value()


@pytest.mark.conformance(149)
async def test_an_error_comes_back_as_its_class_with_its_cause(open_engine: OpenEngine) -> None:
    @step(retries=0)
    async def refuses() -> None:
        raise PaymentRefused("card")

    @workflow
    async def catches() -> str:
        try:
            await refuses()
        except Exception as error:  # noqa: BLE001  # authors write this
            return f"{type(error).__name__} from {type(error.__cause__).__name__}: {error.__cause__}"
        return ""

    async with open_engine() as engine:
        said = await (await engine.start(catches)).return_value()
    assert said == "StepFailedError from PaymentRefused: card"


class PaymentRefused(Exception):
    pass


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def version_of(name: str, body: str) -> Any:
    """Register a workflow of this name with one of several bodies, replacing the one before."""

    async def first() -> Any:
        await note("a")
        return await create_hook(token="t")

    async def second() -> Any:
        await sleep("1h")
        return await create_hook(token="t")

    bodies = {"first": first, "second": second}
    function = bodies[body]
    function.__qualname__ = name
    return workflow(name=name)(function)


@pytest.mark.conformance(123)
async def test_a_drifted_run_stalls_takes_payloads_and_continues_once_fixed(
    open_engine: OpenEngine,
) -> None:
    kept = version_of("drifts", "first")
    async with open_engine() as engine:
        run = await engine.start(kept)
        await engine.settle()
    kept = version_of("drifts", "second")
    async with open_engine() as engine:
        await engine.resume_hook("t", "while it can't go on")
        await engine.settle()
        record = await engine.record(run.id)
        assert record is not None
        assert record.status == "stalled"
        assert "recorded step #1 'note', but the code now asks for wait #1" in (record.stalled or "")
        kept = version_of("drifts", "first")  # in the same process, too
        assert await engine.get_run(run.id).return_value() == "while it can't go on"
    del kept


def charging(version: str) -> Any:
    """Register a workflow and the step that it waits for, in one of several versions."""
    attempts: list[tuple[Any, ...]] = []

    async def first(amount: int) -> str:
        raise ValueError("not today")

    async def with_currency(amount: int, currency: str) -> str:
        attempts.append((amount, currency))
        return f"{amount} {currency}"

    async def of_another_type(amount: list[int]) -> str:
        attempts.append((amount,))
        return str(amount)

    async def with_a_default(amount: int, currency: str = "EUR") -> str:
        return f"{amount} {currency}"

    function: Any = {f.__name__: f for f in (first, with_currency, of_another_type, with_a_default)}[version]
    function.__name__ = "charge"
    charge = step(retries=5, retry_delay="1h")(function)

    async def charges_by_version(amount: int) -> str:
        return str(await charge(amount))

    charges_by_version.__qualname__ = "charges_by_version"
    return workflow(name="charges_by_version")(charges_by_version), attempts


@pytest.mark.parametrize(("changed", "said"), [("with_currency", "currency, too"), ("of_another_type", "other types")])
async def test_a_step_with_changed_parameters_stalls_its_run_until_fixed(
    open_engine: OpenEngine, clock: FakeClock, changed: str, said: str
) -> None:
    kept, _ = charging("first")
    async with open_engine() as engine:
        run = await engine.start(kept, 5)
        await clock.advance("1 minute")
    kept, attempts = charging(changed)
    async with open_engine() as engine:
        await clock.advance("1h")
        record = await engine.record(run.id)
        assert record is not None
        assert record.status == "stalled"
        assert "step #1 'charge' with (amount)" in (record.stalled or "")
        assert said in (record.stalled or "")
        assert attempts == []
    kept, _ = charging("with_a_default")
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == "5 EUR"
    del kept


@pytest.mark.conformance(84)
async def test_a_run_without_its_code_stalls_until_the_code_is_there(open_engine: OpenEngine) -> None:
    kept = version_of("missing", "first")
    async with open_engine() as engine:
        run = await engine.start(kept)
        await engine.settle()
        registry._kept.pop(("missing", None), None)
        registry._local.pop(("missing", None), None)
        await engine.resume_hook("t", "kept")
        await engine.settle()
        assert await run.status() == "stalled"
    kept = version_of("missing", "first")
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == "kept"


@pytest.mark.conformance(84)
async def test_a_workflow_that_does_not_exist_is_refused_at_once(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        with pytest.raises(WorkflowNotFoundError, match="no such thing"):
            await engine.start("no such thing")
        with pytest.raises(WorkflowNotFoundError):
            await engine.start(print)  # type: ignore[call-overload]


async def test_a_spinning_body_is_named_and_blocks_nobody(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "ACTIVATION_TIME", 0.3)

    @workflow
    async def spins(how: str) -> None:
        while how == "computes":
            pass
        while how == "swallows":
            with suppress(Exception):
                sum(range(1000))
        while how == "turns round":
            await asyncio.sleep(0)

    async with open_engine() as engine:
        began = time.monotonic()
        spinning = [await engine.start(spins, how) for how in ("computes", "swallows", "turns round")]
        other = await engine.start(waits)
        await engine.settle()
        await engine.resume_hook("t", "not held up")
        assert await other.return_value() == "not held up"
        assert time.monotonic() - began < 30  # not for ever; a busy machine may take its time
        for run in spinning:
            record = await engine.record(run.id)
            assert record is not None
            assert record.status == "stalled"
            assert "WorkflowSpinsError" in (record.stalled or "")
            assert "'spins'" in (record.stalled or "") or "loop" in (record.stalled or "")


SLOW_TO_IMPORT = """
import time
began = time.process_time()
while time.process_time() < began + 0.8:
    pass
"""


async def test_an_import_in_a_body_does_not_count_as_spinning(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(replaying, "ACTIVATION_TIME", 0.3)
    monkeypatch.setattr(replaying, "INLINE_TIME", 0.2)
    (tmp_path / "slow_to_import.py").write_text(SLOW_TO_IMPORT)
    monkeypatch.syspath_prepend(tmp_path)

    @workflow
    async def imports() -> str:
        await asyncio.sleep(0)
        return import_module("slow_to_import").__name__

    async with open_engine() as engine:
        assert await (await engine.start(imports)).return_value() == "slow_to_import"


async def test_a_run_that_nothing_can_wake_fails_at_once(open_engine: OpenEngine) -> None:
    @workflow
    async def stuck(after: str) -> None:
        if after == "dispose":
            create_hook(token="t").dispose()
        await asyncio.get_running_loop().create_future()

    async with open_engine() as engine:
        for after in ("", "dispose"):
            with pytest.raises(RunFailedError, match="no step, hook or timer"):
                await (await engine.start(stuck, after)).return_value()


async def test_the_body_can_cancel_itself(open_engine: OpenEngine) -> None:
    @workflow
    async def withdraws() -> None:
        raise asyncio.CancelledError("changed my mind")

    async with open_engine() as engine:
        with pytest.raises(RunCancelledError, match="changed my mind"):
            await (await engine.start(withdraws)).return_value()


@pytest.mark.conformance(160)
async def test_closing_waits_for_a_running_step_and_releases_the_run(open_engine: OpenEngine) -> None:
    calls: list[str] = []
    began = asyncio.Event()

    @step
    async def short() -> None:
        began.set()
        await asyncio.sleep(0.05)
        calls.append("ended")

    @workflow
    async def two() -> str:
        await short()
        await short()
        return "both"

    async with open_engine() as other:
        async with open_engine() as engine:
            run = await engine.start(two)
            await other.settle()
            await began.wait()
        found = await other.store.read(run.id)
        assert found is not None
        assert await other.get_run(run.id).return_value() == "both"
    assert calls == ["ended", "ended"]


async def test_a_caller_that_waits_when_the_engine_closes_gets_an_error(open_engine: OpenEngine) -> None:
    @workflow
    async def rests() -> None:
        await sleep("1h")

    async with open_engine() as engine:
        run = await engine.start(rests)
        waiting = [asyncio.ensure_future(run.return_value()), asyncio.ensure_future(run.wait(None))]
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        for each in waiting:
            with pytest.raises(StoreUnavailableError, match="closed"):
                await each


@pytest.mark.conformance(161)
async def test_parked_runs_are_not_woken_over_and_over(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def sleeps() -> None:
        await sleep("60 days")

    async with open_engine() as engine:
        parked = [await engine.start(waits), await engine.start(sleeps)]
        await engine.settle()
    for _ in range(3):
        async with open_engine():
            await clock.advance("10 days")
    async with open_engine() as engine:
        for run in parked:
            found = await engine.store.read(run.id)
            assert found is not None
            assert found[0].epoch == 1  # claimed once, when it began


@pytest.mark.conformance(151, 152)
async def test_lists_are_filtered_and_their_pages_are_stable(open_engine: OpenEngine, clock: FakeClock) -> None:
    async with open_engine() as engine:
        first = []
        for _ in range(5):
            first.append((await engine.start(note_it)).id)
            await clock.advance(1)
        page = await engine.records(workflow="notes it", limit=2)
        for _ in range(3):
            await engine.start(note_it)
        seen = [r.id for r in page.records]
        while page.cursor:
            page = await engine.records(workflow="notes it", limit=2, cursor=page.cursor)
            seen += [r.id for r in page.records]
        assert seen == first[::-1]
        assert (await engine.records(status="failed")).records == []
        await engine.settle()
        assert len((await engine.records(status="completed")).records) == 8
        assert (await engine.records(workflow="another")).records == []
        with pytest.raises(ValueError, match="cursor"):
            await engine.records(cursor="nonsense")


@pytest.mark.conformance(153)
async def test_events_are_read_in_order(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(note_it)
        await run.return_value()
        events = await engine.events(run.id)
        assert [e.seq for e in events] == list(range(1, len(events) + 1))


@pytest.mark.conformance(147)
async def test_values_survive_the_log(open_engine: OpenEngine) -> None:
    from datetime import UTC, date, datetime, timedelta
    from datetime import time as clock_time
    from decimal import Decimal
    from uuid import UUID

    values: list[Any] = [
        None, True, 1, 1.5, "text", [1, [2]], {"a": {"b": []}}, (1, ("x",)), {1, 2}, frozenset({"a"}), b"\x00\xff",
        datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), clock_time(9, 30), timedelta(days=1, microseconds=1),
        Decimal("1.10"), UUID(int=7), {"$": "datetime", "v": "not one"},
    ]  # fmt: skip

    @workflow
    async def echoes(given: Any) -> Any:
        return await note(given)

    async with open_engine() as engine:
        back = await (await engine.start(echoes, values)).return_value()
    assert back == values
    assert [type(value) for value in back] == [type(value) for value in values]


@pytest.mark.conformance(147)
async def test_shared_values_are_copied_and_cyclic_ones_refused(open_engine: OpenEngine) -> None:
    @workflow
    async def echoes(given: Any) -> Any:
        return await note(given)

    shared = [1]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    async with open_engine() as engine:
        assert await (await engine.start(echoes, [shared, shared])).return_value() == [[1], [1]]
        with pytest.raises(SerializationError, match="refers to itself"):
            await engine.start(echoes, cyclic)


async def test_values_under_open_types_keep_their_own_types(open_engine: OpenEngine) -> None:
    from datetime import UTC, datetime
    from decimal import Decimal

    row = {"id": 1, "at": datetime(2026, 1, 1, tzinfo=UTC), "amount": Decimal("1.10"), "of": (1, 2), "raw": b"\xff"}

    @step
    async def rows() -> list[dict[str, Any]]:
        return [row]

    @step
    async def by_name(found: dict[str, list]) -> dict[str, dict]:  # type: ignore[type-arg]
        return {name: items[0] for name, items in found.items()}

    @workflow
    async def reads() -> dict[str, object]:
        return dict(await by_name({"first": list(await rows())}))

    async with open_engine() as engine:
        assert await (await engine.start(reads)).return_value() == {"first": row}


async def test_strict_types_survive_the_log_and_accept_json(open_engine: OpenEngine) -> None:
    from datetime import UTC, datetime
    from uuid import UUID

    class Booking(BaseModel, strict=True):
        at: datetime
        ids: set[UUID]
        seats: tuple[int, ...]

    booking = Booking(at=datetime(2026, 1, 1, tzinfo=UTC), ids={UUID(int=7)}, seats=(1, 2))
    bookings = define_hook(Booking)

    @step
    async def change(booking: Booking) -> Booking:
        return booking

    @workflow
    async def books(first: Booking) -> list[Booking]:
        hook = bookings.create("bookings")
        return [await change(first), await hook, await hook]

    async with open_engine() as engine:
        run = await engine.start(books, booking)
        await engine.settle()
        await bookings.resume("bookings", booking)
        with pytest.raises(InvalidPayloadError, match="seats"):
            await engine.resume_hook("bookings", booking.model_dump(mode="json") | {"seats": ["1"]})
        await engine.resume_hook("bookings", booking.model_dump(mode="json"))
        assert await run.return_value() == [booking] * 3


@pytest.mark.parametrize(("schema", "payload"), [(dict, [1]), (list, {"a": 1}), (dict[str, Any], None), (bytes, 5)])
async def test_a_loose_schema_is_validated_too(open_engine: OpenEngine, schema: Any, payload: Any) -> None:
    @workflow
    async def takes() -> Any:
        return await create_hook("t", schema=schema)

    async with open_engine() as engine:
        run = await engine.start(takes)
        await engine.settle()
        with pytest.raises(InvalidPayloadError):
            await engine.resume_hook("t", payload)
        with pytest.raises(InvalidPayloadError):
            await engine.resume_hook("t", None)
        assert "hook_received" not in [event.type for event in await run.events()]


@pytest.mark.parametrize("asks", ["status", "return_value", "events", "wake_up", "wait"])
async def test_a_body_that_calls_the_engine_is_refused_and_harms_nobody(open_engine: OpenEngine, asks: str) -> None:
    @workflow
    async def asks_about_another(run_id: str) -> Any:
        handle = get_run(run_id)
        return await (handle.wait(1) if asks == "wait" else getattr(handle, asks)())

    async with open_engine() as engine:
        other = await engine.start(waits)
        run = await engine.start(asks_about_another, other.id)
        async with asyncio.timeout(30):
            with pytest.raises(RunFailedError, match="do that in a @step"):
                await run.return_value()
            assert await other.status() == "running"


async def test_calls_from_another_event_loop_are_refused(
    open_engine: OpenEngine,
) -> None:
    @step(retries=0)
    def asks_on_a_loop_of_its_own(run_id: str) -> str:
        return asyncio.run(get_run(run_id).status())

    @step(retries=0)
    def starts_on_a_loop_of_its_own() -> str:
        return str(asyncio.run(start(waits)).id)

    @workflow
    async def asks(run_id: str) -> list[str]:
        said = await asyncio.gather(
            asks_on_a_loop_of_its_own(run_id), starts_on_a_loop_of_its_own(), return_exceptions=True
        )
        return [str(each) for each in said]

    async with open_engine() as engine:
        other = await engine.start(waits)
        async with asyncio.timeout(30):
            said = await (await engine.start(asks, other.id)).return_value()
            assert all("another event loop" in each for each in said)
            assert await other.status() == "running"
