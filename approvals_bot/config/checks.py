"""Checks of a workflow file beyond its shape: names, conditions, templates, and whether its stages can be filled.

The models have checked the shapes by then. Nothing here makes a network call: what only a live source or the request
itself knows (a Slack group's members, the requester's manager) is checked when a request opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from pydantic import JsonValue

from approvals_bot.approvals.agent_policy import CALL_FIELDS, EVERY_APP, TOOL_CALL
from approvals_bot.approvals.base import nearest, one_of
from approvals_bot.approvals.business_time import is_at_least
from approvals_bot.approvals.circumstances import Circumstance
from approvals_bot.approvals.clock import MORE, Clock
from approvals_bot.approvals.conditions import ConditionError, condition
from approvals_bot.approvals.deadlines import length_of
from approvals_bot.approvals.delivery_policy import (
    Action,
    CallTarget,
    Deliver,
    Resume,
    SayInSlack,
    SendDm,
    SendMail,
    StageDeliver,
)
from approvals_bot.approvals.field_addresses import TAKING, fields_of, variants
from approvals_bot.approvals.field_specs import ORDERED, FieldSpec, FieldType
from approvals_bot.approvals.fields import faults
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.rules import IN_FIELD
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.templates import Event, TemplateError
from approvals_bot.approvals.templates import check as check_template
from approvals_bot.config.channels import installed_channels
from approvals_bot.config.clock_checks import calendar_faults, deadline_faults, length_faults, unknown_calendar
from approvals_bot.config.directory import DirectoryTable
from approvals_bot.config.enough_people import stage_faults, unset_fields
from approvals_bot.config.follow_up_checks import channel_faults, event_of, follow_up_condition
from approvals_bot.config.messages import Finding, homes_of
from approvals_bot.config.positions import Path
from approvals_bot.config.schedules import schedule_faults
from approvals_bot.config.service import ServiceSettings
from approvals_bot.config.standing_checks import standing_faults
from approvals_bot.people import (
    AddressError,
    GroupAddress,
    InField,
    ManagerOf,
    OnBehalfOf,
    OnCall,
    OwnerOf,
    SlackGroupAddress,
    is_mail,
    parse_address,
)
from approvals_bot.people.addresses import canonical_in_file

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
    found = [*_fields(("fields",), definition.fields), *_requesters(definition, service)]
    found += _named_people(definition, service)
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
    yield from _templates(definition)
    yield from _owners(definition, service)
    yield from _viewers(definition, service)
    yield from _sign_in(definition, service)
    yield from _policy(definition)
    yield from _excluded(definition, service)
    yield from _stages(definition, service)
    yield from _clock(definition, service)
    yield from calendar_faults(definition, service)
    yield from standing_faults(definition)
    yield from _break_glass(definition, service)
    yield from _delivery(definition, service)
    yield from _actions(definition, service)
    yield from _grant(definition, service)
    yield from unset_fields(definition)
    yield from stage_faults(definition, service)


def _tool_call(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the file of tool calls. Its templates and conditions name the call's parts, not its arguments."""
    for table, why in NOT_OF_TOOL_CALLS.items():
        if table in definition.model_fields_set:
            yield Finding((table,), f"is not for tool calls: {why}")
    if definition.workflow.key is not None:
        yield Finding(("workflow", "key"), "is not for tool calls: the agent names each call in Idempotency-Key")
    for path, clock in _clocks(definition):
        if clock.on_deadline == "approve":
            yield Finding((*path, "on_deadline"), "silence never approves a tool call", "expire")
    if definition.policy.when_nobody is not None:
        yield Finding(("policy", "when_nobody"), "people decide each call, so one that no stage covers is refused")
    for at, text in enumerate(definition.workflow.may_ask or ()):
        if is_mail(text) or text.startswith(("@", "slack:@")):
            yield from _address(("workflow", "may_ask", at), text, definition, service)
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
        yield from _template(("workflow", "key"), definition.workflow.key, definition, of_decision=False)
    if definition.workflow.title is not None:
        yield from _template(("workflow", "title"), definition.workflow.title, definition, of_decision=False)


def _fields(at: Path, fields: Mapping[str, FieldSpec]) -> Iterator[Finding]:
    for name, spec in fields.items():
        if spec.type not in get_args(FieldType):
            yield Finding((*at, name), f"type must be {one_of(get_args(FieldType))}")
    for path, message in faults(fields):
        yield Finding((*at, *path), message)


def _named_people(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the addresses that say whom a field may name."""
    tables: list[tuple[Path, Mapping[str, FieldSpec]]] = [(("fields",), definition.fields)]
    tables += [(("stage", at, "ask"), stage.ask) for at, stage in enumerate(definition.stage)]
    for path, fields in tables:
        for name, spec in fields.items():
            yield from _addresses((*path, name, "in"), spec.in_ or (), definition, service)


def _conditions(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    places: list[tuple[Path, str | None]] = []
    places += [(("request", at, "when"), rule.when) for at, rule in enumerate(definition.request or ())]
    places += [(("auto", at, "when"), rule.when) for at, rule in enumerate(definition.auto)]
    for at, stage in enumerate(definition.stage):
        places.append((("stage", at, "when"), stage.when))
        for number, seat in enumerate(stage.seats):
            places.append((("stage", at, *stage.path_of(number), "when"), seat.when))
    places += [((*path, "when"), action.when) for path, action in _all_actions(definition)]
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
            yield from _requester(path, name, definition, service)
        elif one.kind == "business_hours" and name not in service.calendars:
            yield unknown_calendar(path, name, service)


def _templates(definition: Definition) -> Iterator[Finding]:
    about = definition.workflow
    for name, text in (("title", about.title), ("instructions", about.instructions), ("key", about.key)):
        if text is not None:
            yield from _template(("workflow", name), text, definition, of_decision=False)
    for path, action in _all_actions(definition):
        match action:
            case CallTarget(json_=body):
                yield from _json_templates((*path, "json"), body, definition, event_of(path))
            case SayInSlack(text=text) | SendDm(text=text) | SendMail(text=text):
                yield from _template((*path, "text"), text, definition, of_decision=True, event=event_of(path))


def _json_templates(path: Path, value: JsonValue, definition: Definition, event: Event | None) -> Iterator[Finding]:
    match value:
        case str():
            yield from _template(path, value, definition, of_decision=True, event=event)
        case list():
            for at, each in enumerate(value):
                yield from _json_templates((*path, at), each, definition, event)
        case dict():
            for key, each in value.items():
                yield from _json_templates((*path, key), each, definition, event)


def _template(
    path: Path, text: str, definition: Definition, of_decision: bool, event: Event | None = None
) -> Iterator[Finding]:
    try:
        check_template(text, definition, of_decision, event)
    except TemplateError as error:
        yield Finding(path, str(error), error.suggestion)


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


def _excluded(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    for at, entry in enumerate(definition.policy.exclude or ()):
        path = ("policy", "exclude", at)
        if entry.startswith(IN_FIELD):
            yield from _in_field(path, entry.removeprefix(IN_FIELD), definition, ("email", "string"))
        elif entry.startswith(("@", "slack:@")):
            yield from _address(path, entry, definition, service)
        else:
            yield from _mail_address(path, entry, 'write "field:name", "@group" or an email address')


def _in_field(path: Path, name: str, definition: Definition, others: Sequence[str] = ()) -> Iterator[Finding]:
    """Check that a field names people. `others`: types that may hold addresses, too."""
    spec = definition.fields.get(name)
    if spec is None:
        near = nearest(name, definition.fields)
        yield Finding(path, f"no field is called {name}", near and f"{IN_FIELD}{near}", about=("fields",))
    elif not spec.holds_people and spec.type not in others:
        yield Finding(path, f'{name} names nobody; give it type = "person"', about=("fields",))


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
            yield from _addresses(("stage", at, "veto", "from"), stage.veto.from_, definition, service)
            if "reject" not in definition.outcomes_of(stage):
                yield Finding(("stage", at, "veto"), 'needs the outcome "reject"')
        for number, seat in enumerate(stage.seats):
            path = ("stage", at, *stage.path_of(number))
            if seat.pick is not None and isinstance(seat.need, int) and seat.pick < seat.need:
                what = f"{seat.need} are needed, so at least as many must be picked"
                yield Finding((*path, "pick"), what, str(seat.need))
            yield from _addresses((*path, "from"), seat.from_, definition, service)
            yield from _addresses((*path, "notify"), seat.notify or (), definition, service)


def _clocks(definition: Definition) -> Iterator[tuple[Path, Clock | Stage]]:
    """Yield the file's clock, and the stages, which may have times of their own."""
    yield ("clock",), definition.clock
    yield from ((("stage", at), stage) for at, stage in enumerate(definition.stage))


def _clock(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    for path, clock in _clocks(definition):
        if clock.on_deadline == "escalate" and not definition.escalate:
            yield Finding((*path, "on_deadline"), "needs at least one [[escalate]]")
        yield from deadline_faults((*path, "deadline"), clock.deadline, definition)
    stages = [definition.in_stage(stage) for stage in definition.stage] or [definition]
    mails: list[tuple[Path, Definition]] = [((), definition)]
    mails += [(("stage", at), stages[at]) for at, stage in enumerate(definition.stage) if stage.deliver is not None]
    for path, here in mails:
        mail, until = here.deliver.email, length_of(here.clock.deadline)
        if mail and until is not None and is_at_least(mail, until):
            yield Finding((*path, "deliver", "email"), "the deadline is earlier, so this mail would never be sent")
    deadlines = [length_of(here.clock.deadline) for here in stages]
    for at, escalation in enumerate(definition.escalate):
        length = escalation.after
        if all(each is not None and is_at_least(length, each) and not is_at_least(each, length) for each in deadlines):
            yield Finding(("escalate", at, "after"), "the deadline is earlier, so this would never happen")
        path = ("escalate", at, "to")
        yield from _picks_more(path, escalation.to, escalation.mode, definition)
        to = [(*path, number) for number, each in enumerate(escalation.to) if each != MORE]
        for place in to:
            yield from _address(place, escalation.to[int(place[-1])], definition, service, of_approver=True)


def _picks_more(path: Path, to: Sequence[str], mode: str, definition: Definition) -> Iterator[Finding]:
    if MORE not in to:
        return
    if mode == "replace":
        yield Finding((*path, to.index(MORE)), "asks more people, so it replaces nobody: leave mode out")
    if not any(seat.pick is not None for stage in definition.stage for seat in stage.seats):
        yield Finding((*path, to.index(MORE)), "no seat picks people: set pick, or name who is asked")


def _requesters(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if definition.request is None:
        yield from _requesters_of(("workflow", "request"), definition.workflow.request, definition, service)
    for at, rule in enumerate(definition.request or ()):
        yield from _requesters_of(("request", at, "from"), rule.from_, definition, service)


def _requesters_of(
    path: Path, entries: Sequence[str], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    for at, text in enumerate(entries):
        yield from _requester((*path, at), text, definition, service)


def _requester(path: Path, text: str, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if text.startswith("app:"):
        if text != EVERY_APP and text[4:] not in service.api_keys:
            near = nearest(text[4:], service.api_keys)
            yield Finding(path, f"no key in [api_keys] is called {text[4:]}", near and f"app:{near}")
    elif text.startswith("@") and not fields_of(text):
        yield from _address(path, text, definition, service)
    elif text != "*":
        yield from _mail_address(path, text, 'write "*" for everyone, "@group", "app:name" or an email address')


def _mail_address(path: Path, text: str, how: str) -> Iterator[Finding]:
    """Check an address that must be a person's. `how`: what to write, if this is no address at all."""
    try:
        canonical_in_file(text)
    except AddressError as error:
        yield Finding(path, how if error.is_shapeless else str(error))


def _viewers(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    for at, text in enumerate(definition.workflow.viewers or ()):
        path = ("workflow", "viewers", at)
        if text.startswith("@") and not fields_of(text):
            yield from _address(path, text, definition, service)
        elif not is_mail(text):
            yield Finding(path, 'write "@group" or an email address')


def _break_glass(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    rule = definition.break_glass
    if rule is None:
        return
    yield from _requesters_of(("break_glass", "who"), rule.who, definition, service)
    for at, text in enumerate(rule.who):
        if text.startswith("app:"):
            yield Finding(("break_glass", "who", at), "only people can break the glass: they have to sign in")
    yield from _addresses(("break_glass", "review", "from"), rule.review.from_, definition, service)
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


def _owners(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    for at, text in enumerate(definition.workflow.owners or ()):
        path = ("workflow", "owners", at)
        if text.startswith("app:"):
            if text[4:] not in service.api_keys:
                yield Finding(path, f"no key in [api_keys] is called {text[4:]}")
        else:
            yield from _address(path, text, definition, service)


def _addresses(
    path: Path, addresses: Iterable[str], definition: Definition, service: ServiceSettings, of_approver: bool = False
) -> Iterator[Finding]:
    for at, text in enumerate(addresses):
        yield from _address((*path, at), text, definition, service, of_approver)


def _address(
    path: Path, text: str, definition: Definition, service: ServiceSettings, of_approver: bool = False
) -> Iterator[Finding]:
    if (names := fields_of(text)) or "{{" in text:
        yield from _of_fields(path, text, names, definition, service)
        return
    try:
        address = parse_address(text)
    except ValueError as error:
        yield Finding(path, str(error))
        return
    directory = service.directory
    match address:
        case GroupAddress(name) if name not in service.groups:
            near = nearest(name, service.groups)
            todo = "" if near else "; add it to [groups] of config.toml"
            yield Finding(path, f"no group is called {name}{todo}", near and f"@{near}")
        case SlackGroupAddress() if service.slack is None:
            yield Finding(path, "Slack is not configured")
        case ManagerOf("approver") if not of_approver:
            yield Finding(path, "there is no approver yet; this is for [[escalate]]", "manager-of:requester")
        case ManagerOf("on-behalf-of") | OnBehalfOf() if definition.workflow.on_behalf_of == "never":
            yield Finding(path, 'is never known: this workflow sets on_behalf_of = "never"')
        case InField(name):
            yield from _in_field(path, name, definition)
        case OwnerOf(name) if name not in definition.fields:
            near = nearest(name, definition.fields)
            yield Finding(path, f"no field is called {name}", near and f"owner-of:{near}", about=("fields",))
        case OwnerOf(name) if isinstance(directory, DirectoryTable) and name not in directory.owner_of:
            near = nearest(name, directory.owner_of)
            yield Finding(path, f"[directory] has no owner-of.{name}", near and f"owner-of:{near}")
        case OnCall(name) if isinstance(directory, DirectoryTable) and name not in directory.oncall:
            near = nearest(name, directory.oncall)
            yield Finding(path, f"[directory] has no oncall.{name}", near and f"oncall:{near}")


def _of_fields(
    path: Path, text: str, names: Sequence[str], definition: Definition, service: ServiceSettings
) -> Iterator[Finding]:
    """Check an address that depends on enums, for each of their values."""
    if not names or not text.startswith(TAKING):
        yield Finding(path, 'an address takes the value of an enum like this: "@team-{{ team }}"')
        return
    for name in names:
        spec = definition.fields.get(name)
        if spec is None:
            yield Finding(path, f"no field is called {name}", nearest(name, definition.fields), about=("fields",))
        elif spec.type != "enum":
            yield Finding(path, f"{name} is no enum, so it can't be known which groups there are", about=("fields",))
    for each, given in variants(text, definition.fields):
        said = " and ".join(f'{name} = "{value}"' for name, value in given.items())
        for found in _address(path, each, definition, service):
            yield Finding(path, f"{found.message}, for {said}", found.suggestion, about=("fields",))


def _delivery(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    deliver = definition.deliver
    yield from _ways(("deliver",), deliver, definition, service)
    if deliver.email_replies is not None and (service.email is None or service.email.replies is None):
        yield Finding(("deliver", "email_replies"), "replies are not read: there is no [email.replies]")
    if deliver.builder:
        yield from _builder(definition, service)
    for at, stage in enumerate(definition.stage):
        if stage.deliver is not None:
            yield from _ways(("stage", at, "deliver"), Deliver().but(stage.deliver), definition, service)


def _ways(path: Path, deliver: Deliver, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    kind = StageDeliver if path[0] == "stage" else Deliver
    if deliver.slack is not None and "{" in deliver.slack:
        yield from channel_faults((*path, "slack"), deliver.slack, definition)
    if deliver.slack is not None and service.slack is None:
        yield Finding((*path, "slack"), "Slack is not configured")
    if deliver.email is not None and service.email is None:
        yield Finding((*path, "email"), "email is not configured")
    if deliver.dm and service.slack is None and service.email is None:
        yield Finding((*path, "dm"), "neither Slack nor email is configured")
    for name in deliver.channels:
        if name in service.channels:
            continue
        if name in installed_channels():
            yield Finding((*path, name), f"no [channels.{name}] configures this channel")
        else:
            near = nearest(name, [*kind.model_fields, *service.channels])
            homes = "" if near else homes_of((*path, name), Definition, deliver.channels[name])
            yield Finding((*path, name), f"unknown key; {homes}" if homes else "unknown key", near)


def _builder(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Find what a step of Slack's Workflow Builder can't do."""
    if service.slack is None:
        yield Finding(("deliver", "builder"), "Slack is not configured")
    if definition.workflow.key is not None:
        yield Finding(("deliver", "builder"), "each step opens a request of its own, so the workflow can't have a key")
    if definition.workflow.on_behalf_of == "required":
        yield Finding(("deliver", "builder"), "a step has a requester only, so nobody can be required on_behalf_of")
    for name, spec in definition.fields.items():
        if spec.holds_files:
            yield Finding(("fields", name), "a step of Workflow Builder has no files; leave the field or builder out")
    if "requester" in definition.fields:
        yield Finding(("fields", "requester"), "a step's input has this name; rename the field")


def _actions(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    for path, action in _all_actions(definition):
        match action:
            case CallTarget(http=name):
                yield from _target((*path, "http"), name, service)
            case SayInSlack(slack=channel):
                yield from channel_faults((*path, "slack"), channel, definition)
                if service.slack is None:
                    yield Finding((*path, "slack"), "Slack is not configured")
            case SendDm(dm=whom):
                if service.slack is None and service.email is None:
                    yield Finding((*path, "dm"), "neither Slack nor email is configured")
                yield from _whom((*path, "dm"), whom, definition, service)
            case SendMail(email=whom):
                if service.email is None:
                    yield Finding((*path, "email"), "email is not configured")
                yield from _whom((*path, "email"), whom, definition, service)
            case Resume():
                pass


def _target(path: Path, name: str, service: ServiceSettings) -> Iterator[Finding]:
    target = service.http.get(name)
    if target is None:
        near = nearest(name, service.http)
        add = "" if near else "; add it to config.toml, with its url and a secret"
        yield Finding(path, f"there is no [http.{name}]{add}", near)
    elif target.secret is None:
        what = f"[http.{name}] has no secret to sign the call with"
        yield Finding(path, f'{what}; write secret = "env:NAME" or "file:path" there')


def _grant(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the length of the grant, and its two calls."""
    if (grant := definition.grant) is None:
        return
    yield from _template(("grant", "lasts"), grant.lasts, definition, of_decision=False)
    yield from length_faults(("grant", "lasts"), grant.lasts, definition)
    for name, call in (("give", grant.give), ("take", grant.take)):
        yield from _target(("grant", name, "http"), call.http, service)
        yield from _json_templates(("grant", name, "json"), call.json_, definition, None)


def _whom(path: Path, whom: str, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if whom != "requester":
        yield from _address(path, whom, definition, service)


def _all_actions(definition: Definition) -> Iterator[tuple[Path, Action]]:
    for event in type(definition.on).model_fields:
        for at, action in enumerate(getattr(definition.on, event) or ()):
            yield ("on", event, at), action
