"""Children: runs that a body starts, and whose results it awaits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot import (
    RunCancelledError,
    RunFailedError,
    create_hook,
    run_child,
    sleep,
    step,
    workflow,
)
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine


class TooDearError(Exception):
    """An author's own error."""

    def __init__(self, amount: int, *, limit: int) -> None:
        super().__init__(amount)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.args[0]} is over {self.limit}"


@step
async def double_of_child(amount: int) -> int:
    return amount * 2


@workflow(name="child: doubles")
async def doubles(amount: int) -> int:
    return await double_of_child(amount)


@workflow(name="child: asks")
async def asks(token: str) -> str:
    answer: str = await create_hook(token=token)
    return answer


@workflow(name="child: too dear")
async def too_dear(amount: int) -> int:
    error = TooDearError(amount, limit=100)
    error.add_note("ask the board")
    raise error from KeyError("budget")


@workflow(name="parent: one child")
async def one_child(amount: int) -> int:
    return 1 + await run_child(doubles, amount)


@pytest.mark.conformance(91)
async def test_a_parent_gets_the_result_of_its_child(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        run = await engine.start(one_child, 20)
        assert await run.return_value() == 41
        log = await run.events()
        started, ended = [event for event in log if event.type.startswith("child")]
        child = engine.get_run(started.data["run_id"])
        assert started.data == {
            "id": 1, "run_id": child.id, "workflow": "child: doubles", "input": {"amount": 20},
            "on_parent_close": "cancel",
        }  # fmt: skip
        assert ended.data == {"id": 1, "run_id": child.id, "status": "completed", "result": 40}
        record = await engine.record(child.id)
        assert record is not None
        assert tuple(record.parent or ()) == (run.id, 1, "cancel")
        assert (await child.events())[0].data["parent"] == {"run_id": run.id, "number": 1, "on_parent_close": "cancel"}
        assert await child.return_value() == 40


@pytest.mark.conformance(91)
async def test_a_parent_raises_what_its_child_raised(open_engine: OpenEngine) -> None:
    @workflow(name="parent: catches")
    async def catches() -> Any:
        try:
            return await run_child(too_dear, 420)
        except TooDearError as error:
            return [str(error), error.limit, error.__notes__, repr(error.__cause__)]

    async with open_engine() as engine:
        assert await (await engine.start(catches)).return_value() == [
            "420 is over 100", 100, ["ask the board"], "KeyError('budget')",
        ]  # fmt: skip


async def test_an_uncaught_error_of_a_child_fails_its_parent(open_engine: OpenEngine) -> None:
    @workflow(name="child: a lookup error on purpose", fails_on=(LookupError,))
    async def looks_up() -> None:
        raise LookupError("nobody")

    @workflow(name="parent: catches nothing")
    async def catches_nothing() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_child(looks_up))

    async with open_engine() as engine:
        run = await engine.start(catches_nothing)
        with pytest.raises(RunFailedError) as caught:
            await run.return_value()
        group = caught.value.__cause__
        assert isinstance(group, ExceptionGroup)
        assert [repr(error) for error in group.exceptions] == ["LookupError('nobody')"]


async def test_a_cancelled_child_raises_run_cancelled(open_engine: OpenEngine) -> None:
    @workflow(name="parent: of a cancelled one")
    async def of_cancelled() -> str:
        try:
            return await run_child(asks, "child-cancelled")
        except RunCancelledError as error:
            return f"{error.run_id} {error.reason}"

    async with open_engine() as engine:
        run = await engine.start(of_cancelled)
        hook = await until_hook(engine, "child-cancelled")
        await engine.get_run(hook.run_id).cancel("enough")
        assert await run.return_value() == f"{hook.run_id} enough"


async def until_hook(engine: Any, token: str) -> Any:
    async with asyncio.timeout(60):
        while (found := await engine.store.hook(token=token)) is None:
            await asyncio.sleep(0.02)
    return found


async def test_waiting_for_a_child_costs_nothing(open_engine: OpenEngine, clock: FakeClock) -> None:
    @workflow(name="child: sleeps for a month")
    async def sleeps() -> str:
        await sleep("30 days")
        return "awake"

    @workflow(name="parent: of a sleeper")
    async def of_sleeper() -> str:
        return await run_child(sleeps)

    async with open_engine() as engine:
        run = await engine.start(of_sleeper)
        await clock.advance(1)
        record = await engine.record(run.id)
        assert record is not None
        assert (record.status, record.wake_at) == ("running", None)
        assert not engine.scheduler._active
    async with open_engine() as engine:
        await clock.advance("31 days")
        assert await engine.get_run(run.id).return_value() == "awake"


async def test_many_children_of_one_gather(open_engine: OpenEngine) -> None:
    @workflow(name="parent: of many")
    async def of_many(count: int) -> int:
        return sum(await asyncio.gather(*(run_child(doubles, n) for n in range(count))))

    async with open_engine() as engine:
        run = await engine.start(of_many, 30)
        assert await run.return_value() == 870
        log = await run.events()
        assert [e.type for e in log].count("child_started") == [e.type for e in log].count("child_ended") == 30


async def test_children_nested_ten_deep(open_engine: OpenEngine) -> None:
    @workflow(name="child: nested")
    async def nested(depth: int) -> int:
        if depth == 10:
            raise TooDearError(depth, limit=9)
        return await run_child(nested, depth + 1)

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match="10 is over 9") as caught:
            await (await engine.start(nested, 0)).return_value()
        assert isinstance(caught.value.__cause__, TooDearError)


@pytest.mark.parametrize("option", ["at", "delay", "hook_token", "idempotency_key"])
async def test_a_child_refuses_the_options_of_start(open_engine: OpenEngine, option: str) -> None:
    @workflow(name=f"parent: gives {option}")
    async def gives() -> None:
        await run_child(doubles, 2, **{option: "1h"})

    async with open_engine() as engine:
        with pytest.raises(RunFailedError, match=f"no option {option}"):
            await (await engine.start(gives)).return_value()
