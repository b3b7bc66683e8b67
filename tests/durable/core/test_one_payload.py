"""One payload is one answer: each appearance of a hook takes its own, whatever asyncio makes of duplicates."""

from __future__ import annotations

import asyncio
import inspect
import threading
from asyncio import as_completed, gather  # as authors' files have them, long before an engine opens
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot import Hook, WebhookRequest, create_hook, create_webhook, sleep, step, workflow
from approvals_bot.durable.core import sandbox
from approvals_bot.testing import History

Begin = Callable[..., History]


@step
async def work(name: str) -> str:
    return name


async def by_gather(hook: Hook[Any]) -> list[Any]:
    return list(await gather(hook, hook))


async def by_the_module(hook: Hook[Any]) -> list[Any]:
    return list(await asyncio.gather(*[hook] * 2))


async def without_exceptions(hook: Hook[Any]) -> list[Any]:
    return list(await gather(hook, hook, return_exceptions=True))


async def by_as_completed(hook: Hook[Any]) -> list[Any]:
    return [await each for each in as_completed([hook, hook])]


async def by_a_late_as_completed(hook: Hook[Any]) -> list[Any]:
    return [await each for each in asyncio.as_completed((hook, hook), timeout=3600)]


async def by_wait(hook: Hook[Any]) -> list[Any]:
    done, _ = await asyncio.wait({asyncio.ensure_future(hook), asyncio.ensure_future(hook)})
    return sorted(task.result() for task in done)


async def by_wait_for(hook: Hook[Any]) -> list[Any]:
    return list(await gather(asyncio.wait_for(hook, 3600), asyncio.wait_for(hook, 3600)))


async def by_shield(hook: Hook[Any]) -> list[Any]:
    return list(await gather(asyncio.shield(hook), asyncio.shield(hook)))


async def by_a_task_group(hook: Hook[Any]) -> list[Any]:
    async def take() -> Any:
        return await hook

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(take()) for _ in range(2)]
    return [task.result() for task in tasks]


async def by_two_iterations(hook: Hook[Any]) -> list[Any]:
    async def first() -> Any:
        async for payload in hook:
            return payload
        return None

    async def second() -> Any:
        return await hook

    return list(await gather(first(), second()))


async def by_nested_gathers(hook: Hook[Any]) -> list[Any]:
    both = await gather(gather(hook), gather(hook))
    return [payload for each in both for payload in each]


WAYS: list[Callable[[Hook[Any]], Coroutine[Any, Any, list[Any]]]] = [
    by_gather, by_the_module, without_exceptions, by_as_completed, by_a_late_as_completed, by_wait, by_wait_for,
    by_shield, by_a_task_group, by_two_iterations, by_nested_gathers,
]  # fmt: skip


@pytest.mark.conformance(13)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_hook_awaited_twice_at_once_takes_two_payloads(history: Begin, way: Any) -> None:
    @workflow
    async def four_eyes() -> list[Any]:
        return list(await way(create_hook(token="votes")))

    run = history(four_eyes)
    hook = next(int(words.removeprefix("hook #")) for words in run.decide() if words.startswith("hook"))
    run.receive(hook, "Ann")
    run.decide()
    assert run.log[-1].type not in ("run_completed", "run_failed"), "one click is one vote"
    run.receive(hook, "Bo")
    run.decide()
    assert run.result == ["Ann", "Bo"]


@pytest.mark.conformance(13)
def test_a_webhook_gathered_twice_takes_two_requests(history: Begin) -> None:
    @workflow
    async def both() -> list[str]:
        webhook = create_webhook()
        return [await request.text() for request in await gather(webhook, webhook)]

    run = history(both)
    run.decide()
    run.receive(1, WebhookRequest(body=b"a"))
    assert run.decide() == []
    run.receive(1, WebhookRequest(body=b"b"))
    run.decide()
    assert run.result == ["a", "b"]


@settings(deadline=None)
@given(st.data())
def test_every_payload_goes_to_exactly_one_appearance(data: st.DataObject) -> None:
    """Appearances of two hooks in any order, some cancelled; payloads in any order: none is lost, none counts twice."""
    places = data.draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=8))
    is_cancelled = data.draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
    by_completion = data.draw(st.booleans())

    @workflow
    async def many() -> list[Any]:
        hooks = {name: create_hook(token=name) for name in "ab"}
        go = create_hook(token="go")
        losers = [asyncio.ensure_future(hooks[name]) for name, lost in zip(places, is_cancelled, strict=True) if lost]
        await go
        for loser in losers:
            loser.cancel()
        if by_completion:
            return [await each for each in as_completed([hooks[name] for name in places])]
        return list(await gather(*(hooks[name] for name in places)))

    run = History(many)
    run.decide()
    numbers = {"a": 1, "b": 2}
    sent: dict[str, list[str]] = {"a": [], "b": []}
    before = data.draw(st.integers(0, 2))
    order = data.draw(st.permutations(places))
    for number, name in enumerate(order):
        if number == before:
            run.receive(3)
            run.decide()
        sent[name].append(f"{name}{number}")
        run.receive(numbers[name], sent[name][-1])
        if run.log[-1].seq % 2:
            run.decide()
        assert "run_completed" not in run.types or number == len(order) - 1
    if before >= len(order):
        run.receive(3)
    run.decide()
    taken_by_losers = {
        name: min(
            sum(lost for place, lost in zip(places, is_cancelled, strict=True) if place == name),
            sum(each == name for each in order[:before]),
        )
        for name in "ab"
    }
    for name, taken in taken_by_losers.items():  # a payload that arrived before its waiter was cancelled was taken
        for each in range(taken):
            sent[name].append(f"{name} again {each}")
            run.receive(numbers[name], sent[name][-1])
    run.decide()
    run.check_prefixes()
    expected = {name: sent[name][taken_by_losers[name] :] for name in "ab"}
    if by_completion:
        assert sorted(run.result) == sorted(expected["a"] + expected["b"])
    else:
        taking = {name: iter(payloads) for name, payloads in expected.items()}
        assert run.result == [next(taking[name]) for name in places]


def test_a_cancelled_appearance_swallows_no_payload(history: Begin) -> None:
    @workflow
    async def patient() -> list[Any]:
        hook = create_hook(token="t")
        both = gather(hook, hook)
        with suppress(TimeoutError):
            await asyncio.wait_for(both, 60)
        return [await hook, await hook]

    run = history(patient)
    run.decide()
    run.fire(2)
    run.decide()
    run.receive(1, "a")
    run.decide()
    run.receive(1, "b")
    run.decide()
    assert run.result == ["a", "b"]


def test_a_step_call_given_twice_is_one_step_as_in_asyncio(history: Begin) -> None:
    @workflow
    async def twice() -> list[Any]:
        call = work("a")
        both = await gather(call, call)
        other = work("b")
        return [*both, *[await each for each in as_completed([other, other])]]

    run = history(twice)
    assert run.decide() == ["step #1 'work'"]
    run.complete(1, "A")
    assert run.decide() == ["step #2 'work'"]
    run.complete(2, "B")
    run.decide()
    assert run.result == ["A", "A", "B"]


def test_gathered_hooks_and_steps_start_in_the_order_given(history: Begin) -> None:
    @workflow
    async def mixed() -> list[Any]:
        hook = create_hook(token="t")

        async def take() -> Any:
            return await hook

        return list(await gather(take(), hook, work("a"), hook, sleep(60)))

    run = history(mixed)
    run.decide()
    for payload in "xyz":
        run.receive(1, payload)
    run.complete(2, "A")
    run.fire(3)
    run.decide()
    assert run.result == ["x", "y", "A", "z", None]


class Counted:
    """An awaitable of somebody else."""

    def __init__(self) -> None:
        self.awaited = 0

    def __await__(self) -> Generator[Any, None, int]:
        self.awaited += 1
        return asyncio.sleep(0, self.awaited).__await__()


async def outside() -> list[Any]:
    one: Awaitable[int] = Counted()
    return [*await gather(one, one), *[await each for each in as_completed([one, one])]]


def test_other_loops_and_threads_keep_asyncio_as_it_is() -> None:
    signatures = [inspect.signature(gather), inspect.signature(as_completed)]
    seen: list[Any] = []
    with sandbox.installed():
        assert [inspect.signature(gather), inspect.signature(as_completed)] == signatures
        thread = threading.Thread(target=lambda: seen.append(asyncio.run(outside())))
        thread.start()
        seen.append(asyncio.run(outside()))
        thread.join()
    assert seen == [[1, 1, 2], [1, 1, 2]]
    assert asyncio.run(outside()) == [1, 1, 2]
