"""A parent and its children come to the same end whichever call of the store their process dies at."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from approvals_bot import RunCancelledError, create_hook, run_child, workflow
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.errors import RunEndedError
from approvals_bot.testing import FakeClock
from tests.support.dying_acts import Act, How, play_acts
from tests.support.thorough import places


@workflow(name="family: a child")
async def asks_one(token: str) -> str:
    answer: str = await create_hook(token=token)
    return answer


@workflow(name="family: the parent")
async def has_three() -> list[str]:
    first = await run_child(asks_one, "family-1")
    try:
        async with asyncio.timeout(1800):
            await run_child(asks_one, "family-2")
    except TimeoutError:
        pass
    try:
        return [first, await run_child(asks_one, "family-3")]
    except RunCancelledError as error:
        return [first, str(error.reason)]


async def play(path: Path, at: int | None, how: How) -> tuple[Any, int]:
    """The parent's result, and how many calls of the store the first process made."""
    clock = FakeClock()

    async def begin(engine: Engine) -> None:
        await engine.start(has_three, idempotency_key="the one")

    async def a_minute(engine: Engine) -> None:
        await clock.advance("1m")

    async def answer(engine: Engine) -> None:
        await engine.resume_hook("family-1", "yes", resume_id="one click")

    async def an_hour(engine: Engine) -> None:
        await clock.advance("1h")

    async def stop_the_third(engine: Engine) -> None:
        found = [run for run in (await engine.records(status="running")).records if run.parent is not None]
        for run in found:
            with suppress(RunEndedError):  # the attempt before got no answer, and has ended it meanwhile
                await engine.cancel(run.id, "stop")

    async def see(engine: Engine) -> Any:
        records = (await engine.records()).records
        parent = next(run for run in records if run.parent is None)
        result = await asyncio.wait_for(engine.get_run(parent.id).return_value(), 60)
        types = [str(event.type) for event in await engine.events(parent.id)]
        statuses = sorted(run.status for run in records if run.parent is not None)
        return result, statuses, [types.count(f"child_{each}") for each in ("started", "ended", "cancelled")]

    acts: list[Act] = [
        begin, a_minute, answer, a_minute, an_hour, a_minute, stop_the_third, a_minute, a_minute, see,
    ]  # fmt: skip
    return await play_acts(acts, path, clock, at, how)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["dies before", "dies after", "no answer before", "no answer after"])
async def test_a_family_ends_the_same_whichever_store_call_fails(
    tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "RETRY_STORE", 0.005)
    monkeypatch.setattr(scheduling, "RETRY_STORE", 0.005)
    expected = ["yes", "stop"], ["cancelled", "cancelled", "completed"], [3, 2, 1]
    seen, calls = await play(tmp_path / "calm.db", None, how)
    assert seen == expected
    assert calls >= 10
    for k in places(calls, how):
        seen, _ = await play(tmp_path / f"{k}.db", k, how)
        assert seen == expected, f"{how} store call {k}"
