"""Agents of OpenAI's SDK inside a workflow: held between two pauses, or durable call by call.

    @workflow
    async def travel(question: str) -> str:
        return await hold(agent, question, to="@ops")

`hold` runs the agent until it pauses on tool calls that need approval, keeps its state in the log, and lets it go on
when people have decided. What it does between two pauses is one step. With `durable(agent)`, each request to a model
and each call of a function is a step of its own.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, TypeAdapter
from pydantic_core import to_jsonable_python

from approvals_bot.agents.model_errors import clean, is_final
from approvals_bot.agents.segments import run_segment
from approvals_bot.agents.tool_calls import DEADLINE, approve
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.client.openai import (  # names the extra if it is missing
    AgentCopies,
    Input,
    ToolGuard,
    as_careful,
    calls_of,
    run_to_its_end,
)
from approvals_bot.client.paused_calls import CallKeys, DecidedCall, PausedCall, all_of
from approvals_bot.durable.core.api import uuid4
from approvals_bot.durable.core.steps import step
from approvals_bot.errors import FatalError, InvalidArgumentError

from agents import (  # isort: skip
    Agent,
    CodeInterpreterTool,
    FileSearchTool,
    FunctionTool,
    HostedMCPTool,
    ImageGenerationTool,
    Model,
    ModelProvider,
    ModelResponse,
    MultiProvider,
    RunConfig,
    RunState,
    Tool,
    ToolOutputFileContent,
    ToolOutputImage,
    ToolOutputText,
    WebSearchTool,
)
from agents.run_state import CURRENT_SCHEMA_VERSION  # isort: skip
from agents.tool_context import ToolContext  # isort: skip

HOSTED = (CodeInterpreterTool, FileSearchTool, HostedMCPTool, ImageGenerationTool, WebSearchTool)
"""Tools that the model's provider runs: part of the request to the model."""


async def hold(
    agent: Agent[Any],
    input: Input,
    to: str | Sequence[str] | None = None,
    *,
    deadline: str | timedelta | None = DEADLINE,
    on_behalf_of: str | None = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    deliver: Deliver | Mapping[str, Any] | None = None,
    retries: int = 0,
    tracing: bool = False,
    **options: Any,
) -> Any:
    """Run an agent in a workflow, and hold it while people decide on its tool calls. Returns its final output.

        @workflow
        async def travel(question: str) -> str:
            return await hold(agent, question, to="@ops")

    All calls of a turn are requested at once; the agent goes on when all are decided. What it does between two pauses
    is one step, which a crash repeats from its start, tools included. An error in it is not retried unless `retries`
    says so. Of an agent made by `durable(agent)`, nothing that is recorded runs twice.

    `to`, `deadline`, `on_behalf_of`, `stages` and `deliver` are those of `approve`. `options` are those of
    `Runner.run`: `max_turns`, `run_config`, `context` (what tools change in one that isn't a dict is lost at the next
    pause). `tracing=True` leaves tracing on: its processors must not use threads.

    The agent's name is part of the log. If the state in the log is of another version than the SDK's, or the agent or
    the tool it waits for is gone, the run stalls. Raises ApprovalMismatchError if a tool was about to get other
    arguments than those that people decided on.
    """
    options["run_config"] = _untraced(options.get("run_config"), tracing)

    async def decide(call: PausedCall, key: str, schema: dict[str, Any] | None) -> DecidedCall:
        decision = await approve(
            call.tool,
            call.arguments,
            tool_call_id=key,
            to=to,
            agent=call.agent,
            expects=schema,
            deadline=deadline,
            on_behalf_of=on_behalf_of,
            stages=stages,
            deliver=deliver,
        )
        return DecidedCall(call, decision)

    keys = CallKeys(f"{uuid4()}.")  # a run may hold several agents
    if isinstance(agent.model, DurableModel):
        return (await run_to_its_end(agent, input, decide, options, keys)).final_output
    guard = ToolGuard(agent)
    at = await _segment(agent, input, (), options, retries)
    while at.state is not None:
        _check_still_there(guard, at)
        asked = [decide(call, keys.key_of(call), guard.schema_of(call)) for call in at.calls]
        at = await _segment(agent, at.state, await all_of(asked), options, retries)
    return _typed(guard.copies.named(at.agent), at)


def _of_this_version(state: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if state.get("$schemaVersion") != CURRENT_SCHEMA_VERSION:
        raise ValueError(
            f"the agent's state is of version {state.get('$schemaVersion')} of the SDK's format, and this SDK writes "
            f"{CURRENT_SCHEMA_VERSION}. Deploy the version of openai-agents that wrote it."
        )
    return state


class AgentSegment(BaseModel):
    """What came of a segment: a pause on tool calls, with the agent's state, or the final output."""

    model_config = ConfigDict(frozen=True)

    agent: str  # the last one
    state: Annotated[dict[str, JsonValue], AfterValidator(_of_this_version)] | None = None
    calls: tuple[PausedCall, ...] = ()
    own: tuple[str, ...] = ()  # the ids of calls of functions of the agents themselves
    output: JsonValue = None
    is_typed: bool = False  # the output is of the agent's output type


async def _segment(
    agent: Agent[Any],
    start: Input | dict[str, JsonValue],
    decided_calls: Sequence[DecidedCall],
    options: Mapping[str, Any],
    retries: int,
) -> AgentSegment:
    async def segment() -> AgentSegment:
        guard = ToolGuard(agent)
        if isinstance(start, dict):
            # The SDK changes the dict that it restores a state from.
            state = await RunState.from_json(guard.agent, copy.deepcopy(start), context_override=options.get("context"))
            guard.apply(state, decided_calls)
            result = await guard.run(state, options)
        else:
            result = await guard.run(start, options)
        if result.interruptions:
            paused = result.to_state()
            calls = tuple(calls_of(paused.get_interruptions()))
            return AgentSegment(
                agent=result.last_agent.name,
                state=json.loads(paused.to_string()),
                calls=calls,
                own=tuple(call.id for call in calls if guard.schema_of(call) is not None),
            )
        kind = result.last_agent.output_type
        return AgentSegment(
            agent=result.last_agent.name,
            output=to_jsonable_python(result.final_output, fallback=str),
            is_typed=isinstance(kind, type) and isinstance(result.final_output, kind),
        )

    return await run_segment(f"{agent.name}__segment", segment, AgentSegment, retries=retries)


def _check_still_there(guard: ToolGuard, at: AgentSegment) -> None:
    """Raise LookupError, which stalls the run, if the code has no longer what the agent waits for."""
    for call in at.calls:
        if call.id in at.own and guard.schema_of(call) is None:
            raise LookupError(
                f"the agent waits for a decision on its tool {call.tool!r}, and the agent {call.agent!r} in this code "
                "has none of this name that needs approval. Deploy code that has it."
            )


def _typed(agent: Agent[Any] | None, at: AgentSegment) -> Any:
    kind = agent.output_type if agent is not None else None
    return TypeAdapter[Any](kind).validate_python(at.output) if at.is_typed and isinstance(kind, type) else at.output


def _untraced(given: Any, tracing: bool) -> RunConfig:
    config = RunConfig(**given) if isinstance(given, dict) else given or RunConfig()
    return config if tracing else dataclasses.replace(config, tracing_disabled=True)


# ── call by call ──────────────────────────────────────────────────────────────────────────────────────────────────


def durable(
    agent: Agent[Any],
    *,
    model_step: Mapping[str, Any] | None = None,
    tool_step: Mapping[str, Any] | None = None,
    model_provider: ModelProvider | None = None,
) -> Agent[Any]:
    """Return a copy of an agent of which each request to a model and each call of a function is a step.

        agent = durable(Agent(name="travel", model="gpt-5.2", tools=[book]))

        @workflow
        async def travel(question: str) -> str:
            return await hold(agent, question, to="@ops")

    So do all agents that it may hand off to. Requests to models are retried (3 times), functions are called once,
    unless the options of `@step` in `model_step` and `tool_step` say otherwise. The steps are named
    `<agent>__model.request` and `<agent>__call_tool:<tool>`: renaming an agent or a tool stalls open runs that have
    called it. Instructions, models and new tools may change. Everything else (instructions, guardrails, policies of
    `needs_approval`, handoffs) runs in the workflow's body, so it has to be as deterministic. What functions change in
    the context is not kept, and the model sees the `str` of an output that isn't JSON.

    Raises InvalidArgumentError for what can't be recorded call by call: local tools that aren't functions, servers of
    tools, and agents as tools that aren't durable themselves. `hold(agent)` takes them as they are.
    """
    requests, calls = dict(model_step or {}), {"retries": 0} | dict(tool_step or {})

    def change(one: Agent[Any]) -> dict[str, Any]:
        if isinstance(one.model, DurableModel):
            return {}
        if one.mcp_servers:
            raise InvalidArgumentError(
                f"the agent {one.name!r} has MCP servers, whose calls can't be steps. Use hold(agent) without durable()"
            )
        model = DurableModel(one.model, one.name, requests, model_provider)
        return {"model": model, "tools": [_durable_tool(one.name, tool, calls) for tool in one.tools]}

    copies = AgentCopies(change)
    made = copies.copy_of(agent)
    made.model.copies = copies  # type: ignore[union-attr]  # handoffs hold their agents weakly
    return made


_RESPONSE = TypeAdapter(ModelResponse)


class DurableModel(Model):
    """A model of which each request is a step."""

    def __init__(
        self, inner: Model | str | None, agent: str, options: Mapping[str, Any], provider: ModelProvider | None
    ) -> None:
        """`inner` is resolved by the provider, by default the SDK's own, in the step."""
        self.inner = inner
        self.name = f"{agent}__model.request"
        self.options = options
        self.provider = provider
        self.copies: AgentCopies | None = None

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        async def request() -> JsonValue:
            try:
                response = await self._resolved().get_response(*args, **kwargs)
            except Exception as error:
                clean(error)
                if is_final(error):
                    raise FatalError(str(error)) from error
                raise
            recorded: JsonValue = _RESPONSE.dump_python(response, mode="json", exclude_unset=True)
            return recorded

        return _RESPONSE.validate_python(await step(name=self.name, **self.options)(request)())

    def stream_response(self, *args: Any, **kwargs: Any) -> Any:
        raise InvalidArgumentError("a durable agent doesn't stream: run it with hold(agent, …)")

    def _resolved(self) -> Model:
        if isinstance(self.inner, Model):
            return self.inner
        self.provider = self.provider or MultiProvider()
        return self.provider.get_model(self.inner)


def _durable_tool(agent: str, tool: Tool, options: Mapping[str, Any]) -> Tool:
    if isinstance(tool, HOSTED):
        return tool
    if not isinstance(tool, FunctionTool):
        raise InvalidArgumentError(
            f"{type(tool).__name__} of the agent {agent!r} can't be a step. Use hold(agent) without durable()"
        )
    if (nested := tool._agent_instance) is not None:
        if not isinstance(nested.model, DurableModel):
            raise InvalidArgumentError(
                f"the tool {tool.name!r} is an agent that isn't durable. Make it so before: durable(agent).as_tool(…)"
            )
        return tool
    made = copy.copy(tool)
    inner = made.on_invoke_tool

    async def invoke(context: ToolContext[Any], arguments: str) -> Any:
        async def call() -> JsonValue:
            # What the SDK notes on the context would be missing where the recorded result is replayed.
            return _plain(await inner(copy.copy(context), arguments))

        return await step(name=f"{agent}__call_tool:{tool.qualified_name}", **options)(call)()

    made.on_invoke_tool = invoke
    if callable(tool.needs_approval):
        made.needs_approval = as_careful(tool, tool.needs_approval)
    return made


def _plain(output: Any) -> JsonValue:
    """Return a tool's output as JSON, such that the model sees the same."""
    match output:
        case None | bool() | int() | float() | str():
            return output
        case ToolOutputText() | ToolOutputImage() | ToolOutputFileContent():
            dumped: JsonValue = output.model_dump(mode="json", exclude_none=True)
            return dumped
        case list() | tuple():
            return [_plain(each) for each in output]
        case dict() if all(isinstance(name, str) for name in output):
            return {name: _plain(each) for name, each in output.items()}
    return str(output)
