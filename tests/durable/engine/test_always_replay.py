"""Always-replay mode reports workflows that depend on more than their log, and no others."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from approvals_bot import create_hook, create_webhook, now, random, sleep, step, uuid4, workflow
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine
from tests.support.always_replay import AlwaysReplay

count = itertools.count()
people = {f"person {number}" for number in range(20)}


@step
async def act(what: Any) -> Any:
    return what


@step
async def other(what: Any) -> Any:
    return what


async def reads_the_clock() -> None:
    await act(time.time_ns())
    await create_hook(token="t")


async def branches_on_chance() -> None:
    await [act, other, act][number := next(count) % 3](number)
    await create_hook(token="t")


async def sleeps_by_the_clock() -> None:
    await asyncio.sleep(time.time_ns() / 1e9)


async def counts_its_replays() -> None:
    await act(1)
    await act(next(count))
    await create_hook(token="t")


async def ends_otherwise() -> int:
    await act(1)
    return next(count)


async def opens_another_hook() -> None:
    await create_hook(token=f"t-{next(count)}")


@pytest.mark.parametrize(
    "body",
    [
        reads_the_clock,
        branches_on_chance,
        sleeps_by_the_clock,
        counts_its_replays,
        ends_otherwise,
        opens_another_hook,
    ],
)
async def test_a_body_that_depends_on_more_than_its_log_is_found(
    body: Callable[[], Awaitable[Any]], open_engine: OpenEngine, always_replay: AlwaysReplay | None
) -> None:
    if always_replay is None:
        pytest.skip("always-replay mode is off")
    drifting = workflow(name=body.__name__)(body)
    async with open_engine() as engine:
        await engine.start(drifting)
        await engine.settle()
    assert always_replay.found
    always_replay.found.clear()


@workflow
async def sound(who: str) -> list[Any]:
    hook, webhook = create_hook(token=f"t-{who}"), create_webhook(metadata={"who": who})
    acts = await asyncio.gather(*(act(f"{person} {uuid4()} {random().random()}") for person in sorted(people)))
    await act(webhook.url)
    try:
        async with asyncio.timeout(3600):
            answer = await hook
    except TimeoutError:
        answer = None
    hook.dispose()
    await sleep("1 day")
    return [answer, len(acts), now().isoformat()]


async def test_a_sound_body_is_replayed_from_every_prefix_silently(
    open_engine: OpenEngine, always_replay: AlwaysReplay | None, clock: FakeClock
) -> None:
    if always_replay is None:
        pytest.skip("always-replay mode is off")
    async with open_engine() as engine:
        answered, silent = await engine.start(sound, "ann"), await engine.start(sound, "bo")
        await engine.settle()
        await engine.resume_hook("t-ann", "yes")
        await clock.advance("2 days")
        assert (await answered.return_value())[:2] == ["yes", 20]
        assert (await silent.return_value())[:2] == [None, 20]
        events = len(await answered.events())
    assert always_replay.beginnings > 0.9 * events
