"""Races of hooks, steps and timers: the log decides, on every replay and from every prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from approvals_bot import Hook, create_hook, random, sleep, step, uuid4, workflow
from approvals_bot.testing import History

Begin = Callable[..., History]


@step
async def work(name: Any) -> Any:
    return name


async def take(hook: Hook[Any]) -> Any:
    return await hook


async def first_of(*tasks: asyncio.Task[Any]) -> asyncio.Task[Any]:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    return done.pop()


def waits_of(run: History) -> list[int]:
    over = {e.data["id"] for e in run.log if e.type in ("wait_completed", "wait_cancelled")}
    return [e.data["id"] for e in run.log if e.type == "wait_created" and e.data["id"] not in over]


@pytest.mark.conformance(15)
def test_a_payload_logged_before_its_await_is_kept_until_then(history: Begin) -> None:
    @workflow
    async def later() -> list[Any]:
        early, late = create_hook(token="early"), create_hook(token="late")
        first = await early
        return [first, await late]

    run = history(later)
    run.decide()
    run.receive(2, "for the late one")
    assert run.decide() == []
    run.receive(1, "for the early one")
    run.decide()
    assert run.result == ["for the early one", "for the late one"]


@pytest.mark.conformance(110)
def test_a_hook_that_wins_ends_the_run_without_waiting_for_the_sleep(history: Begin) -> None:
    @workflow
    async def race() -> Any:
        hook = asyncio.create_task(take(create_hook(token="t")))
        day = asyncio.create_task(sleep("1 day"))
        return (await first_of(hook, day)).result()

    run = history(race)
    run.decide()
    run.receive(1, "at once")
    run.decide()
    assert run.result == "at once"
    assert "wait_completed" not in run.types


@pytest.mark.conformance(111)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_timeout_that_wins_leaves_the_hook_open(history: Begin, goes_on: bool) -> None:
    @workflow
    async def race() -> Any:
        hook = create_hook(token="t")
        try:
            return await asyncio.wait_for(take(hook), 60)
        except TimeoutError:
            return ["late", await hook] if goes_on else "late"

    run = history(race)
    run.decide()
    run.fire(2)
    run.decide()
    if goes_on:
        run.receive(1, "after all")
        run.decide()
    assert run.result == (["late", "after all"] if goes_on else "late")


@pytest.mark.conformance(112)
def test_a_loop_of_timeouts_loses_no_payload(history: Begin) -> None:
    @workflow
    async def patient() -> list[Any]:
        hook, rounds = create_hook(token="t"), []
        for _ in range(4):
            try:
                rounds.append(await asyncio.wait_for(take(hook), 60))
            except TimeoutError:
                rounds.append("nobody")
        return rounds

    run = history(patient)
    run.decide()
    for _ in range(2):
        run.fire(waits_of(run)[0])
        run.decide()
    run.receive(1, "third round")
    run.decide()
    run.fire(waits_of(run)[0])
    run.decide()
    assert run.result == ["nobody", "nobody", "third round", "nobody"]


@pytest.mark.conformance(113)
@pytest.mark.parametrize(("order", "expected"), [("payload first", "payload"), ("timer first", "timer")])
def test_the_order_in_the_log_decides_between_a_payload_and_a_timer(history: Begin, order: str, expected: str) -> None:
    @workflow
    async def race() -> str:
        try:
            await asyncio.wait_for(take(create_hook(token="t")), 60)
        except TimeoutError:
            return "timer"
        return "payload"

    run = history(race)
    run.decide()
    wait, hook = waits_of(run)[0], next(e.data["id"] for e in run.log if e.type == "hook_created")
    happen: list[Callable[[], None]] = [lambda: run.receive(hook, 1), lambda: run.fire(wait)]
    for each in happen if order == "payload first" else reversed(happen):
        each()
    run.decide()
    assert run.result == expected
    run.check_prefixes()


@pytest.mark.conformance(114)
def test_an_unawaited_sleep_does_not_disturb_payloads_and_steps(history: Begin) -> None:
    @workflow
    async def three() -> list[Any]:
        asyncio.create_task(sleep("1 day"))  # noqa: RUF006  # nobody waits for it: that is the case
        results: list[Any] = []
        async for payload in create_hook(token="t"):
            results.append(await work(payload))
            if len(results) == 3:
                return results
        return []

    run = history(three)
    run.decide()
    hook = next(e.data["id"] for e in run.log if e.type == "hook_created")
    for payload in "abc":
        run.receive(hook, payload)
    for payload in "abc":
        run.decide()
        run.complete(run.log[-1].data["id"], payload.upper())
    run.decide()
    assert run.result == ["A", "B", "C"]


@pytest.mark.conformance(115)
def test_all_hooks_and_a_sleep_can_race_repeatedly(history: Begin) -> None:
    @workflow
    async def rounds() -> list[Any]:
        hooks, seen = [create_hook(token="a"), create_hook(token="b")], []
        for _ in range(4):
            racers = [asyncio.create_task(take(hook)) for hook in hooks]
            timer = asyncio.create_task(sleep("1h"))
            winner = await first_of(*racers, timer)
            seen.append("timer" if winner is timer else winner.result())
            for loser in (*racers, timer):
                loser.cancel()
            await work("between")
        return seen

    run = history(rounds)
    for happens in ("b", "timer", "both", None):
        run.decide()
        if happens == "timer":
            run.fire(waits_of(run)[0])
        elif happens is not None:
            run.receive(2, f"{happens} to b")
            if happens == "both":
                run.receive(1, "and to a")
        run.decide()
        run.complete(next(e.data["id"] for e in reversed(run.log) if e.type == "step_created"), "")
    run.decide()
    assert run.result == ["b to b", "timer", "both to b", "and to a"]


@pytest.mark.conformance(116)
def test_a_kept_payload_and_an_earlier_timer_follow_log_order(history: Begin) -> None:
    @workflow
    async def kept() -> list[Any]:
        hook, order = create_hook(token="t"), []
        timer = asyncio.create_task(sleep("1h"))
        timer.add_done_callback(lambda _: order.append("timer"))
        await work("first")
        order.append(await hook)
        await timer
        return order

    run = history(kept)
    run.decide()
    run.receive(1, "payload")
    run.fire(waits_of(run)[0])
    run.complete(next(e.data["id"] for e in run.log if e.type == "step_created"), "")
    run.decide()
    assert run.result == ["timer", "payload"]


@pytest.mark.conformance(117)
@pytest.mark.parametrize("first", ["step", "hook"])
def test_a_result_and_a_payload_of_one_instant_follow_log_order(history: Begin, first: str) -> None:
    @workflow
    async def race() -> str:
        hook = asyncio.create_task(take(create_hook(token="t")))
        done = asyncio.create_task(work("x"))
        return "hook" if await first_of(hook, done) is hook else "step"

    run = history(race)
    run.decide()
    number = {e.type: e.data["id"] for e in run.log if "created" in e.type and "id" in e.data}
    events: list[Callable[[], None]] = [
        lambda: run.complete(number["step_created"], "x"),
        lambda: run.receive(number["hook_created"], "y"),
    ]
    for happens in events if first == "step" else reversed(events):
        happens()
    assert run.log[-1].at == run.log[-2].at
    run.decide()
    assert run.result == first


@pytest.mark.conformance(118)
def test_every_prefix_of_a_log_asks_for_what_the_whole_log_did(history: Begin) -> None:
    @workflow
    async def busy() -> list[Any]:
        hook = create_hook()

        async def branch(name: str) -> Any:
            async with asyncio.timeout(3600):
                drawn = random().random()
                result = await work([name, drawn, str(uuid4())])
                return [result[0], await hook]

        return list(await asyncio.gather(*(branch(name) for name in "ab")))

    run = history(busy)
    run.decide()
    steps = [e.data["id"] for e in run.log if e.type == "step_created"]
    run.receive(1, "early")
    run.complete(steps[1], ["b"])
    run.decide()
    run.complete(steps[0], ["a"])
    run.receive(1, "late")
    run.decide()
    assert run.result == [["a", "late"], ["b", "early"]]
    run.check_prefixes()
