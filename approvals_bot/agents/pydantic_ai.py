"""Agents of pydantic-ai inside a workflow: each request to a model and each tool call is a step.

    agent = Agent("openai:gpt-5.2", name="travel", capabilities=[Durable()])

    @workflow
    async def travel(question: str) -> str:
        return (await agent.run(question)).output

The names of the steps are part of the log: `travel__model.request`, or for a tool
`travel__function_toolset__<agent>.call_tool:search`. Their inputs aren't, so an open run goes on with other
instructions, another model or a new tool. It stalls where an agent or a tool that it has called has another name now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, TypedDict
from weakref import WeakKeyDictionary

from approvals_bot.agents.model_errors import cause_of, clean, is_final
from approvals_bot.agents.tool_calls import DEADLINE, approve
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.client.decision import Decision
from approvals_bot.client.pydantic_ai import ApprovalsByPeople, expected_arguments
from approvals_bot.durable.core.api import now
from approvals_bot.durable.core.context import current_run, in_workflow
from approvals_bot.durable.core.durations import Duration
from approvals_bot.durable.core.loop import AtOnce
from approvals_bot.durable.core.run import RunState
from approvals_bot.durable.core.steps import step
from approvals_bot.errors import (
    FatalError,
    InvalidArgumentError,
    InvalidPayloadError,
    RequestRefusedError,
    StepFailedError,
)

try:
    from pydantic_ai import Agent
    from pydantic_ai.agent import EventStreamHandler
    from pydantic_ai.capabilities import WrapRunHandler
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        CallToolResult,
        DurabilityEngineSpec,
        DurableOperationId,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        ToolsetCallToolId,
        conversation_id_from_run_id,
    )
    from pydantic_ai.exceptions import AgentRunError, ModelHTTPError, UserError
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.tools import AgentDepsT, RunContext
except ImportError as missing:
    raise ImportError(
        "Agents of pydantic-ai need its version 2.63 or later: pip install 'approvals-bot[pydantic-ai]'"
    ) from missing

METADATA = "approvals_bot"
"""The key in a tool's metadata: `False` runs the tool in the workflow, a dict has options of its step."""

WEIGHT = 1_000_000
"""The share of `CACHED_SIZE` that a run with an agent takes.

An agent that waits after 20 turns holds up to 3.5 MB, so only ten are kept ready to go on at once. All others are rows.
"""


class StepOptions(TypedDict, total=False):
    """How steps of an agent are attempted: the options of `@step`."""

    retries: int
    timeout: Duration | None
    retry_delay: Duration
    backoff: float
    max_delay: Duration
    jitter: bool
    limit: str | None


class _Backend(JournalCallableOperationBackend[StepOptions]):
    """Runs each operation of an agent as a step."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: StepOptions,
    ) -> object:
        async def operation() -> Any:
            try:
                return await body()
            except Exception as error:
                if not isinstance(operation_id, ToolsetCallToolId):
                    clean(error)
                if isinstance(error, UserError) or (isinstance(error, ModelHTTPError) and is_final(error)):
                    raise FatalError(str(error)) from error
                raise

        try:
            return await step(name=name, **config)(operation)()
        except StepFailedError as failed:
            # Hooks and ModelFallback look for these classes.
            if isinstance(error := cause_of(failed), AgentRunError | UserError):
                raise error from failed
            raise


class Durable(BaseDurabilityCapability[AgentDepsT]):
    """The capability that makes an agent durable inside a `@workflow`. Outside of one it does nothing.

        agent = Agent(
            "openai:gpt-5.2", name="travel", capabilities=[Durable(model_step={"timeout": "2 minutes"})]
        )

    - `model_step` has options of `@step` for requests to the model. They have 3 retries by default.
    - `tool_step` has those for tool calls: by default each is attempted once, because not every tool may run twice. A
      tool's `metadata={"approvals_bot": {"retries": 3}}` goes before that. `metadata={"approvals_bot": False}` runs
      a tool in the workflow, where it may await hooks, `sleep`, steps and `approve`.
    - `models` are models that a run may choose by key: `agent.run(…, model="cheap")`.
    - `event_stream_handler` gets the events of the run: those of a response as they come, inside its step, and each
      other one in a step of its own.

    The agent needs a name, because the names of its steps begin with it; without one, pydantic-ai raises UserError.
    Plain functions for instructions, history and validation run in the workflow, and have to be as pure as its body.
    """

    engine_spec: ClassVar = DurabilityEngineSpec(
        engine_name="Approvals Bot",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=JSON_CODEC,
        # A connection that a step opened belongs to the event loop of steps, so the body can't close it.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-never", "dynamic": "enter-never"},
        tool_config_key=METADATA,
    )

    def __init__(
        self,
        *,
        model_step: StepOptions | None = None,
        tool_step: StepOptions | None = None,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler)
        self._model_step: StepOptions = model_step or {}
        self._tool_step: StepOptions = {"retries": 0, **(tool_step or {})}
        step(**self._model_step)  # raises for what makes no sense
        step(**self._tool_step)
        _warm_up()

    @property
    def in_durable_context(self) -> bool:
        return in_workflow()

    def get_default_run_id(self) -> str | None:
        if not in_workflow():
            return None
        run = current_run("an agent")
        number = _agent_runs[run] = _agent_runs.get(run, 0) + 1
        run.weight = WEIGHT
        return f"{run.run_id}:{number}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if in_workflow() else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        return now() if in_workflow() else None

    def get_durable_operation_backend(self) -> _Backend:
        return _Backend(
            agent_name=self.name,
            default_model_id=self.default_model_id,
            config=RoleBasedOperationConfig(
                model=self._model_step,
                event={},
                capability={},
                tool=self._tool_step,
                resolve_tool=self._options_of_tool,
            ),
        )

    def _options_of_tool(
        self, operation: DurableOperationId, tool: Any | None, name: str
    ) -> StepOptions | Literal[False]:
        """Return the options of a toolset's step. False: the tool runs in the workflow."""
        options: StepOptions = self._tool_step if isinstance(operation, ToolsetCallToolId) else {}  # others only ask
        own = None if tool is None else (tool.tool_def.metadata or {}).get(METADATA)
        match own:
            case None:
                return options
            case False:
                return False
            case dict():
                return StepOptions(**{**options, **own})  # `step` checks them
            case _:
                raise InvalidArgumentError(
                    f"{METADATA} in the metadata of tool {name!r} must be False or a dict of options"
                )

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        if not in_workflow():
            return await super().wrap_run(ctx, handler=handler)
        try:
            with Agent.using_thread_executor(AtOnce()):
                return await super().wrap_run(ctx, handler=handler)
        except (AgentRunError, UserError) as error:
            # The provider is down, or the model answers nonsense: an end of the run, and no bug in any code. A
            # UserError is one, unless a step has failed with it, which no new release would change.
            if isinstance(error, AgentRunError) or isinstance(error.__cause__, StepFailedError):
                current_run("an agent").outcomes.append(error)
            raise


_agent_runs: WeakKeyDictionary[RunState, int] = WeakKeyDictionary()
"""The number of agent runs that each replay has begun."""


def _warm_up() -> None:
    """Build what pydantic-ai builds on first use: a body has little time (`ACTIVATION_TIME`)."""
    JSON_CODEC.load(ModelResponse, JSON_CODEC.dump(ModelResponse, ModelResponse([])))
    JSON_CODEC.load(CallToolResult, {"kind": "tool_return", "result": None})


# ── approvals ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _InWorkflow(ApprovalsByPeople[AgentDepsT]):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options  # of `approve`

    def is_active(self) -> bool:
        return in_workflow()

    async def decide(self, ctx: RunContext[AgentDepsT], call: ToolCallPart, why: str | None) -> Decision:
        options = dict(self._options)
        options["why"] = options["why"] or why
        try:
            return await approve(
                call.tool_name,
                call.args_as_dict(),
                tool_call_id=_key_of(call.tool_call_id),
                agent=ctx.agent.name if ctx.agent is not None else None,
                expects=expected_arguments(ctx, call),
                **options,
            )
        except InvalidPayloadError as error:  # more than a card can show, or no JSON: the model's mistake
            raise RequestRefusedError(422, str(error), error.errors) from error


def _key_of(tool_call_id: str) -> str:
    """Return the key of a request. An id that comes again is another call: an old yes never counts for a new one."""
    ids = _requested.setdefault(current_run("an approval"), Counter())
    ids[tool_call_id] += 1
    return tool_call_id if ids[tool_call_id] == 1 else f"{tool_call_id}.{ids[tool_call_id]}"


_requested: WeakKeyDictionary[RunState, Counter[str]] = WeakKeyDictionary()
"""How often each replay has requested each tool call id."""


def approvals(
    *,
    to: str | Sequence[str] | None = None,
    why: str | None = None,
    deadline: str | timedelta | None = DEADLINE,
    on_behalf_of: str | None = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    deliver: Deliver | Mapping[str, Any] | None = None,
) -> ApprovalsByPeople[AgentDepsT]:
    """Let people decide the tool calls of an agent that need approval. The options are those of `approve`.

        agent = Agent("openai:gpt-5.2", name="travel", capabilities=[Durable(), approvals(to="@ops")])

        @agent.tool_plain(requires_approval=True)
        async def book(flight: str, price: float) -> str: ...

    Each call is a request of its own. The agent goes on once all of a turn's calls are decided, in any order. A tool
    that needs approval only sometimes raises `ApprovalRequired({"why": "over the limit"})`.

    What the tool is about to get is compared with what was approved, right before it runs: ApprovalMismatchError.
    Where it doesn't run, the model reads why as the tool's result, and what to do. Outside a workflow, `approvals` does
    nothing, and pydantic-ai ends the run with the calls that wait.
    """
    named = {"to": to, "why": why, "deadline": deadline, "on_behalf_of": on_behalf_of}
    return _InWorkflow({**named, "stages": stages, "deliver": deliver})
