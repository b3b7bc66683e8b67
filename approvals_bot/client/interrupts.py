"""Interrupts of LangGraph, as tool calls for people to decide, and what the graph is resumed with.

`HumanInTheLoopMiddleware` interrupts once for all calls of a turn (`batched`) or once for each (`per_call`). Any other
value, from a graph's own `interrupt()`, is shown as it is. Nothing here needs LangGraph itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

from pydantic import JsonValue

from approvals_bot.client.decision import Decision
from approvals_bot.client.paused_calls import CallKeys, DecidedCall, PausedCall, all_of
from approvals_bot.errors import DeniedError

NOT_OFFERED = (
    "An approver chose what this tool doesn't offer, so nothing was done. Do not do this; ask the user how to go on."
)

Kind = Literal["batched", "per_call", "other"]


@dataclass(frozen=True, slots=True)
class GraphPause:
    """An open interrupt: the calls to decide, what each may be answered with, and the schema of its arguments."""

    id: str
    kind: Kind
    calls: tuple[PausedCall, ...]
    allowed: tuple[tuple[str, ...], ...] = ()  # by call: approve, edit, reject, respond
    schemas: tuple[dict[str, Any] | None, ...] = ()  # by call


def pause_of(
    id: str,
    value: Any,
    *,
    node: str,
    schema: Any = None,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    earlier: Mapping[str, int] = MappingProxyType({}),
) -> GraphPause:
    """Return what an interrupt asks for.

    `value` is JSON. `schema` is that of its answer, `tool_calls` are those of the model's last message: in `batched`
    mode, an interrupt doesn't name the calls that it is about. `earlier` counts the calls of earlier messages by id.
    """
    match value:
        case {"action_requests": [*actions], "review_configs": [*configs]}:
            ids = _ids_of(actions, tool_calls)
            calls = tuple(
                PausedCall(call_id, action["name"], dict(action["args"]), number=earlier.get(call_id, 0) + 1)
                for call_id, action in zip(ids, actions, strict=True)
            )
            allowed = tuple(tuple(each["allowed_decisions"]) for each in configs)
            return GraphPause(id, "batched", calls, allowed, (None,) * len(calls))
        case {"type": "tool_approval", "tool_call_id": str(call_id), "name": str(name), "args": dict(arguments)}:
            call = PausedCall(call_id, name, dict(arguments), number=earlier.get(call_id, 0) + 1)
            return GraphPause(id, "per_call", (call,), (_allowed_by(schema),), (_arguments_schema(schema),))
    arguments = value if isinstance(value, dict) else {"value": value}
    return GraphPause(id, "other", (PausedCall(id, node, arguments),), ((),), (None,))


def _ids_of(actions: Iterable[Mapping[str, Any]], tool_calls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the calls that these actions are, in their order; "" for those that it doesn't say."""
    rest, ids = list(tool_calls), list[str]()
    for action in actions:
        same = [n for n, call in enumerate(rest) if (call["name"], call["args"]) == (action["name"], action["args"])]
        ids.append(str(rest[same[0]].get("id") or "") if same else "")
        del rest[: same[0] + 1 if same else 0]
    return ids


def _allowed_by(schema: Any) -> tuple[str, ...]:
    """Return the decisions that the schema of an answer has: a union by `type`, or a single one."""
    match schema:
        case {"discriminator": {"mapping": dict(mapping)}}:
            return tuple(mapping)
        case {"properties": {"type": {"const": str(only)}}}:
            return (only,)
    return ("approve", "reject")


_DECISIONS = ("ApproveDecision", "EditDecision", "EditedAction", "RejectDecision", "RespondDecision")


def _arguments_schema(schema: Any) -> dict[str, Any] | None:
    """Return the JSON schema of the tool's arguments, which the schema of an answer has for edits."""
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}
    match definitions.get("EditedAction"):
        case {"properties": {"args": {"$ref": str(place)}}}:
            name = place.rpartition("/")[2]
            found: dict[str, Any] = {**definitions[name]}
            others = {each: one for each, one in definitions.items() if each not in (*_DECISIONS, name)}
            return found | {"$defs": others} if others else found
        case {"properties": {"args": dict(arguments)}}:
            return arguments
    return None


def value_for(pause: GraphPause, decided_calls: Sequence[DecidedCall]) -> JsonValue:
    """Return what the graph is resumed with. Raises DeniedError where the graph takes no denial.

    A graph's own `interrupt()` returns the text of an answer, True if approved, the value as it was edited, and False
    in all other cases: nothing that isn't a yes passes for one.
    """
    if pause.kind == "other":
        return _value_for_own(pause.calls[0], decided_calls[0])
    decisions: list[JsonValue] = [_decision(*each) for each in zip(decided_calls, pause.allowed, strict=True)]
    return {"decisions": decisions} if pause.kind == "batched" else decisions[0]


def _value_for_own(call: PausedCall, decided: DecidedCall) -> JsonValue:
    match decided.outcome:
        case Decision(state="answered", comment=comment):
            return comment or ""
        case Decision(state="approved" | "edited"):
            value = decided.arguments_for(call.tool, call.arguments)
            if value == call.arguments:
                return True
            return value["value"] if list(call.arguments) == ["value"] else value
    return False


def _decision(decided: DecidedCall, allowed: Sequence[str]) -> dict[str, JsonValue]:
    call, outcome = decided.call, decided.outcome
    if decided.approved:
        arguments = decided.arguments_for(call.tool, call.arguments)
        if arguments == call.arguments and "approve" in allowed:
            return {"type": "approve"}
        if "edit" in allowed:
            # The tool's name is never an approver's to change, so it is the one that was shown.
            return {"type": "edit", "edited_action": {"name": call.tool, "args": arguments}}
        return _denial(decided, NOT_OFFERED, allowed)
    if isinstance(outcome, Decision) and outcome.state == "answered" and "respond" in allowed:
        return {"type": "respond", "message": decided.text}
    return _denial(decided, decided.text, allowed)


def _denial(decided: DecidedCall, text: str, allowed: Sequence[str]) -> dict[str, JsonValue]:
    if "reject" in allowed:
        return {"type": "reject", "message": text}
    if "respond" in allowed:
        return {"type": "respond", "message": text}
    raise DeniedError(decided.outcome) if isinstance(decided.outcome, Decision) else decided.outcome


# ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────────

Answers = Mapping[str, Sequence[DecidedCall]]
"""Decided calls of open interrupts, by the interrupt's id."""

Decide = Callable[[PausedCall, str, Any], Coroutine[Any, Any, DecidedCall]]
"""Gets a decision on a call, given the call's key and the JSON schema of its arguments."""


class Paused(Protocol):
    """How far a graph has come: the interrupts that are open; at the end, none."""

    @property
    def pauses(self) -> tuple[GraphPause, ...]: ...


At = TypeVar("At", bound=Paused)


async def answer_pauses(
    at: At, decide: Decide, advance: Callable[[Answers], Awaitable[At]], keys: CallKeys | None = None
) -> At:
    """Have all calls of all open interrupts decided at once, and let the graph go on with each, until none is open."""
    keys = keys or CallKeys()
    asked: dict[str, asyncio.Task[list[DecidedCall]]] = {}
    try:
        while at.pauses:
            for pause in at.pauses:
                if pause.id not in asked:
                    asked[pause.id] = asyncio.create_task(_decided(pause, keys, decide))
            await asyncio.wait(asked.values(), return_when=asyncio.FIRST_COMPLETED)
            answers = {id: asked.pop(id).result() for id, task in [*asked.items()] if task.done()}
            at = await advance(answers)
    finally:
        for task in asked.values():
            task.cancel()
    return at


async def _decided(pause: GraphPause, keys: CallKeys, decide: Decide) -> list[DecidedCall]:
    asked = [decide(call, keys.key_of(call), schema) for call, schema in zip(pause.calls, pause.schemas, strict=True)]
    return await all_of(asked)
