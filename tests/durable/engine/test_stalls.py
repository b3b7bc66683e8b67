"""Runs whose body has a bug: they stall, keep what they get, and go on once the code is mended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from approvals_bot import (
    FatalError,
    InvalidPayloadError,
    RunEndedError,
    RunFailedError,
    RunNotFoundError,
    RunNotStalledError,
    SerializationError,
    StepFailedError,
    create_hook,
    run_child,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.api import accompany
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store import connect
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

Body = Callable[..., Awaitable[Any]]


@step
async def note(text: Any = "") -> Any:
    return text


class Plan:
    """Whether the body has its bug now, and which steps ran."""

    is_broken = True

    def __init__(self) -> None:
        self.ran: list[Any] = []

    def bug(self) -> None:
        if self.is_broken:
            raise KeyError("a secret of Ann's")


@pytest.fixture
def plan() -> Plan:
    return Plan()


async def stalled(engine: Engine, run_id: str) -> RunRecord:
    await engine.settle()
    record = await engine.record(run_id)
    assert record is not None
    assert record.status == "stalled", record
    return record


def types(events: list[Any]) -> list[str]:
    return [event.type for event in events]


async def test_a_bug_writes_the_facts_and_none_of_its_decisions(open_engine: OpenEngine, plan: Plan) -> None:
    @workflow
    async def asks() -> Any:
        hook = create_hook(token="t")
        first = await hook
        create_hook(token="opened by the bug")
        asyncio.get_running_loop().create_task(note("started by the bug"))
        await sleep(0)
        plan.bug()
        return [first, await hook]

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        before = await run.events()
        for payload in ("a", "b"):
            await engine.resume_hook("t", payload)
        record = await stalled(engine, run.id)
        assert (record.stalled or "").startswith('KeyError: "a secret of Ann\'s" (tests/durable/engine/test_stalls.py:')
        assert types((await run.events())[len(before) :]) == ["hook_received", "hook_received"]
        assert (record.wake_at, record.ended_at) == (None, None)
        plan.is_broken = False
        await run.retry()
        assert await run.return_value() == ["a", "b"]
        after = await engine.record(run.id)
        assert after is not None
        assert after.stalled is None


@pytest.mark.parametrize("place", ["body", "companion"])
async def test_steps_that_were_running_are_recorded_once(open_engine: OpenEngine, plan: Plan, place: str) -> None:
    going, ran = asyncio.Event(), list[str]()

    @step
    async def slow(name: str) -> str:
        await going.wait()
        ran.append(name)
        return name

    async def beside() -> None:
        await create_hook(token="companion")
        plan.bug()

    @workflow
    async def asks() -> Any:
        accompany(beside(), leave=lambda: None)
        steps = [asyncio.create_task(slow(name)) for name in "ab"]
        hook = create_hook(token="body")
        if await hook == "go":
            plan.bug()
        return [await each for each in steps]

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        await engine.resume_hook(place, "go")
        await engine.settle()
        going.set()
        while len(ran) < 2:
            await asyncio.sleep(0.01)
        await stalled(engine, run.id)
        plan.is_broken = False
        await engine.resume_hook({"body": "companion", "companion": "body"}[place], "go")
        assert await run.return_value() == ["a", "b"]
        assert sorted(ran) == ["a", "b"]


async def test_a_deadline_waits_for_the_fix_and_clicks_before_it_count(
    open_engine: OpenEngine, clock: FakeClock, plan: Plan
) -> None:
    @workflow
    async def asks() -> Any:
        hook = create_hook(token="t")
        votes: list[Any] = []
        try:
            async with asyncio.timeout(3600):
                while len(votes) < 2:
                    votes.append(await hook)
                    plan.bug()
        except TimeoutError:
            return ["late", *votes]
        return votes

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        await engine.resume_hook("t", "first")
        await stalled(engine, run.id)
        await clock.advance("2h")
        await stalled(engine, run.id)
        await engine.resume_hook("t", "second")
        await stalled(engine, run.id)
        assert "wait_completed" not in types(await run.events())
        plan.is_broken = False
        await run.retry()
        assert await run.return_value() == ["first", "second"]


async def test_a_deadline_that_passed_is_due_once_the_run_goes_on(
    open_engine: OpenEngine, clock: FakeClock, plan: Plan
) -> None:
    @workflow
    async def asks() -> Any:
        hook = create_hook(token="t")
        try:
            async with asyncio.timeout(3600):
                return await hook
        except TimeoutError:
            plan.bug()
            return "late"

    async with open_engine() as engine:
        run = await engine.start(asks)
        await clock.advance("1h")
        await stalled(engine, run.id)
        assert "wait_completed" not in types(await run.events())
        plan.is_broken = False
        await run.retry()
        assert await run.return_value() == "late"


class Vote(BaseModel):
    yes: bool


async def test_a_stalled_hook_still_refuses_what_its_schema_refuses(open_engine: OpenEngine, plan: Plan) -> None:
    @workflow
    async def asks() -> Any:
        hook = create_hook(token="t", schema=Vote)
        first = await hook
        plan.bug()
        return [first.yes, (await hook).yes]

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        await engine.resume_hook("t", {"yes": True})
        await stalled(engine, run.id)
        with pytest.raises(InvalidPayloadError):
            await engine.resume_hook("t", {"yes": "perhaps"})
        await engine.resume_hook("t", {"yes": False})
        plan.is_broken = False
        await run.retry()
        assert await run.return_value() == [True, False]


async def test_a_stall_is_one_line_without_its_message(
    open_engine: OpenEngine, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def asks() -> None:
        hook = create_hook(token="t")
        while True:
            await hook
            plan.bug()

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        for payload in range(3):
            await engine.resume_hook("t", payload)
            await stalled(engine, run.id)
        await run.retry()
        await stalled(engine, run.id)
    (line,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    said = line.getMessage()
    assert said.startswith(f"run {run.id} of asks stalled: KeyError at tests/durable/engine/test_stalls.py:")
    assert "Ann" not in caplog.text


async def test_a_stall_with_the_same_code_does_not_spin(
    open_engine: OpenEngine, plan: Plan, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    @workflow
    async def asks() -> None:
        tries.append(1)
        plan.bug()

    monkeypatch.setattr("approvals_bot.durable.engine.stalled.STALLED", 0.01)
    async with open_engine() as engine:
        run = await engine.start(asks)
        await stalled(engine, run.id)
        few = 0
        while few < len(tries):
            few = len(tries)
            await asyncio.sleep(0.5)
        assert few <= 6  # inline, then the activation, each perhaps again by a retry of this process
        await clock.advance("1 day")
        await asyncio.sleep(0.5)
        assert len(tries) == few


async def test_another_process_s_retry_is_seen_by_the_service(
    open_engine: OpenEngine, database_url: str, plan: Plan
) -> None:
    @workflow
    async def asks() -> str:
        plan.bug()
        return "mended"

    async with open_engine() as engine:
        run = await engine.start(asks)
        await stalled(engine, run.id)
        command = Engine(await connect(database_url), clock=engine.clock)
        plan.is_broken = False
        try:
            await command.get_run(run.id).retry()
            async with asyncio.timeout(20):
                assert await run.return_value() == "mended"
        finally:
            await command.store.close()


@step(retries=1, retry_delay=0)
async def breaks() -> None:
    raise KeyError("a secret of Ann's")


@pytest.mark.parametrize("taken_up", ["inline", "later"])
async def test_what_fails_for_good_is_one_line_each(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture, taken_up: str
) -> None:
    @workflow
    async def charges() -> None:
        if taken_up == "inline":
            raise FatalError("a secret of Ann's")
        await breaks()

    async with open_engine() as engine:
        run = await engine.start(charges)
        with pytest.raises(RunFailedError):
            await run.return_value()
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    here = "at tests/durable/engine/test_stalls.py:"
    if taken_up == "later":
        assert lines[0].startswith(
            f"run {run.id} of charges: step breaks failed for good on attempt 2: KeyError {here}"
        )
    kind = {"inline": "FatalError", "later": "StepFailedError"}[taken_up]
    assert lines[-1].startswith(f"run {run.id} of charges failed: {kind} {here}")
    assert len(lines) == (1 if taken_up == "inline" else 2)
    assert "Ann" not in caplog.text


async def test_a_stall_that_a_step_led_to_names_step_and_attempt(
    open_engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def charges() -> None:
        try:
            await breaks()
        except Exception as error:
            raise AssertionError from error

    async with open_engine() as engine:
        run = await engine.start(charges)
        await stalled(engine, run.id)
    assert ", after step breaks failed on attempt 2. It goes on when" in caplog.records[-1].getMessage()


# ── retry and attempt ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_only_a_stalled_run_is_retried(open_engine: OpenEngine) -> None:
    @workflow
    async def asks() -> Any:
        return await create_hook(token="t")

    async with open_engine() as engine:
        run = await engine.start(asks)
        await engine.settle()
        for refused in (run.retry, run.attempt):
            with pytest.raises(RunNotStalledError, match="is running, not stalled"):
                await refused()
        before = await engine.record(run.id)
        await engine.resume_hook("t", 1)
        await run.return_value()
        for refused in (run.retry, run.attempt):
            with pytest.raises(RunEndedError, match="already ended"):
                await refused()
        for unknown in (engine.get_run("run_0").retry, engine.get_run("run_0").attempt):
            with pytest.raises(RunNotFoundError):
                await unknown()
    assert before is not None
    assert before.wake_at is None


@pytest.mark.parametrize("ended", ["failed", "cancelled"])
async def test_an_attempt_at_an_ended_run_is_one_new_run_with_its_input(
    open_engine: OpenEngine, plan: Plan, ended: str
) -> None:
    @workflow
    async def charges(amount: int, *, for_: str) -> Any:
        if ended == "cancelled" and plan.is_broken:
            await create_hook()
        if plan.is_broken:
            raise ValueError("not today")
        return [amount, for_]

    async with open_engine() as engine:
        first = await engine.start(charges, 5, for_="Ann", attributes={"order": "17"}, idempotency_key="17")
        await engine.settle()
        if ended == "cancelled":
            await first.cancel()
        assert await first.status() == ended
        plan.is_broken = False
        again = await first.attempt()
        assert await again.return_value() == [5, "Ann"]
        assert (await again.events())[0].data["attempt_of"] == first.id
        assert again.is_new
        repeated = await engine.attempt(first.id)
        assert (repeated.id, repeated.is_new) == (again.id, False)
        record = await engine.record(again.id)
        assert record is not None
        assert record.attributes == {"order": "17"}
        assert await first.status() == ended
        assert (await engine.start(charges, 5, for_="Ann", idempotency_key="17")).id == first.id
        with pytest.raises(RunEndedError):
            await again.attempt()


async def test_an_attempt_at_a_stalled_run_retries_it(
    open_engine: OpenEngine, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "approvals_bot.durable.runs")

    @workflow
    async def asks() -> str:
        plan.bug()
        return "mended"

    async with open_engine() as engine:
        run = await engine.start(asks)
        await stalled(engine, run.id)
        plan.is_broken = False
        again = await run.attempt()
        assert again.id == run.id
        assert await again.return_value() == "mended"
    assert [each.__dict__["event"] for each in caplog.records] == ["run_stalled", "run_resumed"]


async def test_an_attempt_on_code_that_needs_more_input_writes_nothing(open_engine: OpenEngine) -> None:
    def release(number: int) -> Any:
        async def first(amount: int) -> None:
            raise ValueError("not today")

        async def second(amount: int, currency: str) -> None: ...

        function: Any = {1: first, 2: second}[number]
        function.__qualname__ = "release.<locals>.charges"
        return workflow(name="charges")(function)

    async with open_engine() as engine:
        code = release(1)
        run = await engine.start(code, 5)
        await engine.settle()
        code = release(2)
        with pytest.raises(InvalidPayloadError, match="currency: today's code needs this"):
            await run.attempt()
        assert len((await engine.records()).records) == 1
    del code


# ── authors' serializers ──


class Priced(BaseModel):
    """A value whose serializer and validator have a bug, if the test says so."""

    bug: ClassVar[Any] = None  # a static method
    in_validator: ClassVar[bool] = False

    amount: int

    @field_serializer("amount")
    def _write(self, amount: int) -> int:
        if self.bug is not None and not self.in_validator:
            self.bug()
        return amount

    @field_validator("amount")
    @classmethod
    def _check(cls, amount: int) -> int:
        if cls.bug is not None and cls.in_validator:
            cls.bug()
        return amount


def no_key() -> None:
    raise KeyError("currency")


def no_attribute() -> None:
    raise AttributeError("currency")


def no_type() -> None:
    json.dumps(object())


def bad_value() -> None:
    raise ValueError("a price is more than 0")


@pytest.mark.parametrize("in_validator", [False, True])
@pytest.mark.parametrize("bug", [no_key, no_attribute, no_type])
@pytest.mark.parametrize("where", ["result", "input", "child"])
async def test_a_bug_of_a_serializer_stalls_the_run(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, where: str, bug: Callable[[], None], in_validator: bool
) -> None:
    @step
    async def serializer_prices(price: Priced) -> int:
        return price.amount

    @workflow(name="serializer_child")
    async def child(price: list[Priced]) -> int:
        return price[0].amount

    @workflow(name="serializer_parent")
    async def parent() -> Priced | int:
        price = Priced.model_construct(amount=3)
        match where:
            case "input":
                return await serializer_prices(price)
            case "child":
                return await run_child(child, [price])
            case _:
                return price

    monkeypatch.setattr(Priced, "bug", staticmethod(bug))
    monkeypatch.setattr(Priced, "in_validator", in_validator)
    async with open_engine() as engine:
        run = await engine.start(parent)
        record = await stalled(engine, run.id)
        assert record.stalled is not None
        monkeypatch.setattr(Priced, "bug", None)
        with suppress(RunNotStalledError):  # the engine may just have looked at all stalled runs
            await engine.retry(run.id)
        assert await run.return_value() == (Priced(amount=3) if where == "result" else 3)


async def test_what_a_serializer_refuses_fails_the_run(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def serializer_refuses() -> Priced:
        return Priced.model_construct(amount=0)

    monkeypatch.setattr(Priced, "bug", staticmethod(bad_value))
    async with open_engine() as engine:
        with pytest.raises(RunFailedError) as failed:
            await (await engine.start(serializer_refuses)).return_value()
    assert isinstance(failed.value.__cause__, SerializationError)


@pytest.mark.parametrize("in_validator", [False, True])
async def test_a_bug_of_a_serializer_of_a_steps_result_fails_the_step_once(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, in_validator: bool
) -> None:
    calls: list[int] = []

    @step
    async def serializer_of_step() -> Priced:
        calls.append(1)
        return Priced.model_construct(amount=3)

    @workflow
    async def serializer_in_step() -> str:
        try:
            await serializer_of_step()
        except StepFailedError as failed:
            return str(failed.__cause__)
        return "no error"

    monkeypatch.setattr(Priced, "bug", staticmethod(no_key))
    monkeypatch.setattr(Priced, "in_validator", in_validator)
    async with open_engine() as engine:
        assert "KeyError: 'currency'" in await (await engine.start(serializer_in_step)).return_value()
    assert calls == [1]
