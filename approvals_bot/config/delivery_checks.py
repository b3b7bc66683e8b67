"""Checks of what a workflow sends: its channels, texts and templates, follow-ups, and the two calls of a grant."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.circumstances import with_names
from approvals_bot.approvals.conditions import Condition, ConditionError, read_words
from approvals_bot.approvals.delivery_policy import (
    IN_CHANNEL,
    Action,
    CallTarget,
    Deliver,
    Resume,
    SayInSlack,
    SendDm,
    SendMail,
    StageDeliver,
    in_lower_case,
)
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.rules import OUTCOME
from approvals_bot.approvals.templates import Event, TemplateError, channels_of
from approvals_bot.approvals.templates import check as check_template
from approvals_bot.config.address_checks import address_faults
from approvals_bot.config.channels import installed_channels
from approvals_bot.config.clock_checks import length_faults
from approvals_bot.config.messages import Finding, homes_of
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings

_CHANNEL = re.compile(rf"#{IN_CHANNEL}{{1,80}}|[CG][A-Z0-9]{{5,20}}")


def event_of(path: Path) -> Event | None:
    """Return what the follow-up at this path follows; None for a decision."""
    match path[1]:
        case "opened":
            return "opened"
        case "stage":
            return "stage"
        case _:
            return None


def follow_up_condition(path: Path, when: str, definition: Definition) -> Condition:
    """Compile the condition of the follow-up at this path. Raises ConditionError for what isn't known then."""
    event = event_of(path)
    fields = definition.fields if event is not None else {**OUTCOME, **definition.fields}
    asks = {} if event == "opened" else {stage.id: stage.ask for stage in definition.stage}
    words = read_words(with_names(when, fields, asks)[0])
    if event is not None and "outcome" not in fields and ("name", "outcome") in words:
        raise ConditionError("outcome is not known before the decision")
    compiled = Condition(when, fields, asks)
    if event != "stage" and any(one.kind == "stage" for one in compiled.about.values()):
        raise ConditionError("stage.id is known in [[on.stage]] only")
    return compiled


def channel_faults(path: Path, channel: str, definition: Definition) -> Iterator[Finding]:
    """Check the channel of a message, or each that a template of enums may mean."""
    try:
        meant = channels_of(channel, definition.fields) if "{" in channel else [channel]
    except TemplateError as error:
        yield Finding(path, str(error), error.suggestion and f"#{{{{ {error.suggestion} }}}}")
        return
    wrong = next((each for each in meant if not _CHANNEL.fullmatch(each) or in_lower_case(each) != each), None)
    if wrong is not None:
        form = "in lower case, without spaces or dots, at most 80 characters"
        yield Finding(path, f'"{wrong}" is not a channel of Slack; write it like "#deploys", {form}')


def template_faults(definition: Definition) -> Iterator[Finding]:
    """Check the templates of titles, instructions, keys and follow-ups."""
    about = definition.workflow
    for name, text in (("title", about.title), ("instructions", about.instructions), ("key", about.key)):
        if text is not None:
            yield from text_faults(("workflow", name), text, definition, of_decision=False)
    for path, action in all_follow_ups(definition):
        match action:
            case CallTarget(json_=body):
                yield from _json_templates((*path, "json"), body, definition, event_of(path))
            case SayInSlack(text=text) | SendDm(text=text) | SendMail(text=text):
                yield from text_faults((*path, "text"), text, definition, of_decision=True, event=event_of(path))


def _json_templates(path: Path, value: JsonValue, definition: Definition, event: Event | None) -> Iterator[Finding]:
    match value:
        case str():
            yield from text_faults(path, value, definition, of_decision=True, event=event)
        case list():
            for at, each in enumerate(value):
                yield from _json_templates((*path, at), each, definition, event)
        case dict():
            for key, each in value.items():
                yield from _json_templates((*path, key), each, definition, event)


def text_faults(
    path: Path, text: str, definition: Definition, of_decision: bool, event: Event | None = None
) -> Iterator[Finding]:
    """Check one template."""
    try:
        check_template(text, definition, of_decision, event)
    except TemplateError as error:
        yield Finding(path, str(error), error.suggestion)


def delivery_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check that the service has the channels by which the workflow, or a stage of it, delivers."""
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


def follow_up_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check whom and what each follow-up calls or notifies."""
    for path, action in all_follow_ups(definition):
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


def grant_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check the length of the grant, and its two calls."""
    if (grant := definition.grant) is None:
        return
    yield from text_faults(("grant", "lasts"), grant.lasts, definition, of_decision=False)
    yield from length_faults(("grant", "lasts"), grant.lasts, definition)
    for name, call in (("give", grant.give), ("take", grant.take)):
        yield from _target(("grant", name, "http"), call.http, service)
        yield from _json_templates(("grant", name, "json"), call.json_, definition, None)


def _whom(path: Path, whom: str, definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    if whom != "requester":
        yield from address_faults(path, whom, definition, service)


def all_follow_ups(definition: Definition) -> Iterator[tuple[Path, Action]]:
    """Yield every follow-up of the file, with its path."""
    for event in type(definition.on).model_fields:
        for at, action in enumerate(getattr(definition.on, event) or ()):
            yield ("on", event, at), action
