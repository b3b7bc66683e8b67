"""A tool call as the fields of a request: what they are, and how people see the arguments.

A model wrote all of it. The pinned fields are the tool's name and its arguments, so the request's digest is that of the
call: the SHA-256 of `{"tool": …, "arguments": …}` in its canonical form (RFC 8785), which the agent can
compute again right before the tool runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.card_model import CardField, FormField
from approvals_bot.approvals.json_values import same_json
from approvals_bot.approvals.leaves import EMPTY, YES_NO, inputs, is_long_text, joined_address, lines, root_of
from approvals_bot.approvals.request import DEADLINE, NO_STAGE, Request
from approvals_bot.approvals.visible import exact_block, exact_line, revealed
from approvals_bot.client.decision import Decision
from approvals_bot.client.digests import canonical
from approvals_bot.client.words import DecisionState

TOOL, ARGUMENTS, AGENT, WHY, CALL_ID = "tool", "arguments", "agent", "why", "tool_call_id"
"""The names of the fields."""

NO_ARGUMENTS = "no arguments"
LONGEST_WHY = 2_000  # characters of the model's reason
LONGEST_AGENT = 100

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z0-9]|[A-Z]+$)")


def specs(expects: Mapping[str, JsonValue] | None = None) -> dict[str, dict[str, Any]]:
    """Return the `[fields]` table of a tool call. `expects`: the JSON Schema of its arguments."""
    return {
        TOOL: {"type": "tool", "pinned": True, "untrusted": True},
        ARGUMENTS: {"type": "arguments", "pinned": True, "editable": True, "untrusted": True, "expects": expects},
        AGENT: {"type": "said", "required": False, "untrusted": True},
        WHY: {"type": "said", "required": False, "untrusted": True},
        CALL_ID: {"type": "id", "required": False},
    }


def values(
    tool: str, arguments: Mapping[str, Any], *, agent: str | None, why: str | None, tool_call_id: str | None
) -> dict[str, Any]:
    """Return the values of a tool call's fields. What is only said about it is cut to size."""
    said = {AGENT: _said(agent, LONGEST_AGENT), WHY: _said(why, LONGEST_WHY), CALL_ID: tool_call_id}
    return {TOOL: tool, ARGUMENTS: dict(arguments), **{name: text or None for name, text in said.items()}}


def title_of(said: Mapping[str, Any]) -> str:
    """Return the title of a request for this call: the agent's name and the tool's."""
    tool, agent = revealed(said[TOOL]), said[AGENT]
    return f"{revealed(agent)}: {tool}" if agent else f"Call {tool}"


def _said(text: str | None, longest: int) -> str:
    return _CONTROL.sub("", text or "")[:longest].strip()


def decision_of(request: Request, requested: JsonValue) -> Decision:
    """Return what came of a tool call, for the agent. `requested`: its arguments at first.

    Silence is never a person's no: a request that its deadline rejected has expired. Nor is it a yes: neither the
    deadline's, nor that of a request to which no stage applied.
    """
    ended = request.outcome
    assert ended is not None, "it is decided"
    arguments = request.fields[ARGUMENTS]
    assert isinstance(arguments, dict), "they are an object"
    assert isinstance(requested, dict), "they are an object"
    is_silence = ended.by in (DEADLINE, NO_STAGE)
    state: DecisionState
    match ended.state:
        case "approved" if is_silence:
            state = "expired"
        case "approved":
            state = "approved" if same_json(arguments, requested) else "edited"
        case "rejected":
            state = "expired" if is_silence else "rejected"
        case "answered" | "expired" as state:
            pass
        case "changes_requested":
            state = "answered"  # what should change, in words
        case _:
            state = "withdrawn"
    return Decision(
        state=state,
        by=None if is_silence else ended.by,
        allowance=ended.by.partition(":")[2] if ended.by.startswith("allowance:") else None,
        name=None if is_silence else request.acting(ended.by, ended.in_place_of).text,
        at=ended.at,
        via=ended.via,
        comment=ended.comment or None,
        tool=str(request.fields[TOOL]),
        requested=requested,
        arguments=arguments,
        digest=request.digest,
        request_id=request.id,
    )


# What people see


def shown_arguments(value: Mapping[str, JsonValue], was: JsonValue = None) -> tuple[CardField, ...]:
    """Return a field of the card for each argument. `was`: the arguments before they were edited."""
    if not value:
        return (CardField(ARGUMENTS, "Arguments", NO_ARGUMENTS),)
    before = was if isinstance(was, dict) else {}
    labels = labels_of(value)
    return tuple(
        _shown(name, labels[name], item, is_edited=name in before, was=before.get(name)) for name, item in value.items()
    )


def inputs_of(field: FormField, value: JsonValue) -> tuple[FormField, ...]:
    """Return an input for each leaf of a list or an object, those of arguments in the order of the card."""
    if field.spec.type != "arguments" or not isinstance(value, dict):
        return inputs(value, root_of(field.name, field.spec))
    found, labels = list[FormField](), labels_of(value)
    for name, item in value.items():
        is_branch = isinstance(item, dict | list) and bool(item)
        found += inputs(item, joined_address("", name), "" if is_branch else labels[name])
    return tuple(found)


def with_lines(
    shown: tuple[CardField, ...], values: Mapping[str, JsonValue], was: Mapping[str, JsonValue]
) -> tuple[CardField, ...]:
    """Return the fields of a card with the lines of lists and objects, which would take too much room in the store."""
    if any(field.kind == "code" for field in shown):
        values, was = _members(values.get(ARGUMENTS)), _members(was.get(ARGUMENTS))
    return tuple(
        replace(field, value=_lines(field.name, values, was)) if field.kind == "json" else field for field in shown
    )


def _members(arguments: JsonValue) -> Mapping[str, JsonValue]:
    return arguments if isinstance(arguments, dict) else {}


def _lines(name: str, values: Mapping[str, JsonValue], was: Mapping[str, JsonValue]) -> str:
    value, is_edited = values.get(name), name in was
    if not value and not is_edited:
        return canonical(value)
    return lines(value, joined_address("", name), was.get(name), is_edited=is_edited)


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Return a label for each argument: `flightNumber` → "Flight number". Its own name if two would look alike."""
    readable = {name: _readable(name) for name in names}
    count = Counter(readable.values())
    return {name: label if count[label] == 1 else revealed(name) for name, label in readable.items()}


def _readable(name: str) -> str:
    if not _NAME.fullmatch(name):
        return revealed(name)
    words = _HUMP.sub(" ", name).replace("_", " ").split()
    lower = " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)
    return lower[:1].upper() + lower[1:] or name


def _shown(name: str, label: str, value: JsonValue, *, is_edited: bool, was: JsonValue) -> CardField:
    is_edited = is_edited and not same_json([value], [was])
    if isinstance(value, dict | list):
        return CardField(name, label, "", "json")  # `with_lines` says what it is and was
    text = shown_scalar(value)
    is_long = isinstance(value, str) and is_long_text(text)
    return CardField(
        name,
        label,
        text,
        "long" if is_long else "short",
        was=shown_scalar(was) if is_edited else None,
        untrusted=isinstance(value, str) and value != "",
    )


def shown_scalar(value: JsonValue) -> str:
    """Return an argument without values inside it as people read it."""
    match value:
        case None:
            return EMPTY
        case bool():
            return YES_NO[0] if value else YES_NO[1]
        case str() if value:
            return exact_block(value) if "\n" in value else exact_line(value)
        case _:
            return canonical(value)
