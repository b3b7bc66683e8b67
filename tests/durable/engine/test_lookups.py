"""Look-ups: steps that only read join the write that asks for them, and leave one event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from approvals_bot import (
    HookConflictError,
    StepFailedError,
    WebhookRequest,
    create_hook,
    create_webhook,
    now,
    resource,
    run_child,
    step,
    workflow,
)
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.replayer import INLINE_EVENTS
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

WHOLE = "step_completed"


class Register:
    """What the look-ups read, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.waits = self.fails = False

    async def read(self) -> str:
        self.asked += 1
        if self.waits:
            await asyncio.sleep(0)
        if self.fails:
            raise OSError("the register is closed")
        return f"answer {self.asked}"


@step(retries=0)
async def read_register(register: Register = resource(Register)) -> str:  # noqa: B008  # a marker
    return await register.read()


@step
async def act_on(answer: str) -> str:
    return answer


read_register.only_reads = True


@workflow
async def lookups_twice() -> list[str]:
    first = await read_register()
    hook = create_webhook()
    second = await read_register()
    await hook
    return [first, second, await act_on(await read_register())]


@workflow
async def lookups_beside_a_token(token: str) -> str:
    hook = create_hook(token=token)
    answer = await read_register()
    try:
        await hook
    except HookConflictError:
        return f"taken, {answer}"
    return answer


async def types(engine: Engine, run_id: str) -> list[str]:
    return [event.type for event in await engine.events(run_id)]


def opened(open_engine: OpenEngine) -> tuple[Register, Callable[[], Any]]:
    register = Register()
    return register, lambda: open_engine(resources=[register])


async def test_lookups_are_written_with_the_start_of_their_run(open_engine: OpenEngine) -> None:
    register, engine_with = opened(open_engine)
    async with engine_with() as engine:
        run = await engine.start(lookups_twice)
        assert await types(engine, run.id) == [
            "run_created",
            "run_started",
            WHOLE,
            "hook_created",
            WHOLE,
        ]
        assert register.asked == 2
        token = (await engine.events(run.id))[3].data["token"]
        await engine.resume_webhook(token, WebhookRequest())
        assert (await types(engine, run.id))[5:8] == ["hook_received", WHOLE, "step_created"]
        assert await run.return_value() == ["answer 1", "answer 2", "answer 3"]


@pytest.mark.parametrize("trouble", ["waits", "fails"])
async def test_a_lookup_that_waits_or_fails_is_an_ordinary_step(open_engine: OpenEngine, trouble: str) -> None:
    @workflow(name=f"lookup_that_{trouble}")
    async def once() -> str:
        try:
            return await read_register()
        except StepFailedError as error:
            return error.cause_message

    register, engine_with = opened(open_engine)
    setattr(register, trouble, True)
    async with engine_with() as engine:
        run = await engine.start(once)
        assert await run.return_value() == ("the register is closed" if trouble == "fails" else "answer 2")
        ends = "step_failed" if trouble == "fails" else "step_completed"
        assert (await types(engine, run.id))[2:] == ["step_created", "step_started", ends, "run_completed"]
        assert register.asked == 2


async def test_a_lookup_beside_a_taken_token_waits_for_the_write(open_engine: OpenEngine) -> None:
    _, engine_with = opened(open_engine)
    async with engine_with() as engine:
        first = await engine.start(lookups_beside_a_token, "one token")
        second = await engine.start(lookups_beside_a_token, "one token")
        assert await second.return_value() == "taken, answer 2"
        await engine.resume_hook("one token", None)
        assert await first.return_value() == "answer 1"


async def test_a_lookup_beside_an_effect_waits_for_the_write(open_engine: OpenEngine) -> None:
    seen: list[int] = []

    @step
    async def effect_beside_lookup() -> None:
        seen.append(register.asked)

    @workflow
    async def lookup_and_effect() -> str:
        found, _ = await asyncio.gather(read_register(), effect_beside_lookup())
        return found

    register, engine_with = opened(open_engine)
    async with engine_with() as engine:
        run = await engine.start(lookup_and_effect)
        assert await run.return_value() == "answer 1"
        assert (await types(engine, run.id)).count("step_started") == 2
        assert seen


async def test_a_lookup_beside_a_child_loses_no_child(open_engine: OpenEngine) -> None:
    @workflow
    async def child_beside_lookup() -> str:
        return "child"

    @workflow
    async def parent_with_lookup() -> list[str]:
        return [*await asyncio.gather(run_child(child_beside_lookup), read_register())]

    _, engine_with = opened(open_engine)
    async with engine_with() as engine:
        run = await engine.start(parent_with_lookup)
        assert await asyncio.wait_for(run.return_value(), 60) == ["child", "answer 1"]


async def test_lookups_see_the_time_of_their_run(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow
    async def times_around_a_lookup() -> bool:
        before = now()
        await read_register()
        return before == now() == clock.now()

    _, engine_with = opened(open_engine)
    async with engine_with() as engine:
        assert await (await engine.start(times_around_a_lookup)).return_value() is True


async def test_lookups_too_many_for_one_replay_leave_one_event_each(open_engine: OpenEngine) -> None:
    @workflow
    async def lookups_in_plenty(count: int) -> list[str]:
        return list(await asyncio.gather(*(read_register() for _ in range(count))))

    register, engine_with = opened(open_engine)
    async with engine_with() as engine:
        run = await engine.start(lookups_in_plenty, INLINE_EVENTS + 1)
        assert len(set(await run.return_value())) == INLINE_EVENTS + 1
        assert await types(engine, run.id) == [
            "run_created",
            "run_started",
            *[WHOLE] * (INLINE_EVENTS + 1),
            "run_completed",
        ]
        assert register.asked == INLINE_EVENTS + 1
