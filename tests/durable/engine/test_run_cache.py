"""The run cache: a cached run is resumed without reading it, and the store always has the last word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from approvals_bot import HookNotFoundError, InvalidPayloadError, create_hook, define_hook, step, workflow
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import Engine, cache
from approvals_bot.durable.store.protocol import Full, Received
from approvals_bot.errors import RunCancelledError, StoreUnavailableError
from approvals_bot.testing.fixtures import OpenEngine

SOON = 30  # seconds; far more than anything here takes


async def opened(engine: Engine, token: str) -> None:
    async with asyncio.timeout(SOON):
        while True:
            try:
                await engine.get_hook_by_token(token)
                return
            except HookNotFoundError:
                await asyncio.sleep(0.01)


def payloads_in(log: list[Event]) -> list[Any]:
    return [event.data["payload"] for event in log if event.type == "hook_received"]


@workflow
async def takes_three(token: str) -> list[Any]:
    hook = create_hook(token)
    return [await hook, await hook, await hook]


@step
async def shout(text: str) -> str:
    return text.upper()


async def test_resuming_a_cached_run_reads_neither_hook_nor_log(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as engine:
        looks, look = [], engine.store.look

        async def noted(*given: Any, **named: Any) -> Any:
            looks.append(named)
            return await look(*given, **named)

        monkeypatch.setattr(engine.store, "look", noted)
        run = await engine.start(takes_three, "t")
        for payload in (1, 2, 3):
            await opened(engine, "t")
            await engine.resume_hook("t", payload)
        assert await run.return_value() == [1, 2, 3]
        assert looks == []
        with pytest.raises(HookNotFoundError):
            await engine.resume_hook("t", 4)


async def test_writes_of_another_process_are_not_overlooked(open_engine: OpenEngine) -> None:
    async with open_engine() as one, open_engine() as two:
        run = await one.start(takes_three, "t")
        await opened(two, "t")
        await two.resume_hook("t", "first, at the other")
        await one.resume_hook("t", "second, where it is remembered")
        await two.resume_hook("t", "third, at the other")
        assert await run.return_value() == (
            ["first, at the other", "second, where it is remembered", "third, at the other"]
        )
        assert len(payloads_in(await one.events(run.id))) == 3


async def test_a_token_reused_by_another_run_resumes_that_one(open_engine: OpenEngine) -> None:
    @workflow
    async def takes_one(token: str) -> Any:
        async with create_hook(token) as hook:
            return await hook

    async with open_engine() as one, open_engine() as two:
        first = await one.start(takes_one, "shared")
        await opened(two, "shared")
        await two.resume_hook("shared", "for the first")
        assert await two.get_run(first.id).return_value() == "for the first"
        second = await two.start(takes_one, "shared")
        await opened(two, "shared")
        info = await one.resume_hook("shared", "for the second")  # where the first is remembered
        assert info.run_id == second.id
        assert await second.return_value() == "for the second"


async def test_an_invalid_payload_changes_nothing_and_is_dropped(open_engine: OpenEngine) -> None:
    class Amount(BaseModel):
        euros: int

    amounts = define_hook(Amount)

    @workflow
    async def takes_an_amount() -> int:
        amount: Amount = await amounts.create("amount")
        return amount.euros

    async with open_engine() as engine:
        run = await engine.start(takes_an_amount)
        await opened(engine, "amount")
        with pytest.raises(InvalidPayloadError):
            await engine.resume_hook("amount", {"euros": "many"})
        assert payloads_in(await run.events()) == []
        await engine.resume_hook("amount", {"euros": 5})
        assert await run.return_value() == 5


async def test_a_lost_answer_leaves_no_wrong_cache_entry(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine() as engine:
        run = await engine.start(takes_three, "t")
        await opened(engine, "t")
        receive: Callable[..., Awaitable[Received | Full | None]] = engine.store.receive

        async def never_reaches_it(*_: Any, **__: Any) -> Received | Full | None:
            raise StoreUnavailableError("the connection was lost on the way there")

        monkeypatch.setattr(engine.store, "receive", never_reaches_it)
        with pytest.raises(StoreUnavailableError):
            await engine.resume_hook("t", "said in vain")
        monkeypatch.setattr(engine.store, "receive", receive)
        for payload in (1, 2, 3):
            await engine.resume_hook("t", payload)
        assert await run.return_value() == [1, 2, 3]


async def test_only_the_latest_runs_stay_cached_and_others_are_closed(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    @workflow
    async def waits(token: str) -> Any:
        try:
            return await create_hook(token)
        finally:
            closed.append(token)

    monkeypatch.setattr(cache, "CACHED_RUNS", 2)
    async with open_engine() as engine:
        runs = []
        for token in ("a", "b", "c"):
            runs.append(await engine.start(waits, token))
            await opened(engine, token)
        assert "a" in closed
        assert [engine.scheduler.cache.by_token(token) is not None for token in ("a", "b", "c")] == [
            False,
            True,
            True,
        ]
        for token in ("a", "b", "c"):
            await engine.resume_hook(token, token)
        assert [await run.return_value() for run in runs] == ["a", "b", "c"]
    assert set(closed) == {"a", "b", "c"}


async def test_large_logs_leave_no_room_for_older_runs(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CACHED_SIZE", 100_000)
    async with open_engine() as engine:
        runs = [await engine.start(takes_three, token) for token in ("a", "b", "c")]
        for token in ("a", "b", "c"):
            await opened(engine, token)
            await engine.resume_hook(token, "x" * 40_000)
            await engine.settle()
        cached = [engine.scheduler.cache.by_token(token) is not None for token in ("a", "b", "c")]
        assert cached == [False, True, True]
        for token in ("a", "b", "c", "c", "b", "a"):
            await engine.resume_hook(token, token)
        assert [(await run.return_value())[1:] for run in runs] == [["a", "a"], ["b", "b"], ["c", "c"]]
        await engine.settle()
        assert engine.scheduler.cache._size == 0


async def test_a_run_with_a_large_log_is_not_cached_and_still_continues(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CACHED_SIZE", 100_000)
    async with open_engine() as engine:
        run = await engine.start(takes_three, "t")
        await opened(engine, "t")
        much = {"pages": ["x" * 1_000] * 150}
        await engine.resume_hook("t", much)
        assert engine.scheduler.cache.by_token("t") is None
        await engine.resume_hook("t", "little")
        await engine.resume_hook("t", "little again")
        assert await run.return_value() == [much, "little", "little again"]


async def test_a_cached_run_continues_with_the_code_registered_now(open_engine: OpenEngine) -> None:
    def release(says: str) -> Any:
        @workflow(name="says_how_it_went")
        async def says_how_it_went() -> str:
            return await shout(f"{says}: {await create_hook('how')}")

        return says_how_it_went

    first = release("old")
    async with open_engine() as engine:
        run = await engine.start(first)
        await opened(engine, "how")
        second = release("new")
        await engine.resume_hook("how", "well")
        assert await run.return_value() == "NEW: WELL"
        assert second is not first


async def test_a_caller_learns_that_another_process_has_ended_its_run(
    open_engine: OpenEngine,
) -> None:
    busy, go_on = asyncio.Event(), asyncio.Event()

    @step(retries=0)
    async def takes_its_time() -> None:
        busy.set()
        await go_on.wait()

    @workflow
    async def is_at_work() -> None:
        await takes_its_time()

    async with open_engine() as one, open_engine() as two:
        run = await one.start(is_at_work)
        await busy.wait()
        waiting = asyncio.create_task(run.return_value())
        await asyncio.sleep(0)
        await two.cancel(run.id, "no longer wanted")
        async with asyncio.timeout(SOON):
            with pytest.raises(RunCancelledError):
                await waiting
        go_on.set()


async def test_a_token_reused_by_another_run_is_checked_by_its_schema(open_engine: OpenEngine) -> None:
    class Amount(BaseModel):
        euros: int

    @workflow
    async def takes_anything(token: str) -> Any:
        async with create_hook(token) as hook:
            return await hook

    @workflow
    async def takes_euros(token: str) -> int:
        async with create_hook(token, schema=Amount) as hook:
            amount: Amount = await hook
            return amount.euros

    async with open_engine() as one, open_engine() as two:
        first = await one.start(takes_anything, "shared")
        await opened(two, "shared")
        await two.resume_hook("shared", "for the first")
        await two.get_run(first.id).return_value()
        second = await two.start(takes_euros, "shared")
        await opened(two, "shared")
        with pytest.raises(InvalidPayloadError):  # where the first is remembered, which took anything
            await one.resume_hook("shared", {"euros": "many"})
        assert payloads_in(await second.events()) == []
        await one.resume_hook("shared", {"euros": 5})
        assert await second.return_value() == 5


async def test_a_store_answer_after_the_engine_closed_starts_nothing(
    open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_written, is_closed = asyncio.Event(), asyncio.Event()

    @step
    async def after_it() -> None: ...

    @workflow
    async def resumed_at_the_end() -> None:
        await create_hook(token="at the end")
        await after_it()

    async with open_engine() as engine:
        await engine.start(resumed_at_the_end)
        await engine.settle()
        receive = engine.store.receive

        async def slow(*args: Any, **named: Any) -> Any:
            answer = await receive(*args, **named)
            is_written.set()
            await is_closed.wait()
            return answer

        monkeypatch.setattr(engine.store, "receive", slow)
        resuming = asyncio.create_task(engine.resume_hook("at the end", "now"))
        await is_written.wait()
    is_closed.set()
    await resuming
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("run ")]
