"""What people filled in: an approver's answers, and changes to a request's fields. Read against the workflow's file.

From a form of Slack, mail or page, values come as the texts that were typed; from the API as JSON. Either way they end
as the same canonical values, or as rejections that say what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals import fields as forms
from approvals_bot.approvals.acts import Edit, Rejection, Vote
from approvals_bot.approvals.policy import Definition, Policy, Stage
from approvals_bot.approvals.port import Via

FORMS: tuple[Via, ...] = ("slack", "email", "inbox")
"""Ways by which values come as texts that a person typed."""


Changed = dict[str, Any] | tuple[Rejection, ...]
"""All fields of a request, typed, as an edit leaves them; or what is wrong with the edit."""


def answers(stage: Stage, vote: Vote) -> tuple[dict[str, JsonValue], tuple[Rejection, ...]]:
    """The approver's answers as canonical JSON, and what is wrong with them. Only a yes has answers."""
    if vote.choice not in ("approve", "edit") or not stage.ask:
        return {}, ()
    given = dict(vote.answers)
    if vote.choice == "edit":  # one form may hold both: what the stage asks, and the fields that are changed
        given = {name: value for name, value in {**vote.fields, **given}.items() if name in stage.ask}
    if vote.via in FORMS:
        given = forms.from_texts(stage.ask, _texts(given))
    typed, rejections = forms.read_values(stage.ask, given)
    return ({}, rejections) if rejections else (forms.dump(stage.ask, typed), ())


def approver_changes(definition: Definition, stage: Stage, now: Mapping[str, JsonValue], vote: Vote) -> Changed:
    """The request's fields as an approver's `edit` leaves them."""
    given = {name: value for name, value in {**vote.answers, **vote.fields}.items() if name not in stage.ask}
    for name in given:
        if name in definition.fields and not definition.fields[name].editable:
            return (Rejection((), "not_editable", {"name": name}),)
    return _changed(definition, now, given, vote.via)


def requester_changes(definition: Definition, now: Mapping[str, JsonValue], edit: Edit) -> Changed:
    """The request's fields as the requester's edit leaves them."""
    return _changed(definition, now, dict(edit.fields), edit.via)


def voids_votes(policy: Policy, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a change of fields (typed) makes the votes so far void."""
    for name in after:
        if before.get(name) != after[name]:
            rule = policy.on_change_of(name)
            if rule == "reset" or (rule == "reset-if-raised" and forms.raised(before.get(name), after[name])):
                return True
    return False


def _changed(definition: Definition, now: Mapping[str, JsonValue], given: dict[str, JsonValue], via: Via) -> Changed:
    if via in FORMS:
        mine = {name: spec for name, spec in definition.fields.items() if name in given}
        left = dict.fromkeys(mine)  # what was emptied is not given any more
        given = {**given, **left, **forms.from_texts(mine, _texts(given))}
    typed, rejections = forms.read_values(definition, {**now, **given})
    if rejections:
        return rejections
    return (Rejection((), "same_as_before"),) if forms.dump(definition, typed) == now else typed


def _texts(given: Mapping[str, JsonValue]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in given.items()}
