"""An agent of pydantic-ai comes to the same end whichever call of the store its process dies at."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from approvals_bot import create_hook, get_step_metadata, workflow
from approvals_bot.agents.pydantic_ai import Durable
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.engine import scheduler as scheduling
from approvals_bot.testing import FakeClock
from tests.support.dying_acts import Act, How, play_acts
from tests.support.thorough import places

requests: Counter[int] = Counter()
"""How often the model was requested for each turn."""
bookings: dict[str, str] = {}
"""What was booked, by step id: an effect that knows its repetitions."""
attempts: Counter[str] = Counter()

TURNS = [
    [ToolCallPart("search", {"to": "OSL"}, "s1")],
    [ToolCallPart("ask", {"flight": "LH 1"}, "a1"), ToolCallPart("ask", {"flight": "LH 2"}, "a2")],
    [ToolCallPart("book", {"flight": "LH 1"}, "b1"), ToolCallPart("book", {"flight": "LH 2"}, "b2")],
]


async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    turn = sum(isinstance(each, ModelResponse) for each in messages)
    requests[turn] += 1
    if turn < len(TURNS):
        return ModelResponse(TURNS[turn])
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    return ModelResponse(
        [TextPart(json.dumps([part.content for part in last.parts if isinstance(part, ToolReturnPart)]))]
    )


agent = Agent(FunctionModel(script), name="mortal", capabilities=[Durable()])


@agent.tool_plain
async def search(to: str) -> list[str]:
    attempts["search"] += 1
    return ["LH 1", "LH 2"]


@agent.tool_plain(metadata={"approvals_bot": False})
async def ask(flight: str) -> str:
    answer: str = await create_hook(token=f"mortal: {flight}")
    return answer


@agent.tool_plain
async def book(flight: str) -> str:
    attempts[flight] += 1
    bookings[get_step_metadata().step_id] = flight
    return f"booked {flight}"


@workflow(name="mortal agent")
async def travels() -> str:
    return (await agent.run("to Oslo")).output


def acts(clock: FakeClock) -> list[Act]:
    async def begin(engine: Engine) -> None:
        await engine.start(travels, idempotency_key="the one")

    async def a_minute(engine: Engine) -> None:
        await clock.advance("1m")

    async def second(engine: Engine) -> None:
        await engine.resume_hook("mortal: LH 2", "yes", resume_id="second")

    async def first(engine: Engine) -> None:
        await engine.resume_hook("mortal: LH 1", "yes", resume_id="first")

    async def see(engine: Engine) -> tuple[Any, list[Event]]:
        (record,) = (await engine.records()).records
        result = await asyncio.wait_for(engine.get_run(record.id).return_value(), 60)
        return result, await engine.events(record.id)

    return [begin, a_minute, second, a_minute, first, a_minute, a_minute, see]


async def play(path: Path, at: int | None, how: How) -> tuple[str, int]:
    """Return what the agent said, and how many calls of the store the first process made."""
    for each in (requests, bookings, attempts):
        each.clear()
    clock = FakeClock()
    (result, log), calls = await play_acts(acts(clock), path, clock, at, how)
    ends = Counter(event.data["id"] for event in log if event.type == "step_completed")
    assert len(ends) == 7
    assert set(ends.values()) == {1}, "each step ended once"
    assert sorted(bookings.values()) == ["LH 1", "LH 2"], "each booking keeps its id"
    assert all(1 <= requests[turn] <= 2 for turn in range(4)), "only a request that was going on is repeated"
    assert sum(requests.values()) + sum(attempts.values()) <= 7 + 2, "two tools at most were going on"
    return result, calls


@pytest.mark.agents(5)
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "how",
    [
        "dies after",
        pytest.param("dies before", marks=pytest.mark.long),
        pytest.param("no answer before", marks=pytest.mark.long),
        pytest.param("no answer after", marks=pytest.mark.long),
    ],
)
async def test_an_agent_ends_the_same_whichever_store_call_fails(
    tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation, "RETRY_STORE", 0.005)
    monkeypatch.setattr(scheduling, "RETRY_STORE", 0.005)
    expected = '["booked LH 1", "booked LH 2"]'
    result, calls = await play(tmp_path / "calm.db", None, how)
    assert result == expected
    assert set(requests.values()) == set(attempts.values()) == {1}
    for k in places(calls, how):
        assert (await play(tmp_path / f"{k}.db", k, how))[0] == expected, f"{how} store call {k}"
