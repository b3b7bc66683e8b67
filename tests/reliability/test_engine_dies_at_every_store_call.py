"""A run comes to the same end whichever call of the store its process dies at, or gets no answer from.

The workflow has what runs are made of: steps that are retried, a hook, a sleep, a webhook with an automatic response.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from approvals_bot import (
    HookNotFoundError,
    WebhookRequest,
    create_hook,
    create_webhook,
    get_step_metadata,
    sleep,
    step,
    workflow,
)
from approvals_bot.durable.core.api import Answer
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.testing import FakeClock
from tests.support.dying_acts import Act, How, play_acts
from tests.support.thorough import places

ran: Counter[str] = Counter()  # how often the body of each step ran, by step id


@step(retry_delay=5)
async def second_time(name: str) -> str:
    metadata = get_step_metadata()
    ran[metadata.step_id] += 1
    if metadata.attempt == 1:
        raise ValueError("the first attempt always fails")
    return name


@workflow(name="main job of the engine")
async def main_job() -> list[Any]:
    first = await second_time("first")
    hook, webhook = create_hook(token="answer"), create_webhook(respond_with="manual")
    both = await asyncio.gather(second_time("left"), second_time("right"))
    payload = await hook
    await sleep("1h")
    request = await webhook
    await request.respond_with(Answer(f"thanks for {await request.text()}"))
    return [first, *both, payload, await second_time("last")]


EXPECTED = ["first", "left", "right", {"approved": True}, "last"]


def script(clock: FakeClock) -> list[Act]:
    """What people and time do. Each may be done again by who got no answer."""

    async def begin(engine: Engine) -> None:
        await engine.start(main_job, idempotency_key="the one")

    async def a_minute(engine: Engine) -> None:
        await clock.advance("1m")

    async def answer(engine: Engine) -> None:
        await engine.resume_hook("answer", {"approved": True}, resume_id="one click")

    async def an_hour(engine: Engine) -> None:
        await clock.advance("1h")

    async def post(engine: Engine) -> None:
        (record,) = (await engine.records()).records
        events = await engine.events(record.id)
        token = next(e.data["token"] for e in events if "answer" in e.data and e.type == "hook_created")
        if any(e.type == "hook_responded" for e in events):
            return
        try:
            response = await engine.resume_webhook(token, WebhookRequest(body=b"asking"), timeout=1)
        except HookNotFoundError:
            return  # the first call was carried out, and its answer lost
        assert response.body == b"thanks for asking" or response.status_code == 504

    async def see(engine: Engine) -> tuple[Any, list[Event]]:
        (record,) = (await engine.records()).records
        result = await asyncio.wait_for(engine.get_run(record.id).return_value(), 60)
        return result, await engine.events(record.id)

    return [begin, a_minute, answer, an_hour, post, a_minute, a_minute, see]


async def play(path: Path, at: int | None, how: How) -> tuple[Any, int, int]:
    """The run's result, how many store calls the first process made, and how many deaths or silences there were."""
    ran.clear()
    clock = FakeClock()
    (result, log), calls = await play_acts(script(clock), path, clock, at, how)
    ends = Counter(e.data["id"] for e in log if e.type == "step_completed")
    assert set(ends.values()) == {1}, "each step ended once"
    assert [e.seq for e in log] == list(range(1, len(log) + 1))
    assert sum(e.type == "hook_responded" for e in log) == 1
    assert sum(e.type == "hook_received" and e.data["resume_id"] == "one click" for e in log) == 1
    assert len(ran) == 4, "each step keeps its id"
    return result, calls, sum(ran.values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["dies before", "dies after", "no answer before", "no answer after"])
@pytest.mark.conformance(157)
async def test_a_run_ends_the_same_whichever_store_call_fails(
    tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "RETRY_STORE", 0.005)
    monkeypatch.setattr(scheduling, "RETRY_STORE", 0.005)
    result, calls, runs_of_steps = await play(tmp_path / "calm.db", None, how)
    assert result == EXPECTED
    assert calls >= 15, "the script must really use the store"
    assert runs_of_steps == 8
    for k in places(calls, how):
        result, _, again = await play(tmp_path / f"{k}.db", k, how)
        assert result == EXPECTED, f"{how} store call {k}"
        assert 8 <= again <= 10, f"{how} store call {k}: only what was running may run again"
