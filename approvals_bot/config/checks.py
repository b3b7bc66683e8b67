"""Checks of a workflow file beyond its shape: names, conditions, templates, and whether its stages can be filled.

The models have checked the shapes by then. Nothing here makes a network call: what only a live source or the request
itself knows (a Slack group's members, the requester's manager) is checked when a request opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

from approvals_bot.approvals.agent_policy import CALL_FIELDS, TOOL_CALL
from approvals_bot.approvals.base import nearest, one_of
from approvals_bot.approvals.circumstances import Circumstance
from approvals_bot.approvals.conditions import ConditionError, condition
from approvals_bot.approvals.field_specs import ORDERED, FieldSpec, FieldType
from approvals_bot.approvals.fields import faults
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.address_checks import (
    address_faults,
    address_list_faults,
    excluded_faults,
    named_people_faults,
    owner_faults,
    requester_entry_faults,
    requester_faults,
    requester_list_faults,
    viewer_faults,
)
from approvals_bot.config.clock_checks import calendar_faults, clock_faults, clocks_of, unknown_calendar
from approvals_bot.config.delivery_checks import (
    all_follow_ups,
    delivery_faults,
    follow_up_condition,
    follow_up_faults,
    grant_faults,
    template_faults,
    text_faults,
)
from approvals_bot.config.enough_people import stage_faults, unset_fields
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.schedules import schedule_faults
from approvals_bot.config.service import ServiceSettings
from approvals_bot.config.standing_checks import standing_faults
from approvals_bot.people import is_mail

_RUN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
NOT_OF_TOOL_CALLS = {
    "fields": "a call's fields are the arguments of its tool",
    "auto": "people decide each call",
    "on": "the agent itself goes on with the decision",
    "grant": "the agent itself goes on with the decision",
    "schedule": "agents open the requests",
    "standing": "[allowance] is for the next calls",
    "break_glass": "an agent never goes on without a person",
    "request": "agents open the requests; workflow.request lists them",
}
OF_APPROVALS = (
    "request",
    "policy",
    "auto",
    "stage",
    "deliver",
    "clock",
    "escalate",
    "on",
    "grant",
    "labels",
    "standing",
    "break_glass",
)


def check_definition(definition: Definition, service: ServiceSettings) -> list[Finding]:
    """List everything that is wrong with this workflow in this service, in no particular order."""
    found = [*_fields(("fields",), definition.fields), *requester_faults(definition, service)]
    found += named_people_faults(definition, service)
    found += schedule_faults(definition, service)
    if definition.is_tool_call:
        return [*found, *_tool_call(definition, service)]
    for path, key in ((("workflow", "may_ask"), "may_ask"), (("allowance",), "allowance"), (("budget",), "budget")):
        if key in (definition.workflow if len(path) > 1 else definition).model_fields_set:
            found.append(Finding(path, f'is for agents; only the workflow with id = "{TOOL_CALL}" has it'))
    if definition.is_approval:
        found += _approval(definition, service)
    else:
        found += _python_workflow(definition)
    return found


def _approval(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if definition.workflow.title is None:
        yield Finding(("workflow", "title"), "is missing")
    if not definition.stage:
        yield Finding(("stage",), "is missing; an approval needs at least one [[stage]]")
    if definition.settings:
        yield Finding(("settings",), 'is for Python workflows (run = "module:function")')
    yield from _conditions(definition, service)
    yield from template_faults(definition)
    yield from owner_faults(definition, service)
    yield from viewer_faults(definition, service)
    yield from _sign_in(definition, service)
    yield from _policy(definition)
    yield from excluded_faults(definition, service)
    yield from _stages(definition, service)
    yield from clock_faults(definition, service)
    yield from calendar_faults(definition, service)
    yield from standing_faults(definition)
    yield from _break_glass(definition, service)
    yield from delivery_faults(definition, service)
    yield from follow_up_faults(definition, service)
    yield from grant_faults(definition, service)
    yield from unset_fields(definition)
    yield from stage_faults(definition, service)


def _tool_call(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the file of tool calls. Its templates and conditions name the call's parts, not its arguments."""
    for table, why in NOT_OF_TOOL_CALLS.items():
        if table in definition.model_fields_set:
            yield Finding((table,), f"is not for tool calls: {why}")
    if definition.workflow.key is not None:
        yield Finding(("workflow", "key"), "is not for tool calls: the agent names each call in Idempotency-Key")
    for path, clock in clocks_of(definition):
        if clock.on_deadline == "approve":
            yield Finding((*path, "on_deadline"), "silence never approves a tool call", "expire")
    if definition.policy.when_nobody is not None:
        yield Finding(("policy", "when_nobody"), "people decide each call, so one that no stage covers is refused")
    for at, text in enumerate(definition.workflow.may_ask or ()):
        if is_mail(text) or text.startswith(("@", "slack:@")):
            yield from address_faults(("workflow", "may_ask", at), text, definition, service)
        else:
            yield Finding(("workflow", "may_ask", at), 'write "@group", "slack:@usergroup" or an email address')
    yield from _approval(definition.model_copy(update={"fields": CALL_FIELDS}), service)


def _python_workflow(definition: Definition) -> Iterator[Finding]:
    if not _RUN.fullmatch(definition.workflow.run or ""):
        yield Finding(("workflow", "run"), 'write the function as "module:function"')
    for table in OF_APPROVALS:
        if table in definition.model_fields_set:
            yield Finding((table,), "is for approvals; a Python workflow does this in its code")
    if definition.workflow.instructions is not None:
        yield Finding(("workflow", "instructions"), "is for approvals; a Python workflow does this in its code")
    if definition.workflow.key is not None:
        yield from text_faults(("workflow", "key"), definition.workflow.key, definition, of_decision=False)
    if definition.workflow.title is not None:
        yield from text_faults(("workflow", "title"), definition.workflow.title, definition, of_decision=False)


def _fields(at: Path, fields: Mapping[str, FieldSpec]) -> Iterator[Finding]:
    for name, spec in fields.items():
        if spec.type not in get_args(FieldType):
            yield Finding((*at, name), f"type must be {one_of(get_args(FieldType))}")
    for path, message in faults(fields):
        yield Finding((*at, *path), message)


def _conditions(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    places: list[tuple[Path, str | None]] = []
    places += [(("request", at, "when"), rule.when) for at, rule in enumerate(definition.request or ())]
    places += [(("auto", at, "when"), rule.when) for at, rule in enumerate(definition.auto)]
    for at, stage in enumerate(definition.stage):
        places.append((("stage", at, "when"), stage.when))
        for number, seat in enumerate(stage.seats):
            places.append((("stage", at, *stage.path_of(number), "when"), seat.when))
    places += [((*path, "when"), action.when) for path, action in all_follow_ups(definition)]
    for path, text in places:
        if text is not None:
            try:
                is_rule = path[0] != "on"
                compiled = (
                    condition(text, definition.fields) if is_rule else follow_up_condition(path, text, definition)
                )
                for one in compiled.about.values():
                    yield from _circumstance(path, one, definition, service)
            except ConditionError as error:
                yield Finding(path, str(error), error.suggestion)


def _circumstance(path: Path, one: Circumstance, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check that the groups or the calendar exist that a condition names."""
    for name in one.names:
        if one.kind == "in":
            yield from requester_entry_faults(path, name, definition, service)
        elif one.kind == "business_hours" and name not in service.calendars:
            yield unknown_calendar(path, name, service)


def _policy(definition: Definition) -> Iterator[Finding]:
    on_change = definition.policy.on_change
    for name, change in on_change.items() if isinstance(on_change, dict) else ():
        spec = definition.fields.get(name)
        if spec is None:
            near = nearest(name, definition.fields)
            yield Finding(("policy", "on_change", name), "no such field", near, about=("fields",))
        elif change == "reset-if-raised" and spec.type not in ORDERED:
            what = f"a {spec.type} field has no order, so it can't be raised"
            yield Finding(("policy", "on_change", name), what, "reset", about=("fields",))
    if definition.stage and "edit" in definition.policy.outcomes:
        yield from _editable(("policy", "outcomes"), definition)


def _editable(path: Path, definition: Definition) -> Iterator[Finding]:
    if not any(spec.editable for spec in definition.fields.values()):
        yield Finding(path, '"edit" needs at least one field with editable = true', about=("fields",))


def _stages(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    seen: set[str] = set()
    for at, stage in enumerate(definition.stage):
        if stage.id in seen:
            yield Finding(("stage", at, "id"), f'another stage is called "{stage.id}"')
        seen.add(stage.id)
        yield from _fields(("stage", at, "ask"), stage.ask)
        if stage.outcomes is not None and "edit" in stage.outcomes:
            yield from _editable(("stage", at, "outcomes"), definition)
        if stage.comment == "never" and {"answer", "changes"} & set(definition.outcomes_of(stage)):
            what = "answers and requests for changes are written in the comment"
            yield Finding(("stage", at, "comment"), what, "on-reject")
        if stage.veto is not None:
            yield from address_list_faults(("stage", at, "veto", "from"), stage.veto.from_, definition, service)
            if "reject" not in definition.outcomes_of(stage):
                yield Finding(("stage", at, "veto"), 'needs the outcome "reject"')
        for number, seat in enumerate(stage.seats):
            path = ("stage", at, *stage.path_of(number))
            if seat.pick is not None and isinstance(seat.need, int) and seat.pick < seat.need:
                what = f"{seat.need} are needed, so at least as many must be picked"
                yield Finding((*path, "pick"), what, str(seat.need))
            yield from address_list_faults((*path, "from"), seat.from_, definition, service)
            yield from address_list_faults((*path, "notify"), seat.notify or (), definition, service)


def _break_glass(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    rule = definition.break_glass
    if rule is None:
        return
    yield from requester_list_faults(("break_glass", "who"), rule.who, definition, service)
    for at, text in enumerate(rule.who):
        if text.startswith("app:"):
            yield Finding(("break_glass", "who", at), "only people can break the glass: they have to sign in")
    yield from address_list_faults(("break_glass", "review", "from"), rule.review.from_, definition, service)
    if not set(service.login.methods_of(by_mail=service.email is not None)) & {"oidc", "code"}:
        yield Finding(("break_glass",), "nobody can sign in again: [login] methods needs oidc or code")
    owners = [text for text in definition.workflow.owners or () if not text.startswith("app:")]
    if not (owners or service.server.admins):
        what = "nobody is asked once a review is late: add workflow.owners, or admins in [server]"
        yield Finding(("break_glass", "review"), what)


def _sign_in(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Find a decision that needs a sign-in which nobody could repeat: Slack and a proxy don't say when it was."""
    methods = service.login.methods_of(by_mail=service.email is not None)
    if definition.deliver.link_auth == "login" and not set(methods) & {"oidc", "code"}:
        yield Finding(("deliver", "link_auth"), "nobody can sign in again: [login] methods needs oidc or code")
