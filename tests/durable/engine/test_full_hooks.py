"""What strangers send is limited: payloads that nobody takes, and a run's payloads altogether."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot import (
    Engine,
    HookFullError,
    IdempotencyConflictError,
    InvalidArgumentError,
    WebhookRequest,
    create_hook,
    create_webhook,
    step,
    workflow,
)
from approvals_bot.durable.engine import cache
from approvals_bot.durable.store import postgres_encoding, protocol
from approvals_bot.durable.store.protocol import MAX_UNREAD
from approvals_bot.testing.fixtures import OpenEngine


async def received(engine: Engine, run_id: str) -> int:
    return [event.type for event in await engine.events(run_id)].count("hook_received")


async def fill(engine: Engine, token: str, count: int) -> int:
    """Send payloads one after the other. Returns how many were refused."""
    refused = 0
    for number in range(count):
        try:
            await engine.resume_hook(token, number)
        except HookFullError:
            refused += 1
    return refused


@pytest.fixture(params=["cached", "not cached"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "not cached":
        monkeypatch.setattr(cache, "CACHED_SIZE", 0)
    return str(request.param)


@pytest.mark.parametrize("most", [MAX_UNREAD, 3])
async def test_a_hook_keeps_so_many_payloads_that_nobody_takes(open_engine: OpenEngine, how: str, most: int) -> None:
    @workflow
    async def one_then_another() -> list[Any]:
        surplus, decision = create_hook("surplus"), create_hook("decision")
        first = await surplus
        return [first, await decision, await surplus]

    async with open_engine(**{} if most == MAX_UNREAD else {"max_waiting": most}) as engine:
        run = await engine.start(one_then_another)
        await engine.settle()
        assert await fill(engine, "surplus", 1 + most) == 0
        before = await run.events()
        for _ in range(2):
            with pytest.raises(HookFullError) as refused:
                await engine.resume_hook("surplus", "too many")
        assert (refused.value.run_id, refused.value.maximum) == (run.id, most)
        assert refused.value.limit == "unread payloads of a hook"
        assert await run.events() == before
        assert await run.status() == "running"
        await engine.resume_hook("decision", "yes")
        assert await run.return_value() == [0, "yes", 1]
    for odd in (0, 10_001, 3.0, True):
        with pytest.raises(InvalidArgumentError, match="max_waiting"):
            async with open_engine(max_waiting=odd):
                pass


async def test_a_repeat_is_answered_by_a_full_hook(open_engine: OpenEngine, how: str) -> None:
    @workflow
    async def takes_none() -> None:
        create_hook("surplus")
        await create_hook("other")

    async with open_engine() as engine:
        run = await engine.start(takes_none)
        await engine.settle()
        await engine.resume_hook("surplus", "first", resume_id="1")
        await fill(engine, "surplus", MAX_UNREAD)
        assert (await engine.resume_hook("surplus", "first", resume_id="1")).run_id == run.id
        with pytest.raises(IdempotencyConflictError):
            await engine.resume_hook("surplus", "second", resume_id="1")
        with pytest.raises(HookFullError):
            await engine.resume_hook("surplus", "first", resume_id="2")


async def test_payloads_that_are_taken_make_room(open_engine: OpenEngine, how: str) -> None:
    @step
    async def note(value: Any) -> Any:
        return value

    @workflow
    async def takes_all() -> int:
        taken = 0
        async for payload in create_hook("all"):
            taken += await note(1)
            if payload == "last":
                break
        return taken

    async with open_engine() as engine:
        run = await engine.start(takes_all)
        await engine.settle()
        for first in (0, MAX_UNREAD // 2, MAX_UNREAD):
            await asyncio.gather(*(engine.resume_hook("all", first + number) for number in range(MAX_UNREAD // 2)))
            await engine.settle()
        await engine.resume_hook("all", "last")
        assert await run.return_value() == 3 * (MAX_UNREAD // 2) + 1


async def test_a_stalled_run_keeps_a_hundred_payloads(open_engine: OpenEngine) -> None:
    @workflow
    async def drifts_with_payloads() -> Any:
        hook = create_hook("hook")
        await (asyncio.sleep(1) if is_drifting else create_hook("decision"))
        return [await hook, await hook]

    is_drifting = False
    async with open_engine() as engine:
        run = await engine.start(drifts_with_payloads)
        await engine.settle()
    is_drifting = True
    async with open_engine() as engine:
        await engine.resume_hook("decision", "yes")
        await engine.settle()
        assert await engine.get_run(run.id).status() == "stalled"
        assert await fill(engine, "hook", MAX_UNREAD + 5) == 5
        await engine.settle()
    is_drifting = False
    async with open_engine() as engine:
        assert await engine.get_run(run.id).return_value() == [0, 1]


async def test_surplus_calls_of_a_webhook_never_end_its_run(open_engine: OpenEngine, how: str) -> None:
    @workflow
    async def waits() -> str:
        webhook, decision = create_webhook(respond_with="manual"), create_hook(token="decision")
        await webhook
        return str(await decision)

    async with open_engine() as engine:
        run = await engine.start(waits)
        await engine.settle()
        token = next(e.data["token"] for e in await run.events() if e.type == "hook_created")
        calls = [engine.resume_webhook(token, WebhookRequest(), timeout=0) for _ in range(MAX_UNREAD + 50)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await engine.settle()
        assert await received(engine, run.id) <= MAX_UNREAD + 1
        assert sum(isinstance(answer, HookFullError) for answer in answers) >= 49
        await engine.resume_hook("decision", "yes")
        assert await run.return_value() == "yes"


async def test_a_runs_payloads_are_limited_altogether(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (protocol, postgres_encoding):
        monkeypatch.setattr(module, "MAX_RECEIVED", 10_000)

    @workflow
    async def takes_all() -> None:
        async for _ in create_hook("all"):
            pass

    async with open_engine() as engine:
        run = await engine.start(takes_all)
        await engine.settle()
        for _ in range(9):
            await engine.resume_hook("all", "x" * 1_000)
        before = await run.events()
        with pytest.raises(HookFullError, match="characters of payloads of a run are limited to 10,000"):
            await engine.resume_hook("all", "x" * 1_000)
        assert await run.events() == before
        await engine.resume_hook("all", "small")


async def test_callers_cannot_use_up_a_runs_events(open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (protocol, postgres_encoding):
        monkeypatch.setattr(module, "MAX_RECEIVING", 50)

    @workflow
    async def takes_all() -> str:
        try:
            async with asyncio.timeout(60):
                async for _ in create_hook("all"):
                    pass
        except TimeoutError:
            pass
        return "it goes on"

    async with open_engine() as engine:
        run = await engine.start(takes_all)
        await engine.settle()
        assert await fill(engine, "all", 60) > 10
        assert len(await run.events()) == 50
        assert await run.status() == "running"
