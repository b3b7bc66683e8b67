"""Paused agents cost no task, and a process remembers few of them."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from approvals_bot import create_hook, workflow
from approvals_bot.agents.pydantic_ai import WEIGHT, Durable
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.limits import CACHED_SIZE
from approvals_bot.testing.fixtures import OpenEngine

TURNS = 2
AGENTS = 12


async def script(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    turn = sum(isinstance(each, ModelResponse) for each in messages)
    if turn < TURNS:
        return ModelResponse([ToolCallPart("look", {"what": f"number {turn}"}, f"c{turn}")])
    if turn == TURNS:
        return ModelResponse([ToolCallPart("ask", {}, "ask")])
    return ModelResponse([TextPart("done")])


talker = Agent(FunctionModel(script), name="talker", capabilities=[Durable()])


@talker.tool_plain
async def look(what: str) -> str:
    return f"this is {what}"


@talker.tool_plain(metadata={"approvals_bot": False})
async def ask() -> str:
    answer: str = await create_hook()
    return answer


@workflow(name="paused agents")
async def talks() -> str:
    return (await talker.run("?")).output


async def paused(engine: Engine, agents: int) -> None:
    for _ in range(agents):
        await engine.start(talks)
    await engine.settle()


@pytest.mark.agents(25)
async def test_paused_agents_cost_no_task_and_few_are_remembered(open_engine: OpenEngine) -> None:
    async with open_engine() as engine:
        tasks = len(asyncio.all_tasks())
        await paused(engine, AGENTS)
        assert len(asyncio.all_tasks()) == tasks
        assert {run.status for run in (await engine.records()).records} == {"running"}
        assert len(engine.scheduler.cache._runs) <= CACHED_SIZE // WEIGHT
