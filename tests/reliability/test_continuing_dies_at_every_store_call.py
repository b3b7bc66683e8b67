"""A chain of runs takes each payload once, whichever call of the store its process dies at, or gets no answer from."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from approvals_bot import continue_as_new, create_hook, step, workflow
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.testing import FakeClock
from tests.support.dying_acts import Act, How, play_acts
from tests.support.thorough import places

PAYLOADS = 5


@step
async def chained_note(payload: Any) -> Any:
    return payload


@workflow
async def chained_takes_two(token: str, taken: list[Any]) -> list[Any]:
    hook = create_hook(token)
    for _ in range(2):
        payload = await hook
        if payload == "stop":
            return taken
        taken.append(await chained_note(payload))
    return continue_as_new(token, taken)


def script(clock: FakeClock) -> list[Act]:
    """What callers do. Each does it again if it got no answer."""
    runs: dict[int, str] = {}

    def sends(n: int, payload: Any) -> Act:
        async def send(engine: Engine) -> None:
            hook = await engine.start_or_resume("chained", payload, chained_takes_two, "chained", [], resume_id=f"{n}")
            runs[n] = hook.run_id

        return send

    async def settle(engine: Engine) -> None:
        await clock.advance("1m")  # leases that nobody knows of end

    async def see(engine: Engine) -> tuple[Any, list[str], list[str]]:
        result = await asyncio.wait_for(engine.get_run(runs[0]).return_value(), 60)
        records = (await engine.records()).records
        received = [
            event.data["resume_id"]
            for record in records
            for event in await engine.events(record.id)
            if event.type == "hook_received"
        ]
        return result, [record.status for record in records], received

    acts = [sends(0, 0), settle, sends(1, 1), sends(2, 2), settle, sends(3, 3), sends(4, 4)]
    return [*acts, sends(PAYLOADS, "stop"), settle, see]


async def play(path: Path, at: int | None, how: How) -> tuple[Any, int]:
    """Return the result and how many store calls the first process made."""
    clock = FakeClock()
    (result, statuses, received), calls = await play_acts(script(clock), path, clock, at, how)
    assert Counter(statuses) == {"continued": 2, "completed": 1}, "one chain of runs"
    assert set(received) == {f"{n}" for n in range(PAYLOADS + 1)}
    return result, calls


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["dies before", "dies after", "no answer before", "no answer after"])
async def test_a_chain_takes_each_payload_once(tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "RETRY_STORE", 0.005)
    monkeypatch.setattr(scheduling, "RETRY_STORE", 0.005)
    result, calls = await play(tmp_path / "calm.db", None, how)
    assert result == [0, 1, 2, 3, 4]
    assert calls >= 15, "the script must really use the store"
    for k in places(calls, how):
        result, _ = await play(tmp_path / f"{k}.db", k, how)
        assert result == [0, 1, 2, 3, 4], f"{how} store call {k}"
