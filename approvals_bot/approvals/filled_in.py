"""What people filled in: an approver's answers, and changes to a request's fields. Read against the workflow's file.

From a form of Slack, mail or page, values come as the texts that were typed; from the API as JSON. Either way they end
as the same canonical values, or as one sentence that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.heard import Heard
from approvals_bot.approvals.policy import Definition, Policy, Stage
from approvals_bot.approvals.port import Via
from approvals_bot.errors import InvalidPayloadError

FORMS: tuple[Via, ...] = ("slack", "email", "inbox")
"""Ways by which values come as texts that a person typed."""


def answers(stage: Stage, heard: Heard) -> tuple[dict[str, JsonValue], str]:
    """The approver's answers as canonical JSON, and what is wrong with them. Only a yes has answers."""
    if heard.choice not in ("approve", "edit") or not stage.ask:
        return {}, ""
    given = dict(heard.answers)
    if heard.choice == "edit":  # one form may hold both: what the stage asks, and the fields that are changed
        given = {name: value for name, value in {**heard.fields, **given}.items() if name in stage.ask}
    if heard.via in FORMS:
        given = forms.from_texts(stage.ask, _texts(given))
    try:
        return forms.dump(stage.ask, forms.values(stage.ask, given, "answers")), ""
    except InvalidPayloadError as error:
        return {}, _faults(error)


def approver_changes(definition: Definition, stage: Stage, now: Mapping[str, JsonValue], heard: Heard) -> Any:
    """All fields, typed, as an approver's `edit` leaves them; or, as a text, what is wrong with it."""
    given = {name: value for name, value in {**heard.answers, **heard.fields}.items() if name not in stage.ask}
    for name in given:
        if name in definition.fields and not definition.fields[name].editable:
            return f"“{name}” can't be changed here."
    return _changed(definition, now, given, heard.via)


def requester_changes(definition: Definition, now: Mapping[str, JsonValue], heard: Heard) -> Any:
    """All fields, typed, as the requester's edit leaves them; or, as a text, what is wrong with it."""
    return _changed(definition, now, dict(heard.fields), heard.via)


def voids_votes(policy: Policy, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a change of fields (typed) makes the votes so far void."""
    for name in after:
        if before.get(name) != after[name]:
            rule = policy.on_change_of(name)
            if rule == "reset" or (rule == "reset-if-raised" and forms.raised(before.get(name), after[name])):
                return True
    return False


def _changed(definition: Definition, now: Mapping[str, JsonValue], given: dict[str, JsonValue], via: Via) -> Any:
    if via in FORMS:
        mine = {name: spec for name, spec in definition.fields.items() if name in given}
        left = dict.fromkeys(mine)  # what was emptied is not given any more
        given = {**given, **left, **forms.from_texts(mine, _texts(given))}
    try:
        typed = forms.values(definition, {**now, **given}, "fields")
    except InvalidPayloadError as error:
        return _faults(error)
    return "That is what it says already." if forms.dump(definition, typed) == now else typed


def _texts(given: Mapping[str, JsonValue]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in given.items()}


def _faults(error: InvalidPayloadError) -> str:
    """`budget_code: is required; …`, as one sentence."""
    said = "; ".join(f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors)
    return said.rstrip(".") + "."
