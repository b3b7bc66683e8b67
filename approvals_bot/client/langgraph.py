"""Graphs of LangGraph: interrupts wait for people, over HTTP.

    async with Approvals() as ap:
        values = await run_with_approvals(ap, graph, {"messages": [("user", "Book a flight to Oslo")]}, config)

`interrupt()` waits, and so do the tool calls of `HumanInTheLoopMiddleware`. What an approver decided on is compared
with what the tool is about to get.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from pydantic_core import to_jsonable_python

from approvals_bot.client.approvals import Approvals
from approvals_bot.client.interrupts import Answers, GraphPause, answer_pauses, pause_of, value_for
from approvals_bot.client.paused_calls import DecidedCall, PausedCall
from approvals_bot.client.tool_request import AskOptions
from approvals_bot.errors import AgentError, ApprovalMismatchError, ApprovalsBotError, InvalidArgumentError

try:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import RunnableConfig
    from langchain_core.runnables.config import merge_configs
    from langgraph.types import Command
except ImportError as missing:
    raise ImportError("LangGraph is missing: pip install 'approvals-bot[langgraph]'") from missing


async def run_with_approvals(
    ap: Approvals,
    graph: Any,
    input: Any,
    config: RunnableConfig,
    *,
    key: str | None = None,
    **options: Unpack[AskOptions],
) -> Any:
    """Run the graph, asking people whenever it interrupts. Returns the graph's values.

        config = {"configurable": {"thread_id": "17"}}
        values = await run_with_approvals(ap, graph, {"messages": [("user", "Oslo")]}, config)

    Each tool call is its own request, and all are requested at once; the graph goes on when it can. `key` names the
    session, by default the thread. Looks at the thread first: if an earlier process died while interrupts were open,
    their requests and answers are found again, and `input` isn't used. `options` are those of `Approvals.ask`: `to`,
    `on_behalf_of`, `deadline`, `wait`, …

    A call without a yes doesn't run, and the model reads why. A graph's own `interrupt()` returns the text of an
    answer, True if approved, the edited value, and False in all other cases.
    """
    session = key or config.get("configurable", {}).get("thread_id")
    if not session:
        raise InvalidArgumentError("name the session: key='…', or a thread_id in the config")
    check_checkpointer(graph)

    async def decide(call: PausedCall, call_key: str, schema: Any) -> DecidedCall:
        try:
            given: AskOptions = {"expects": schema, **options}
            return DecidedCall(call, await ap.ask(f"{session}:{call_key}", call.tool, call.arguments, **given))
        except AgentError as error:
            return DecidedCall(call, error)

    thread = await look_at(graph, config)
    if not thread.pauses:
        thread = await _invoke(graph, config, None if thread.is_under_way else input, ())
    thread = await answer_pauses(thread, decide, lambda answers: advance(graph, config, None, answers))
    return thread.values


@dataclass(frozen=True, slots=True)
class ThreadState:
    """A thread of a graph: whether it was started, what it waits for, and whether there is something left to run."""

    is_started: bool
    is_under_way: bool
    pauses: tuple[GraphPause, ...]
    values: Any


async def look_at(graph: Any, config: RunnableConfig) -> ThreadState:
    """Return how far the thread has come, from its last checkpoint."""
    state = await graph.aget_state(config)
    called = _tool_calls(state.values)
    earlier = Counter(str(call.get("id") or "") for calls in called[:-1] for call in calls)
    pauses = tuple(
        pause_of(
            interrupt.id,
            to_jsonable_python(interrupt.value, fallback=str),
            node=task.name,
            schema=to_jsonable_python(interrupt.response_schema, fallback=str),
            tool_calls=called[-1] if called else (),
            earlier=earlier,
        )
        for task in state.tasks
        for interrupt in task.interrupts
    )
    return ThreadState(state.created_at is not None, bool(state.next), pauses, state.values)


def _tool_calls(values: Any) -> list[Sequence[Mapping[str, Any]]]:
    """Return the tool calls of each message that has some."""
    messages = values.get("messages") if isinstance(values, Mapping) else None
    return [calls for each in messages or () if (calls := getattr(each, "tool_calls", None))]


async def advance(graph: Any, config: RunnableConfig, input: Any, answers: Answers) -> ThreadState:
    """Run the thread until it interrupts or ends, from its last checkpoint. Returns how far it has come then.

    A thread that was never started gets the input. One with open interrupts is resumed with those answers that it still
    waits for. One that died in between goes on from its last checkpoint. A thread that has ended stays as it is, and
    so does one that waits for other answers. Raises ApprovalMismatchError if it waits for other calls, or runs a tool
    with other arguments, than those that people decided on.
    """
    thread = await look_at(graph, config)
    decided_calls = [decided for each in answers.values() for decided in each]
    if not thread.is_started:
        return await _invoke(graph, config, input, decided_calls)
    if resume := _resume(thread.pauses, answers):
        return await _invoke(graph, config, Command(resume=resume), decided_calls)
    if thread.pauses or not thread.is_under_way:
        return thread
    return await _invoke(graph, config, None, decided_calls)


def _resume(pauses: Iterable[GraphPause], answers: Answers) -> dict[str, Any]:
    resume = {}
    for pause in pauses:
        if pause.id in answers:
            if len(answers[pause.id]) != len(pause.calls):
                raise ApprovalMismatchError(pause.id, "", "")
            for decided, call in zip(answers[pause.id], pause.calls, strict=True):
                decided.check_unchanged(call)
            resume[pause.id] = value_for(pause, answers[pause.id])
    return resume


async def _invoke(graph: Any, config: RunnableConfig, given: Any, decided_calls: Iterable[DecidedCall]) -> ThreadState:
    guard = CallbackGuard(decided_calls)
    guarded = merge_configs(config, {"callbacks": [guard]})
    await graph.ainvoke(given, guarded, durability="sync")
    if guard.refusal is not None:  # the graph's own handling of errors has swallowed it
        raise guard.refusal
    thread = await look_at(graph, config)
    if thread.is_under_way and not thread.pauses:
        raise InvalidArgumentError(
            "the graph stops without an interrupt, as interrupt_before and interrupt_after do: nobody can answer that. "
            "Call interrupt() in the node instead."
        )
    return thread


class CallbackGuard(BaseCallbackHandler):
    """Keeps tools from running with other arguments than those that people decided on."""

    raise_error = True  # else an error in a callback is only logged
    run_inline = True  # in front of the tool, not beside it

    def __init__(self, decided_calls: Iterable[DecidedCall]) -> None:
        self.refusal: ApprovalsBotError | None = None
        self._decided = {decided.call.id: decided for decided in decided_calls if decided.call.id}

    def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, inputs: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Compare what the tool is about to get with what was decided."""
        decided = self._decided.get(str(more.get("tool_call_id")))
        if decided is None:
            return
        try:
            decided.require(str(serialized.get("name")), inputs or {})
        except ApprovalsBotError as refusal:
            self.refusal = refusal
            raise


# ── checkpointers ─────────────────────────────────────────────────────────────────────────────────────────────────


def check_checkpointer(graph: Any) -> None:
    """Raise InvalidArgumentError for a graph without a checkpointer: it couldn't wait."""
    if getattr(graph, "checkpointer", None) in (None, False, True):
        raise InvalidArgumentError("the graph has no checkpointer: compile it with one, so that it can be resumed")
