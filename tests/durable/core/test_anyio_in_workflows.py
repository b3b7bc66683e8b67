"""anyio in a workflow's body: what pydantic-ai, MCP, httpx2 and Starlette are written on works as asyncio does."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot import create_hook, step, workflow
from approvals_bot.durable.core.loop import AtOnce
from approvals_bot.errors import BlockedInWorkflowError
from approvals_bot.testing import History
from approvals_bot.testing.history import START

Begin = Callable[..., History]


@step
async def work(name: Any) -> Any:
    return name


def wait_of(run: History) -> int:
    over = {e.data["id"] for e in run.log if e.type in ("wait_completed", "wait_cancelled")}
    return next(int(e.data["id"]) for e in run.log if e.type == "wait_created" and e.data["id"] not in over)


def test_a_task_group_runs_steps_side_by_side(history: Begin) -> None:
    @workflow
    async def grouped() -> list[str]:
        got: list[str] = []

        async def one(name: str) -> None:
            got.append(await work(name))

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(one, name)
        return got

    run = history(grouped)
    assert run.decide() == ["step #1 'work'", "step #2 'work'", "step #3 'work'"]
    for number, result in {3: "C", 1: "A", 2: "B"}.items():
        run.complete(number, result)
    run.decide()
    assert run.result == ["C", "A", "B"]


def test_start_waits_until_the_task_says_it_has_started(history: Begin) -> None:
    @workflow
    async def serving() -> list[Any]:
        said: list[Any] = []

        async def serve(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            task_status.started(await work("ready"))
            said.append(await work("served"))

        async with anyio.create_task_group() as group:
            said.append(await group.start(serve))
        return said

    run = history(serving)
    run.decide()
    run.complete(1, "READY")
    run.decide()
    run.complete(2, "SERVED")
    run.decide()
    assert run.result == ["READY", "SERVED"]


def test_events_locks_semaphores_conditions_and_streams_work(history: Begin) -> None:
    @workflow
    async def primitives() -> list[Any]:
        said: list[Any] = []
        event, lock, semaphore, condition = anyio.Event(), anyio.Lock(), anyio.Semaphore(1), anyio.Condition()
        limiter = anyio.CapacityLimiter(1)
        send, receive = anyio.create_memory_object_stream[str](0)

        async def first() -> None:
            async with send, lock, semaphore, limiter:
                await send.send(await work("a"))
            event.set()
            async with condition:
                condition.notify_all()

        async def second() -> None:
            async with receive:
                async for each in receive:
                    said.append(each)

        async def third() -> None:
            await event.wait()
            async with lock, semaphore, limiter:
                said.append(await work("b"))

        async with anyio.create_task_group() as group:
            for each in (first, second, third):
                group.start_soon(each)
        await anyio.lowlevel.checkpoint()
        return said

    run = history(primitives)
    run.decide()
    run.complete(1, "A")
    run.decide()
    run.complete(2, "B")
    run.decide()
    assert run.result == ["A", "B"]


@pytest.mark.parametrize("how", ["move_on_after", "fail_after", "CancelScope"])
@pytest.mark.parametrize("is_late", [True, False])
def test_deadlines_of_scopes_are_durable_waits(history: Begin, how: str, is_late: bool) -> None:
    @workflow
    async def limited() -> Any:
        hook = create_hook(token="t")
        scopes: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
            "move_on_after": lambda: anyio.move_on_after(3600),
            "fail_after": lambda: anyio.fail_after(3600),
            "CancelScope": lambda: anyio.CancelScope(deadline=anyio.current_time() + 3600),
        }
        try:
            with scopes[how]():
                return await hook
        except TimeoutError:
            pass
        return ["late", await hook]

    run = history(limited)
    assert run.decide() == ["hook #1", "wait #2"]
    if is_late:
        run.fire(2)
        assert run.decide() == []
    run.receive(1, "yes")
    run.decide()
    assert run.result == (["late", "yes"] if is_late else "yes")


def test_a_cancelled_scope_may_clean_up_in_a_shielded_one(history: Begin) -> None:
    @workflow
    async def cleaning() -> list[Any]:
        said: list[Any] = []

        async def worker(name: str) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    said.append(await work(name))

        async with anyio.create_task_group() as group:
            for name in "ab":
                group.start_soon(worker, name)
            await create_hook(token="stop")
            group.cancel_scope.cancel()
        return said

    run = history(cleaning)
    run.decide()
    run.receive(1)
    assert run.decide() == ["step #2 'work'", "step #3 'work'"]
    run.complete(3, "B")
    run.complete(2, "A")
    run.decide()
    assert run.result == ["B", "A"]


def test_a_failed_task_cancels_its_group(history: Begin) -> None:
    @workflow
    async def failing() -> str:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(work, "a")
                group.start_soon(anyio.sleep, 3600)
        except ExceptionGroup as errors:
            return type(errors.exceptions[0]).__name__
        return "no error"

    run = history(failing)
    run.decide()
    run.fail(1, ValueError("no"))
    run.decide()
    assert run.result == "StepFailedError"


@settings(deadline=None)
@given(
    start=st.integers(0, 999_999),
    delay=st.floats(0.000_001, 90, allow_nan=False) | st.sampled_from([0.05, 0.1, 1 / 3, 3600]),
)
def test_a_deadline_has_passed_when_its_wait_is_over(start: int, delay: float) -> None:
    @workflow
    async def limited() -> str:
        with anyio.move_on_after(delay):
            await create_hook(token="t")
            return "in time"
        return "late"

    run = History(limited, start=START + timedelta(microseconds=start))
    run.decide()
    run.fire(wait_of(run))
    run.decide()
    assert run.result == "late", "one wait was enough"


def test_threads_of_anyio_are_refused(history: Begin) -> None:
    @workflow
    async def threaded() -> None:
        await anyio.to_thread.run_sync(print)

    run = history(threaded)
    run.decide()
    assert run.error["type"] == "BlockedInWorkflowError"


def test_functions_for_an_executor_may_run_at_once(history: Begin) -> None:
    @workflow
    async def pure() -> list[Any]:
        loop = asyncio.get_running_loop()
        said: list[Any] = [await loop.run_in_executor(AtOnce(), str.upper, "a")]
        try:
            await loop.run_in_executor(AtOnce(), int, "b")
        except ValueError as error:
            said.append(type(error).__name__)
        try:
            await loop.run_in_executor(None, str.upper, "c")
        except BlockedInWorkflowError as error:
            said.append("@step" in str(error))
        return said

    run = history(pure)
    run.decide()
    assert run.result == ["A", "ValueError", True]


QUIET = """
import asyncio, sys
import anyio
from approvals_bot import create_hook, sleep, step, workflow
from approvals_bot.testing import History

@step
async def work(name: str) -> str: return name

seen = []

async def everywhere(hook, name):
    with anyio.CancelScope(), anyio.move_on_after(600):
        async with asyncio.timeout(900), anyio.create_task_group() as group, asyncio.TaskGroup() as tasks:
            group.start_soon(waits, name)
            tasks.create_task(waits(name))
            try:
                await hook
            finally:
                seen.append(asyncio.current_task().get_name() == name)
                await work("in finally")
                await work("and once more")

async def waits(name):
    try:
        with anyio.fail_after(60):
            await anyio.sleep(3600)
    finally:
        with anyio.CancelScope(shield=True):
            await work(name)

async def pages():
    try:
        while True:
            yield await create_hook()
    finally:
        await work("closed")

async def reads():
    async for _ in pages():
        pass

@workflow
async def scoped():
    hook = create_hook(token="t")
    one = asyncio.create_task(everywhere(hook, "one"), name="one")
    async with anyio.create_task_group() as group:
        group.start_soon(everywhere, hook, "two", name="two")
        group.start_soon(reads)
        try:
            await one
        finally:
            asyncio.create_task(waits("born while it is thrown away"))

run = History(scoped)
print(sorted(run.decide()))
run.check_prefixes()
assert seen and all(seen), seen
"""


def test_a_run_that_is_thrown_away_says_nothing(tmp_path: Path) -> None:
    program = tmp_path / "quiet.py"
    program.write_text(QUIET)
    done = subprocess.run([sys.executable, "-X", "dev", str(program)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("hook #") == 2


def test_pure_questions_to_the_loop_are_answered(history: Begin) -> None:
    @workflow
    async def asking() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        assert loop is asyncio.get_event_loop()
        answers = [loop.get_task_factory(), loop.get_exception_handler(), loop.get_debug(), loop.is_running()]
        return [*answers, loop.is_closed(), loop.slow_callback_duration, loop.time() > 0]

    run = history(asking)
    run.decide()
    assert run.result == [None, None, False, True, False, 0.1, True]
