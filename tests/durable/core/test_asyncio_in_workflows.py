"""Plain asyncio on the workflow loop, which only the log advances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from approvals_bot import FatalError, StepFailedError, create_hook, now, sleep, step, workflow
from approvals_bot.testing import History

Begin = Callable[..., History]


@step
async def work(name: str) -> str:
    return name


def complete_all(history: History, results: dict[int, Any]) -> None:
    for number, result in results.items():
        history.complete(number, result)


@pytest.mark.conformance(106)
def test_gather_returns_results_in_the_order_of_its_arguments(history: Begin) -> None:
    @workflow
    async def together() -> list[str]:
        return list(await asyncio.gather(work("a"), work("b"), work("c")))

    run = history(together)
    assert run.decide() == ["step #1 'work'", "step #2 'work'", "step #3 'work'"]
    complete_all(run, {3: "C", 1: "A", 2: "B"})
    run.decide()
    assert run.result == ["A", "B", "C"]


def test_nested_task_groups_wait_for_all(history: Begin) -> None:
    @workflow
    async def nested() -> str:
        async with asyncio.TaskGroup() as outer:
            first = outer.create_task(work("a"))
            async with asyncio.TaskGroup() as inner:
                second = inner.create_task(work("b"))
        return first.result() + second.result()

    run = history(nested)
    run.decide()
    run.complete(1, "A")
    assert run.decide() == []
    run.complete(2, "B")
    run.decide()
    assert run.result == "AB"


def test_a_failed_task_cancels_its_group_and_raises_a_group(history: Begin) -> None:
    @workflow
    async def fails() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work("a"))
                group.create_task(asyncio.sleep(3600))
        except ExceptionGroup as errors:
            return f"{len(errors.exceptions)}"
        return "no error"

    run = history(fails)
    assert run.decide() == ["step #1 'work'", "wait #2"]
    run.fail(1, ValueError("no"))
    assert run.decide() == ["run_completed"] or run.types[-2:] == ["wait_cancelled", "run_completed"]
    assert run.result == "1"


def test_a_timeout_is_a_durable_wait_that_is_cancelled_if_unneeded(history: Begin) -> None:
    @workflow
    async def limited() -> str:
        async with asyncio.timeout(60):
            await work("a")
        await work("b")
        return "in time"

    run = history(limited)
    assert run.decide() == ["wait #1", "step #2 'work'"]
    run.complete(2, "done")
    assert run.decide() == ["the end of wait #1", "step #3 'work'"]
    run.complete(3, "done")
    run.decide()
    assert run.result == "in time"


def test_a_timeout_that_fires_cancels_its_block(history: Begin) -> None:
    @workflow
    async def limited() -> str:
        try:
            async with asyncio.timeout(60):
                await create_hook(token="t")
        except TimeoutError:
            return "late"
        return "in time"

    run = history(limited)
    run.decide()
    run.fire(1)
    run.decide()
    assert run.result == "late"


@pytest.mark.parametrize(("fires", "expected"), [(True, "late"), (False, "yes")])
def test_wait_for_a_hook(history: Begin, fires: bool, expected: str) -> None:
    @workflow
    async def waits() -> Any:
        try:
            return await asyncio.wait_for(create_hook(token="t"), 60)
        except TimeoutError:
            return "late"

    run = history(waits)
    assert sorted(run.decide()) == ["hook #1", "wait #2"]
    if fires:
        run.fire(2)
    else:
        run.receive(1, "yes")
    run.decide()
    assert run.result == expected


def test_a_shielded_step_can_be_awaited_after_a_timeout(history: Begin) -> None:
    @workflow
    async def shielded() -> str:
        task = asyncio.ensure_future(work("a"))
        try:
            await asyncio.wait_for(asyncio.shield(task), 60)
        except TimeoutError:
            return "later: " + await task
        return "at once"

    run = history(shielded)
    run.decide()
    wait = next(e.data["id"] for e in run.log if e.type == "wait_created")
    run.fire(wait)
    assert run.decide() == []
    run.complete(next(e.data["id"] for e in run.log if e.type == "step_created"), "A")
    run.decide()
    assert run.result == "later: A"


@pytest.mark.conformance(107)
def test_asyncio_wait_returns_the_first_and_leaves_the_rest(history: Begin) -> None:
    @workflow
    async def first() -> tuple[str, int]:
        tasks = [asyncio.create_task(work(name)) for name in "abc"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result(), len(pending)

    run = history(first)
    run.decide()
    run.complete(2, "B")
    run.decide()
    assert run.result == ("B", 2)
    run.check_prefixes()


def test_as_completed_yields_results_as_they_arrive(history: Begin) -> None:
    @workflow
    async def racing() -> list[str]:
        return [await next_one for next_one in asyncio.as_completed([work("a"), work("b"), work("c")])]

    run = history(racing)
    run.decide()
    assert [e.data["input"]["name"] for e in run.log if e.type == "step_created"] == ["a", "b", "c"]
    complete_all(run, {3: "C", 1: "A", 2: "B"})
    run.decide()
    assert run.result == ["C", "A", "B"]


def test_a_queue_feeds_workers_in_order(history: Begin) -> None:
    @workflow
    async def workers() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
        done: list[str] = []

        async def worker() -> None:
            while True:
                done.append(await work(await queue.get()))
                queue.task_done()

        crew = [asyncio.create_task(worker()) for _ in range(2)]
        for name in "abcd":
            await queue.put(name)
        await queue.join()
        for each in crew:
            each.cancel()
        return done

    run = history(workers)
    assert run.decide() == ["step #1 'work'", "step #2 'work'"]
    run.complete(2, "second")
    assert run.decide() == ["step #3 'work'"]
    complete_all(run, {1: "first", 3: "third"})
    assert run.decide() == ["step #4 'work'"]
    run.complete(4, "fourth")
    run.decide()
    assert run.result == ["second", "first", "third", "fourth"]


def test_event_lock_semaphore_condition_and_barrier_work_as_written(history: Begin) -> None:
    @workflow
    async def primitives() -> list[str]:
        said: list[str] = []
        event, lock, semaphore = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(1)
        condition, barrier = asyncio.Condition(), asyncio.Barrier(2)

        async def first() -> None:
            async with lock, semaphore:
                said.append(await work("holds the lock"))
            event.set()
            async with condition:
                condition.notify_all()
            await barrier.wait()

        async def second() -> None:
            async with condition:
                await condition.wait()
            await event.wait()
            async with lock, semaphore:
                said.append(await work("has it next"))
            await barrier.wait()

        await asyncio.gather(first(), second())
        return said

    run = history(primitives)
    run.decide()
    run.complete(1, "one")
    run.decide()
    run.complete(2, "two")
    run.decide()
    assert run.result == ["one", "two"]


def test_async_generators_and_their_finally_run_on_the_workflow_loop(history: Begin) -> None:
    @workflow
    async def generating() -> list[str]:
        said: list[str] = []

        async def numbers() -> AsyncIterator[str]:
            try:
                for name in "abc":
                    yield await work(name)
            finally:
                said.append("closed")

        async for each in numbers():
            said.append(each)
            if each == "B":
                break
        await work("after")
        return said

    run = history(generating)
    run.decide()
    run.complete(1, "A")
    run.decide()
    run.complete(2, "B")
    run.decide()
    run.complete(3, "done")
    run.decide()
    assert run.result == ["A", "B", "closed"]


def test_a_callback_that_raises_fails_the_run(history: Begin) -> None:
    @workflow
    async def breaks() -> None:
        def boom() -> None:
            raise ValueError("in a callback")

        asyncio.get_running_loop().call_soon(boom)
        await sleep(10)

    run = history(breaks)
    run.decide()
    assert run.error["type"] == "ValueError"


@pytest.mark.parametrize("leaves", [SystemExit, KeyboardInterrupt])
def test_a_body_that_leaves_the_process_ends_only_its_run(history: Begin, leaves: type[BaseException]) -> None:
    @workflow
    async def leaving(nested: bool) -> None:
        async def leave() -> None:
            raise leaves("bye")

        await (asyncio.create_task(leave()) if nested else leave())

    for nested in (True, False):
        run = history(leaving, nested)
        run.decide()
        assert run.error["type"] == leaves.__name__


def test_a_suspended_run_is_dropped_without_running_except_clauses(
    history: Begin,
) -> None:
    seen: list[str] = []

    @workflow
    async def guarded() -> None:
        hook = create_hook(token="t")
        try:
            await hook
        except Exception:  # noqa: BLE001  # authors write this
            seen.append("except Exception")
        except asyncio.CancelledError:
            seen.append("except CancelledError")
        finally:
            seen.append("finally")
            hook.dispose()
            await work("in finally")

    run = history(guarded)
    assert run.decide() == ["hook #1"]
    assert seen == ["finally"]


@pytest.mark.conformance(121)
def test_suspension_cannot_be_swallowed(history: Begin) -> None:
    @workflow
    async def greedy() -> str:
        while True:
            try:
                return str(await create_hook())
            except Exception:  # noqa: BLE001  # authors write this
                return "swallowed"

    run = history(greedy)
    assert run.decide() == ["hook #1"]
    run.receive(1, "payload")
    run.decide()
    assert run.result == "payload"


def test_time_moves_only_with_events_and_never_goes_back(history: Begin) -> None:
    @workflow
    async def clocked() -> list[float]:
        times = [now()]
        await work("a")
        times.append(now())
        await sleep("1h")
        times += [now(), now()]
        return [(t - times[0]).total_seconds() for t in times]

    run = history(clocked)
    run.decide()
    run.advance(5)
    run.complete(1, "done")
    run.decide()
    run.fire(2)
    run.decide()
    assert run.result == [0, 5, 3605, 3605]


def test_a_timeout_counts_from_when_it_is_recorded(history: Begin) -> None:
    @workflow
    async def patient() -> Any:
        async with asyncio.timeout(60):
            return await create_hook(token="t")

    run = history(patient)
    run.advance("10 minutes")  # the process was down
    run.decide()
    assert (run.due(1) - run.now).total_seconds() == 60


@pytest.mark.conformance(119)
def test_completions_out_of_call_order_continue_in_log_order(history: Begin) -> None:
    @workflow
    async def racing() -> list[str]:
        order: list[str] = []

        async def one(name: str) -> None:
            order.append(await work(name))

        await asyncio.gather(*(one(name) for name in "abcde"))
        return order

    run = history(racing)
    run.decide()
    complete_all(run, {4: "D", 1: "A", 5: "E", 3: "C", 2: "B"})
    run.decide()
    assert run.result == ["D", "A", "E", "C", "B"]


@pytest.mark.conformance(109)
def test_repeated_races_deliver_everything_in_log_order(history: Begin) -> None:
    @workflow
    async def stress() -> list[str]:
        left = {asyncio.create_task(work(name)) for name in "abcde"}
        order: list[str] = []
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            order += [task.result() for task in done]
        return order

    run = history(stress)
    run.decide()
    for number, result in {4: "D", 1: "A", 5: "E", 3: "C", 2: "B"}.items():
        run.complete(number, result)
        run.decide()
    assert run.result == ["D", "A", "E", "C", "B"]


@pytest.mark.conformance(108)
def test_the_first_success_wins_over_a_fatal_failure(history: Begin) -> None:
    @workflow
    async def any_of() -> str:
        for each in asyncio.as_completed([work("a"), work("b")]):
            try:
                return await each
            except FatalError:
                continue
        return "none"

    run = history(any_of)
    run.decide()
    run.fail(1, FatalError("never"))
    assert run.decide() == []
    run.complete(2, "B")
    run.decide()
    assert run.result == "B"


@pytest.mark.conformance(108)
def test_one_failure_raises_and_the_others_still_finish(history: Begin) -> None:
    @workflow
    async def partly() -> str:
        tasks = [asyncio.create_task(work(name)) for name in "ab"]
        try:
            await asyncio.gather(*tasks)
        except StepFailedError as error:
            return f"{type(error).__name__}, then {await tasks[1]}"
        return "no error"

    run = history(partly)
    run.decide()
    run.fail(1, ValueError("no"))
    assert run.decide() == []
    run.complete(2, "B")
    run.decide()
    assert run.result == "StepFailedError, then B"
