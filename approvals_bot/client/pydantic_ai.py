"""People approve the tool calls of a pydantic-ai agent, in any Python program.

    async with Approvals() as ap:
        agent = Agent("openai:gpt-5.2", capabilities=[approvals(ap, key="task-17")])

Tools with `requires_approval=True`, and those that raise `ApprovalRequired`, wait for people. The agent goes on once
all of a turn's calls are decided.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from pydantic_core import to_jsonable_python

from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import digest_of
from approvals_bot.client.paused_calls import LONGEST_ID, history_mark
from approvals_bot.client.tool_request import AskOptions, is_usable_key
from approvals_bot.client.words import error_text
from approvals_bot.errors import AgentError, ApprovalMismatchError

try:
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequestPart,
        ModelResponse,
        ModelResponsePart,
        ToolCallPart,
    )
    from pydantic_ai.tools import (
        AgentDepsT,
        DeferredToolRequests,
        DeferredToolResults,
        RunContext,
        ToolApproved,
        ToolDenied,
    )
    from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset
except ImportError as missing:
    raise ImportError(
        "Agents of pydantic-ai need its version 2.63 or later: pip install 'approvals-bot[pydantic-ai]'"
    ) from missing

if TYPE_CHECKING:
    from approvals_bot.client import Approvals

DECISION = "approvals_bot"
"""The key of the decision, as JSON, in `ctx.tool_call_metadata` of an approved tool call."""

GENERATED_ID = "pyd_ai_"
"""The beginning of ids that pydantic-ai gives to tool calls without one: other ones each time."""


class ApprovalsByPeople(AbstractCapability[AgentDepsT]):
    """Requests a decision for each tool call that needs one, all of a turn at once.

    What the tool is about to get is compared with what was approved, as the last thing before it runs. If it differs,
    ApprovalMismatchError ends the agent's run.
    """

    @abstractmethod
    async def decide(self, ctx: RunContext[AgentDepsT], call: ToolCallPart, why: str | None) -> Decision:
        """Return what people decided about this call. AgentErrors become what the model reads."""

    def is_active(self) -> bool:
        """Return whether people are asked here. Otherwise, the calls are left to others."""
        return True

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        if not requests.approvals or not self.is_active():
            return None
        reasons = [requests.metadata.get(call.tool_call_id, {}).get("why") for call in requests.approvals]
        answers = await asyncio.gather(
            *(self._answer(ctx, call, why) for call, why in zip(requests.approvals, reasons, strict=True))
        )
        answered = {call.tool_call_id: answer for call, answer in zip(requests.approvals, answers, strict=True)}
        return requests.build_results(
            approvals={
                id: answer if isinstance(answer, ToolDenied) else _approval(answer) for id, answer in answered.items()
            },
            metadata={
                id: {DECISION: answer.model_dump(mode="json")}
                for id, answer in answered.items()
                if isinstance(answer, Decision)
            },
        )

    async def _answer(self, ctx: RunContext[AgentDepsT], call: ToolCallPart, why: Any) -> Decision | ToolDenied:
        try:
            decision = await self.decide(ctx, call, why if isinstance(why, str) else None)
        except AgentError as error:
            return ToolDenied(error_text(error))
        return decision if decision.approved else ToolDenied(decision.text)

    def get_wrapper_toolset(self, toolset: AbstractToolset[AgentDepsT]) -> AbstractToolset[AgentDepsT]:
        return _Compared(toolset)


def _approval(decision: Decision) -> ToolApproved:
    """Return the approval of a decision. Edited arguments go through the tool's own schema again."""
    return ToolApproved(override_args=None if decision.state == "approved" else dict(decision.arguments or {}))


@dataclass
class _Compared(WrapperToolset[AgentDepsT]):
    """A toolset that runs an approved call only with the arguments that were decided on."""

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[AgentDepsT], tool: ToolsetTool[AgentDepsT]
    ) -> Any:
        metadata = ctx.tool_call_metadata if ctx.tool_call_approved else None
        if isinstance(metadata, Mapping) and DECISION in metadata:
            _compare(Decision.model_validate(metadata[DECISION]), name, tool_args, ctx, tool)
        return await super().call_tool(name, tool_args, ctx, tool)


def _compare(
    decision: Decision, name: str, given: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
) -> None:
    """Raise ApprovalMismatchError unless a tool gets what its schema makes of the arguments that were decided on."""
    decided = decision.arguments or {}
    decision.require(decided)
    expected = tool.args_validator.validate_python(decided, context=ctx.validation_context)
    digests = _digest(decision.tool or name, expected), _digest(name, given)
    if expected != given or digests[0] != digests[1]:
        raise ApprovalMismatchError(decision.request_id or name, *digests)


def _digest(tool: str, arguments: dict[str, Any]) -> str:
    """Return the digest of arguments as the tool gets them, which may be objects: empty where they aren't JSON."""
    try:
        return digest_of(tool, to_jsonable_python(arguments))
    except ValueError:
        return ""


class _OverHttp(ApprovalsByPeople[AgentDepsT]):
    def __init__(self, ap: Approvals, key: str | Callable[[RunContext[AgentDepsT]], str], options: AskOptions) -> None:
        self._ap, self._key, self._options = ap, key, options

    async def decide(self, ctx: RunContext[AgentDepsT], call: ToolCallPart, why: str | None) -> Decision:
        arguments = call.args_as_dict()
        session = self._key if isinstance(self._key, str) else self._key(ctx)
        options = AskOptions(expects=expected_arguments(ctx, call), agent=ctx.agent.name if ctx.agent else None)
        if why is not None:
            options["why"] = why
        options.update(self._options)
        before = [part for each in ctx.messages if each.run_id != ctx.run_id for part in map(_said, each.parts)]
        key = f"{session}:{_id_of(call, arguments, ctx.messages, history_mark(before))}"
        return await self._ap.ask(key, call.tool_name, arguments, **options)


def expected_arguments(ctx: RunContext[Any], call: ToolCallPart) -> dict[str, Any] | None:
    """Return the JSON Schema of a tool's arguments, which edits are checked against."""
    tool = ctx.tools.get(call.tool_name)
    return tool.parameters_json_schema if tool is not None else None


def _said(part: ModelRequestPart | ModelResponsePart) -> list[Any]:
    """Return what a part of a message says, without when: a history that is built again has other times."""
    names = ("part_kind", "content", "tool_name", "tool_call_id", "args")
    return [to_jsonable_python(getattr(part, name, None), fallback=str) for name in names]


def _id_of(call: ToolCallPart, arguments: dict[str, Any], messages: Sequence[ModelMessage], history: str = "") -> str:
    """Return what distinguishes a call from the others of its session, the same after a restart.

    That is the model's id, or the digest where it gave none that can be used. What the run goes on from follows
    (`history_mark`), and the number of a repetition in the history, so an old yes never counts for a new call.
    """
    is_usable = is_usable_key(call.tool_call_id) and len(call.tool_call_id) <= LONGEST_ID
    own = is_usable and not call.tool_call_id.startswith(GENERATED_ID)
    id, number = call.tool_call_id if own else _digest(call.tool_name, arguments), 0
    for each in _calls_in(messages):
        if own:
            number += each.tool_call_id == id
        else:
            number += each.tool_name == call.tool_name and _digest(each.tool_name, each.args_as_dict()) == id
        if each is call or (not own and each.tool_call_id == call.tool_call_id):
            break
    named = f"{id}{history}"
    return f"{named}.{number}" if number > 1 or not own else named


def _calls_in(messages: Sequence[ModelMessage]) -> list[ToolCallPart]:
    responses = (each for each in messages if isinstance(each, ModelResponse))
    return [part for response in responses for part in response.parts if isinstance(part, ToolCallPart)]


def approvals(
    ap: Approvals, *, key: str | Callable[[RunContext[AgentDepsT]], str], **options: Unpack[AskOptions]
) -> ApprovalsByPeople[AgentDepsT]:
    """Let people decide the tool calls of an agent that need approval. The options are those of `ap.ask`.

        Agent("openai:gpt-5.2", capabilities=[approvals(ap, key=lambda ctx: ctx.deps.task, to="@ops")])

    `key` names the agent's session: after a restart, the same calls of the same session find their requests, and so
    the answers that were given meanwhile. A tool may give the reason: `raise ApprovalRequired({"why": "over limit"})`.

    Where the tool doesn't run, the model reads why as its result, and what to do.
    """
    return _OverHttp(ap, key, options)
