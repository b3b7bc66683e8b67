"""OpenAI's Agents SDK: tool calls that need approval wait for people, over HTTP.

    async with Approvals() as ap:
        result = await run_with_approvals(ap, agent, "Book a flight to Oslo", key="task-17")
        print(result.final_output)

Tools with `needs_approval` wait. What an approver decided on is compared with what the tool is about to get.
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, JsonValue

from approvals_bot.client.approvals import Approvals
from approvals_bot.client.paused_calls import CallKeys, DecidedCall, PausedCall, all_of
from approvals_bot.errors import AgentError, ApprovalMismatchError

try:
    from agents import Agent, FunctionTool, Handoff, Runner, RunResult, RunState, Tool, TResponseInputItem
    from agents.items import ToolApprovalItem
    from agents.tool_context import ToolContext
except ImportError as missing:
    raise ImportError("OpenAI's Agents SDK is missing: pip install 'approvals-bot[openai-agents]'") from missing

Input = str | list[TResponseInputItem]

NOT_JSON = (
    "The arguments are not a JSON object, so nobody was asked and nothing was done. Call the tool again with JSON."
)
CANNOT_EDIT = (
    "An approver changed the arguments, which this kind of tool can't take, so nothing was done. Do not do this; ask "
    "the user how to go on."
)


async def run_with_approvals(
    ap: Approvals,
    agent: Agent[Any],
    input: Input,
    *,
    key: str,
    to: Sequence[str] | str | None = None,
    on_behalf_of: str | None = None,
    wait: float | str | None = None,
    deadline: str | None = None,
    workflow: str | None = None,
    **options: Any,
) -> RunResult:
    """Run the agent, asking people about each tool call that needs approval. Returns what `Runner.run` returns.

        result = await run_with_approvals(ap, agent, "Book a flight to Oslo", key="task-17", to="@ops")

    All calls of a turn are requested at once; the agent goes on when all are decided. `key` names the session: each
    call's key is made of it and of the call's id, so the same call is never requested twice. `options` are those of
    `Runner.run`, such as `context`, `session` and `run_config`. A call without a yes doesn't run, and the model reads
    why: rejected, answered, expired, or that the service can't be reached.
    """

    async def decide(call: PausedCall, call_key: str, schema: dict[str, Any] | None) -> DecidedCall:
        try:
            return DecidedCall(
                call,
                await ap.ask(
                    f"{key}:{call_key}",
                    call.tool,
                    call.arguments,
                    to=to,
                    on_behalf_of=on_behalf_of,
                    wait=wait,
                    deadline=deadline,
                    workflow=workflow,
                    agent=call.agent,
                    expects=schema,
                ),
            )
        except AgentError as error:
            return DecidedCall(call, error)

    return await run_to_its_end(agent, input, decide, options, await _keys_of(input, options))


async def _keys_of(input: Input, options: Mapping[str, Any]) -> CallKeys:
    """Return the keys of a run's calls. An id of the history that comes again is another call.

    In a session, only calls with an output count: the others may be those of this run, before a restart.
    """
    items = [] if isinstance(input, str) else cast(list[dict[str, Any]], input)
    session = options.get("session")
    kept = [] if session is None else cast(list[dict[str, Any]], await session.get_items())
    done = {item.get("call_id") for item in kept if item.get("type") == "function_call_output"}
    ids = [*_call_ids(items), *(id for id in _call_ids(kept) if id in done)]
    before = [options.get(name) for name in ("previous_response_id", "conversation_id")]
    goes_on = len(items) > 1 or session is not None or any(before)
    return CallKeys(earlier=ids, history=[input, before, _before(input, kept)] if goes_on else None)


def _before(input: Input, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a session keeps from before this run, also when the run is retried.

    A run that died has left its input, and what followed up to a tool: a run that has ended leaves the model's answer.
    """
    while kept and kept[-1].get("role") != "assistant":
        begun = [at for at, item in enumerate(kept) if item.get("role") == "user" and item.get("content") == input]
        if not begun:
            break
        kept = kept[: begun[-1]]
    return kept


def _call_ids(items: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(item.get("call_id")) for item in items if item.get("type") == "function_call"]


Decide = Callable[[PausedCall, str, dict[str, Any] | None], Coroutine[Any, Any, DecidedCall]]
"""Gets a decision on a call, given the call's key and the JSON schema of its arguments."""


async def run_to_its_end(
    agent: Agent[Any], input: Input, decide: Decide, options: Mapping[str, Any], keys: CallKeys
) -> RunResult:
    """Run the agent, with decisions on all calls of a turn whenever it pauses."""
    guard = ToolGuard(agent)
    result = await guard.run(input, options)
    while result.interruptions:
        state = result.to_state()
        calls = calls_of(state.get_interruptions())
        asked = [decide(call, keys.key_of(call), guard.schema_of(call)) for call in calls]
        guard.apply(state, await all_of(asked))
        result = await guard.run(state, options)
    return result


def calls_of(items: Iterable[ToolApprovalItem]) -> list[PausedCall]:
    """Return the tool calls that people decide: all that the agent pauses on and whose arguments are JSON."""
    return [call for item in items if (call := _call_of(item)) is not None]


def _call_of(item: ToolApprovalItem) -> PausedCall | None:
    arguments = _arguments_of(item)
    if arguments is None:
        return None
    return PausedCall(item.call_id or "", item.qualified_name or item.name or "", arguments, item.agent.name)


def _arguments_of(item: ToolApprovalItem) -> dict[str, JsonValue] | None:
    if item.arguments is None:  # a shell command or a patch
        raw = item.raw_item
        shown = raw.model_dump(mode="json", exclude_unset=True) if isinstance(raw, BaseModel) else dict(raw)
        return {name: value for name, value in shown.items() if name not in ("id", "call_id", "status", "type")}
    arguments = as_arguments(item.arguments)
    return {"input": item.arguments} if arguments is None and not _is_function(item) else arguments


def _is_function(item: ToolApprovalItem) -> bool:
    raw = item.raw_item
    return (raw.get("type") if isinstance(raw, Mapping) else raw.type) == "function_call"


def as_arguments(text: str) -> dict[str, JsonValue] | None:
    """Return the arguments of a function call. None if they aren't a JSON object. An empty text is no arguments."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return arguments if isinstance(arguments, dict) else None


class ToolGuard:
    """A copy of an agent whose tools run only with the arguments that people decided on.

    All agents that it may hand off to are copied with it. Tools that need no approval stay as they are.
    """

    def __init__(self, agent: Agent[Any]) -> None:
        self.mismatch: ApprovalMismatchError | None = None
        self._decided: dict[str, DecidedCall] = {}  # by the call's id
        self._tools: dict[tuple[str | None, str], FunctionTool] = {}  # those that need approval, by agent and name
        self.copies = AgentCopies(lambda one: {"tools": [self._guarded(one, tool) for tool in one.tools]})
        self.agent = self.copies.copy_of(agent)

    async def run(self, input: Input | RunState[Any, Any], options: Mapping[str, Any]) -> RunResult:
        """Run the agent until it pauses or ends.

        Raises ApprovalMismatchError if a tool was about to get other arguments than those that were decided on.
        """
        try:
            return await Runner.run(self.agent, input, **options)
        except Exception:
            if self.mismatch is not None:
                raise self.mismatch from None  # the SDK wraps what a tool raises
            raise

    def schema_of(self, call: PausedCall) -> dict[str, Any] | None:
        """Return the JSON schema of the call's arguments, if it is a call of a function."""
        tool = self._tools.get((call.agent, call.tool))
        return None if tool is None else tool.params_json_schema

    def apply(self, state: RunState[Any, Any], decided_calls: Iterable[DecidedCall]) -> None:
        """Give the paused agent what came of its calls, all of a turn together.

        Raises ApprovalMismatchError if it now pauses on other calls than those that people were shown.
        """
        waiting = list(decided_calls)
        for item in state.get_interruptions():
            call = _call_of(item)
            if call is None:
                state.reject(item, rejection_message=NOT_JSON)
                continue
            decided = _pop_decided(waiting, call)
            decided.check_unchanged(call)
            if not decided.approved:
                state.reject(item, rejection_message=decided.text)
            elif call.id and (call.agent, call.tool) in self._tools and self.copies.has(item.agent):
                self._decided[call.id] = decided
                state.approve(item)
            elif decided.arguments_for(call.tool, call.arguments) == call.arguments:
                state.approve(item)  # what runs isn't a copy: a tool of a server, or of an agent that is a tool
            else:
                state.reject(item, rejection_message=CANNOT_EDIT)

    def _guarded(self, agent: Agent[Any], tool: Tool) -> Tool:
        if not isinstance(tool, FunctionTool) or tool.needs_approval is False:
            return tool
        guarded = copy.copy(tool)
        self._tools[agent.name, tool.qualified_name] = guarded
        inner = guarded.on_invoke_tool

        async def invoke(context: ToolContext[Any], arguments: str) -> Any:
            decided = self._decided.get(context.tool_call_id)
            if decided is None:
                self._check_needs_none(tool, context)
                return await inner(context, arguments)
            return await inner(context, self._checked(decided, context.qualified_tool_name, arguments))

        guarded.on_invoke_tool = invoke
        if callable(tool.needs_approval):
            guarded.needs_approval = as_careful(tool, tool.needs_approval)
        return guarded

    def _check_needs_none(self, tool: FunctionTool, context: ToolContext[Any]) -> None:
        """Raise ApprovalMismatchError for a call that needs approval and has none.

        An agent that is a tool is called again when its own calls are decided.
        """
        if tool.needs_approval is True and tool._agent_instance is None:
            self.mismatch = ApprovalMismatchError(context.tool_call_id, "", "")
            raise self.mismatch

    def _checked(self, decided: DecidedCall, tool: str, text: str) -> str:
        arguments = as_arguments(text)
        try:
            if arguments is None:
                raise ApprovalMismatchError(decided.call.id, "", "")
            checked = decided.arguments_for(tool, arguments)
        except ApprovalMismatchError as mismatch:
            self.mismatch = mismatch
            raise
        return text if checked == arguments else json.dumps(checked, ensure_ascii=False)


def _pop_decided(waiting: list[DecidedCall], call: PausedCall) -> DecidedCall:
    """Take what was decided about this call: by its id, or, without one, by what was shown."""
    for decided in waiting:
        if decided.call.id == call.id and (call.id or decided.call == call):
            waiting.remove(decided)
            return decided
    raise ApprovalMismatchError(call.id or "this request", "", "")


Policy = Callable[[Any, dict[str, Any], str], Awaitable[bool]]


def as_careful(tool: FunctionTool, policy: Policy) -> Policy:
    """Return a policy for a copy of a tool that is invoked otherwise: with what the SDK adds for its own functions.

    There, arguments that validation changes always need approval, since the policy would see others than the tool
    gets. The SDK recognizes its functions by how they are invoked.
    """
    prepare = getattr(tool.on_invoke_tool, "prepare_arguments", None)
    if prepare is None:
        return policy

    async def careful(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        prepared = prepare(json.dumps(arguments), tool.name)
        return (prepared is not None and not prepared.unchanged) or await policy(context, arguments, call_id)

    return careful


class AgentCopies:
    """AgentCopies of agents with some of their attributes changed, and of all agents that they may hand off to."""

    def __init__(self, change: Callable[[Agent[Any]], dict[str, Any]]) -> None:
        self._change = change
        self._copies: dict[int, tuple[Agent[Any], Agent[Any]]] = {}  # by the id of the first; handoffs hold them weakly

    def copy_of(self, agent: Agent[Any]) -> Agent[Any]:
        """Return the copy of this agent, always the same one."""
        if id(agent) not in self._copies:
            changes = {"model_settings": agent.model_settings, "handoffs": []} | self._change(agent)
            made = agent.clone(**changes)
            self._copies[id(agent)] = (agent, made)  # before its handoffs, which may lead back
            made.handoffs = [self._handoff(each) for each in agent.handoffs]
        return self._copies[id(agent)][1]

    def has(self, agent: Agent[Any] | None) -> bool:
        """Return whether this agent is one of the copies."""
        return any(made is agent for _, made in self._copies.values())

    def named(self, name: str) -> Agent[Any] | None:
        """Return the copy of the agent of this name."""
        return next((made for _, made in self._copies.values() if made.name == name), None)

    def _handoff(self, handoff: Agent[Any] | Handoff[Any, Any]) -> Agent[Any] | Handoff[Any, Any]:
        if isinstance(handoff, Agent):
            return self.copy_of(handoff)
        made, invoke = copy.copy(handoff), handoff.on_invoke_handoff

        async def to_copy(context: Any, arguments: str) -> Agent[Any]:
            return self.copy_of(await invoke(context, arguments))

        made.on_invoke_handoff = to_copy
        target = handoff._agent_ref() if handoff._agent_ref is not None else None
        if isinstance(target, Agent):
            made._agent_ref = weakref.ref(self.copy_of(target))  # a saved state finds its agents by it
        return made
