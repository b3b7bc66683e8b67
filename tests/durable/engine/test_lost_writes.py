"""Writes that fail or whose answers are lost, and owners that write too late."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot import Engine, StoreUnavailableError, create_hook, step, workflow
from approvals_bot.durable.engine import activation
from approvals_bot.durable.engine.limits import LEASE
from approvals_bot.durable.store.protocol import Append, OpenStore
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

calls: list[str] = []


@step(retries=0)
async def once(name: str) -> str:
    calls.append(name)
    return name


@workflow(name="one step")
async def one_step() -> str:
    return await once("it")


def refuse_outcomes(engine: Engine, monkeypatch: pytest.MonkeyPatch, times: float) -> list[Append]:
    """Fail that many writes of a step's outcome as if the disk were full. Returns what was refused."""
    refused: list[Append] = []
    store: OpenStore = engine.store
    append = store.append

    async def failing(batch: Append) -> Any:
        if any(e.type == "step_completed" for e in batch.events) and len(refused) < times:
            refused.append(batch)
            raise StoreUnavailableError("disk full (planted)")
        return await append(batch)

    monkeypatch.setattr(store, "append", failing)
    return refused


@pytest.mark.conformance(86)
async def test_an_unwritten_outcome_is_written_later_without_a_second_run(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls.clear()
    monkeypatch.setattr(activation, "RETRY_STORE", 0.01)
    async with open_engine() as engine:
        refused = refuse_outcomes(engine, monkeypatch, times=3)
        run = await engine.start(one_step)
        assert await run.return_value() == "it"
    assert len(refused) == 3
    assert calls == ["it"]
    assert caplog.text.count("the store is unavailable") == 1


@pytest.mark.conformance(86)
async def test_a_step_whose_outcome_was_lost_runs_again(
    open_engine: OpenEngine, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    monkeypatch.setattr("approvals_bot.durable.engine.scheduler.CLOSING", 0.05)
    async with open_engine() as engine:
        refused = refuse_outcomes(engine, monkeypatch, times=float("inf"))
        run = await engine.start(one_step)
        while not refused:
            await asyncio.sleep(0.001)
    async with open_engine() as engine:
        await clock.advance(LEASE)  # on PostgreSQL, others might be at work still; a SQLite file has one owner
        assert await engine.get_run(run.id).return_value() == "it"
        assert not any(e.type in ("step_failed", "step_retrying") for e in await engine.events(run.id))
    assert calls == ["it", "it"]


@pytest.mark.conformance(87)
async def test_an_owner_past_its_lease_is_fenced_and_writes_nothing(open_engine: OpenEngine, clock: FakeClock) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @step
    async def slow() -> str:
        ran.append(len(ran))
        if len(ran) == 1:
            began.set()
            await may_end.wait()
            return "from the owner that stalled"
        return "from the one that took over"

    @workflow
    async def waits() -> str:
        return await slow()

    async with open_engine() as stalled, open_engine(clock=FakeClock(clock.now() + timedelta(hours=1))) as other:
        run = await stalled.start(waits)
        await began.wait()
        assert await other.get_run(run.id).return_value() == "from the one that took over"
        before = await other.events(run.id)
        may_end.set()
        await stalled.settle()
        assert await stalled.events(run.id) == before
    assert ran == [0, 1]


@pytest.mark.conformance(89)
async def test_another_wake_does_not_run_a_retry_before_it_is_due(open_engine: OpenEngine, clock: FakeClock) -> None:
    tried: list[int] = []

    @step(retry_delay="1h", jitter=False)
    async def busy() -> str:
        tried.append(1)
        if len(tried) == 1:
            raise ValueError("busy")
        return "done"

    @workflow
    async def both() -> list[Any]:
        hook = create_hook(token="t")
        task = asyncio.create_task(busy())
        return [await hook, await task]

    async with open_engine() as engine:
        run = await engine.start(both)
        await engine.settle()
        await engine.resume_hook("t", "early")
        await clock.advance("59m")
        assert len(tried) == 1
        await clock.advance("1m")
        assert await run.return_value() == ["early", "done"]


@pytest.mark.conformance(125)
async def test_a_log_has_no_gaps_under_concurrent_writes(open_engine: OpenEngine) -> None:
    @workflow
    async def counts() -> int:
        hook, taken = create_hook(token="t"), 0
        while taken < 30:
            await hook
            taken += 1
            if taken % 10 == 0:
                await once(str(taken))
        return taken

    async with open_engine() as engine:
        run = await engine.start(counts)
        await engine.settle()
        await asyncio.gather(*(engine.resume_hook("t", n) for n in range(30)))
        assert await run.return_value() == 30
        events = await engine.events(run.id)
        assert [e.seq for e in events] == list(range(1, len(events) + 1))


@pytest.mark.conformance(139)
async def test_a_start_whose_answer_was_lost_runs_once(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    calls.clear()
    async with open_engine() as engine:
        create = engine.store.create

        async def loses_its_answer(*given: Any, **named: Any) -> Any:
            await create(*given, **named)
            raise StoreUnavailableError("the connection was cut (planted)")

        monkeypatch.setattr(engine.store, "create", loses_its_answer)
        with pytest.raises(StoreUnavailableError):
            await engine.start(one_step, idempotency_key="one")
        monkeypatch.setattr(engine.store, "create", create)
        run = await engine.start(one_step, idempotency_key="one")
        assert not run.is_new
        await clock.advance(LEASE)  # this process may hold a claim that it doesn't know of
        assert await run.return_value() == "it"
    assert calls == ["it"]


@pytest.mark.parametrize("write", ["create", "receive"])
async def test_a_caller_cancelled_in_mid_write_does_not_block_its_run(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    @step
    async def note(text: str) -> str:
        return text

    @workflow
    async def returns_its_payload() -> Any:
        return await note(await create_hook("t"))

    async with open_engine() as engine:
        written, answer, original = asyncio.Event(), asyncio.Event(), getattr(engine.store, write)

        async def slowly_answered(*given: Any, **named: Any) -> Any:
            result = await original(*given, **named)
            written.set()
            await answer.wait()
            return result

        async def impatiently(call: Any) -> None:
            monkeypatch.setattr(engine.store, write, slowly_answered)
            caller = asyncio.ensure_future(call)
            await written.wait()
            caller.cancel()
            monkeypatch.setattr(engine.store, write, original)
            answer.set()
            with pytest.raises(asyncio.CancelledError):
                await caller

        async with asyncio.timeout(30):  # on a clock that doesn't move, so no lease ever ends
            if write == "create":
                await impatiently(engine.start(returns_its_payload, idempotency_key="one"))
                run = await engine.start(returns_its_payload, idempotency_key="one")
                await engine.settle()
                await engine.resume_hook("t", "said")
            else:
                run = await engine.start(returns_its_payload)
                await engine.settle()
                await impatiently(engine.resume_hook("t", "said"))
            assert await run.return_value() == "said"


async def test_a_step_that_ends_while_the_store_is_away_is_recorded(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wake-up makes the activation read the log; the step ends meanwhile, and both reads fail."""
    began, may_end = asyncio.Event(), asyncio.Event()

    @step
    async def ends_while_the_store_is_away() -> str:
        began.set()
        await may_end.wait()
        return "done"

    @workflow
    async def waits_for_the_store() -> str:
        return await ends_while_the_store_is_away()

    async with open_engine() as engine:
        run = await engine.start(waits_for_the_store)
        await began.wait()
        await engine.settle()
        failures = [0, 0]
        read = engine.store.read

        async def away(run_id: str, after: int = 0, **options: Any) -> Any:
            if run_id == run.id and 0 < after < 100 and failures:  # as activations read, which have the beginning
                failures.pop()
                may_end.set()
                raise StoreUnavailableError("the store is away (planted)")
            return await read(run_id, after, **options)

        monkeypatch.setattr(engine.store, "read", away)
        engine.scheduler.wake(run.id)  # as a write by another process does
        async with asyncio.timeout(60):
            while (await engine.record(run.id)).status != "completed":  # type: ignore[union-attr]
                await asyncio.sleep(0.05)
        assert failures == []


async def test_looking_for_work_says_once_that_the_store_is_away(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        tried = 0

        async def away(*args: Any, **options: Any) -> Any:
            nonlocal tried
            tried += 1
            raise StoreUnavailableError("the store is away (planted)")

        with monkeypatch.context() as patch:
            patch.setattr(engine.store, "next_wake", away)
            async with asyncio.timeout(60):
                while tried < 4:
                    engine.scheduler.look_again()
                    await asyncio.sleep(0.05)
    assert caplog.text.count("the store is unavailable, trying again: the store is away (planted)") == 1
