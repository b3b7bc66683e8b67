"""Agents of OpenAI's SDK and of LangGraph in their own process; the service is killed while they wait for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from agents import RunConfig
from langgraph.checkpoint.memory import InMemorySaver

from approvals_bot.client import Approvals
from approvals_bot.client import langgraph as graphs
from approvals_bot.client import openai as openai_agents
from tests.agents.effects import happened
from tests.agents.langgraph_travel import Scripted, travel_graph
from tests.agents.openai_travel import travel
from tests.support.journey import Service

Run = Callable[[Approvals], Coroutine[Any, Any, str]]


async def by_openai(ap: Approvals) -> str:
    untraced = RunConfig(tracing_disabled=True)
    result = await openai_agents.run_with_approvals(ap, travel, "to Oslo", key="openai", run_config=untraced)
    return str(result.final_output)


async def by_langgraph(ap: Approvals) -> str:
    graph = travel_graph(Scripted(), "per_call", InMemorySaver())
    config: Any = {"configurable": {"thread_id": "langgraph"}}
    values = await graphs.run_with_approvals(ap, graph, {"messages": [("user", "to Oslo")]}, config)
    return str(values["messages"][-1].content)


@pytest.mark.agents(6)
@pytest.mark.agents(16)
@pytest.mark.long
@pytest.mark.parametrize("run", [by_openai, by_langgraph])
def test_answers_arrive_over_a_kill_of_the_service(service: Service, run: Run) -> None:
    happened.clear()
    outputs = asyncio.run(answered(service, run))
    assert outputs == ["booked LH1 for 640", "booked LH2 for 120", "booked LH3 for 30"]
    assert set(happened.values()) == {1}


async def answered(service: Service, run: Run) -> list[str]:
    async with Approvals(str(service.http.base_url), "dev") as ap:
        working = asyncio.create_task(run(ap))
        await wait_for_calls(ap)
        await asyncio.to_thread(service.kill)
        await asyncio.sleep(0.5)
        assert not working.done(), "the agent waits for the service to come back"
        await asyncio.to_thread(service.start)
        for flight in ("LH3", "LH1", "LH2"):
            await asyncio.to_thread(approve, service, flight)
        outputs: list[str] = json.loads(await asyncio.wait_for(working, 60))
        return outputs


async def wait_for_calls(ap: Approvals) -> None:
    while len(await ap.open()) < 3:
        await asyncio.sleep(0.1)


def approve(service: Service, flight: str) -> None:
    """Let Ann press Approve on the card of this flight, in Slack."""
    cards = service.eventually(lambda: [one for one in service.messages("@ann") if flight in str(one["blocks"])])
    service.click("U0ANN", cards[-1], "Approve")
