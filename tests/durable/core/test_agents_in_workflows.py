"""Agent frameworks run unchanged in a workflow's body: pydantic-ai and the OpenAI Agents SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from agents import Agent as OpenAiAgent
from agents import ModelResponse as OpenAiResponse
from agents import RunConfig, Runner, Usage, function_tool
from agents.models.interface import Model as OpenAiModel
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from approvals_bot import create_hook, step, workflow
from approvals_bot.testing import History

Begin = Callable[..., History]


@step(name="agents in workflows: work")
async def work(name: str) -> str:
    return name


async def ask(name: str) -> str:
    answer: str = await create_hook(token=name)
    return f"{await work(name)}: {answer}"


async def asks_twice(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    if len(messages) > 1:
        return ModelResponse([TextPart(str([getattr(part, "content", None) for part in messages[-1].parts]))])
    return ModelResponse([ToolCallPart("ask", {"name": name}, name) for name in ("a", "b")])


def answer_both(run: History) -> None:
    """The second hook is answered first."""
    assert run.decide() == ["hook #1", "hook #2"]
    run.receive(2, "B")
    assert run.decide() == ["step #3 'agents in workflows: work'"]
    run.complete(3, "b")
    assert run.decide() == []
    run.receive(1, "A")
    assert run.decide() == ["step #4 'agents in workflows: work'"]
    run.complete(4, "a")
    run.decide()
    assert run.result == "['a: A', 'b: B']"


def test_pydantic_ai_runs_unchanged(history: Begin) -> None:
    agent = Agent(FunctionModel(asks_twice))
    agent.tool_plain(ask)

    @workflow(name="agents in workflows: pydantic-ai")
    async def runs_one() -> str:
        return (await agent.run("?")).output

    answer_both(history(runs_one))


class Scripted(OpenAiModel):
    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> OpenAiResponse:
        said = [each["output"] for each in input if each.get("type") == "function_call_output"]
        if said:
            text = ResponseOutputText(annotations=[], text=str(said), type="output_text")
            done = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
            return OpenAiResponse([done], Usage(), None)
        calls = [
            ResponseFunctionToolCall(arguments=f'{{"name": "{name}"}}', call_id=name, name="ask", type="function_call")
            for name in ("a", "b")
        ]
        return OpenAiResponse([*calls], Usage(), None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


def test_openai_agents_run_unchanged(history: Begin) -> None:
    agent = OpenAiAgent("asker", tools=[function_tool(ask)], model=Scripted())

    @workflow(name="agents in workflows: openai")
    async def runs_one() -> str:
        found = await Runner.run(agent, [{"role": "user", "content": "?"}], run_config=RunConfig(tracing_disabled=True))
        return str(found.final_output)

    answer_both(history(runs_one))


QUIET = """
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from approvals_bot import create_hook, workflow
from approvals_bot.agents.pydantic_ai import Durable
from approvals_bot.testing import History

async def script(messages, info):
    return ModelResponse([ToolCallPart("ask", {"name": name}, name) for name in "ab"])

async def ask(name: str) -> str:
    return await create_hook(token=name)

def waits(name, *capabilities):
    agent = Agent(FunctionModel(script), name=name, capabilities=capabilities)
    agent.tool_plain(metadata={"approvals_bot": False})(ask)
    @workflow(name=name)
    async def body() -> str:
        return (await agent.run("?")).output
    return History(body)

plain = waits("plain")
assert plain.decide() == ["hook #1", "hook #2"]
plain.check_prefixes()
durable = waits("durable", Durable())
assert durable.decide() == ["step #1 'durable__model.request'"]
durable.check_prefixes()
"""


@pytest.mark.long
def test_an_agent_that_is_thrown_away_says_nothing(tmp_path: Path) -> None:
    program = tmp_path / "quiet.py"
    program.write_text(QUIET)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", str(program)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.returncode == 0
