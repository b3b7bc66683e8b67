"""Warnings of `check`: what a file allows and its author hardly means. Nothing here stops a file from loading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path as File
from typing import get_args

from approvals_bot.approvals.business_time import is_at_least, length_text
from approvals_bot.approvals.deadlines import TimeOfField, length_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reach import gaps_of
from approvals_bot.approvals.stages import carries_over
from approvals_bot.config.load import problems_of
from approvals_bot.config.login import Method
from approvals_bot.config.messages import ConfigProblem, Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings

_SINGLE = re.compile(r"(?<!\{)\$?\{ ?(\w+) ?\}(?!\})")


def warnings_of(definition: Definition, path: File) -> list[ConfigProblem]:
    """Return the warnings about a workflow that loads. `path`: its file, for the lines."""
    return problems_of(path, _warnings(definition)) if definition.is_approval else []


def service_warnings(service: ServiceSettings) -> Iterator[Finding]:
    """Yield what config.toml sets up and something else in it turns off, or what depends on a source that may fail."""
    given, login, alerts = service.model_fields_set, service.login, service.alerts
    methods = login.methods_of(by_mail=service.email is not None)
    for method in get_args(Method):
        if method != "code" and getattr(login, method) is not None and method not in methods:
            listed = ", ".join(f'"{each}"' for each in (*methods, method))
            what = f"isn't used, as it isn't among the methods; if it is meant, write methods = [{listed}] in [login]"
            yield Finding(("login", method), what)
    if "roles" in given and any(service.roles.entries.values()) and not methods:
        yield Finding(("roles",), "nobody can sign in to have a role: there is no [email], and no methods in [login]")
    if service.chat.model_fields_set - {"enabled"} and not service.chat.enabled:
        yield Finding(("chat", "enabled"), "is false, so there is no chat, and nothing else in [chat] counts")
    people = [text for text in (*alerts.to, *service.server.admins) if not _is_live(text, service)]
    if "alerts" in given and not alerts.to:
        yield Finding(("alerts", "to"), "lists nobody, so nobody is notified of anything")
    elif alerts.to and not people:
        what = "nobody is notified while these sources are down; add an address here, or to [server] admins"
        yield Finding(("alerts", "to"), what)
    if "anchor_every" in service.audit.model_fields_set and not service.audit.anchors:
        yield Finding(("audit", "anchor_every"), "changes nothing, since there are no anchors")
    directory = service.directory
    if "refresh" in directory.model_fields_set and directory.people is None:
        yield Finding(("directory", "refresh"), "changes nothing, since no people are read from anywhere")
    if service.server.no_proxy and service.server.proxy is None:
        yield Finding(("server", "no_proxy"), "changes nothing, since there is no proxy")


def _is_live(text: str, service: ServiceSettings) -> bool:
    """Return whether only a source that is read each time knows whom this means."""
    return text.startswith("@") and service.people_in(text[1:]) is None


def warning_text(warning: ConfigProblem) -> str:
    """Write `FILE:LINE: warning: key: message`."""
    return f"{warning.file}:{warning.line}: warning: {warning.key}: {warning.message}"


def _warnings(definition: Definition) -> Iterator[Finding]:
    yield from (Finding(gap.path, gap.message) for gap in gaps_of(definition))
    stages = [definition.in_stage(stage) for stage in definition.stage]
    silent = [at for at, here in enumerate(stages) if here.deliver.is_silent]
    if silent:
        where, what = _in(definition, silent), "approvers only find it in their inbox"
        yield Finding(("deliver",), f"nobody is notified of a request{where}: {what}")
    endless = [at for at, here in enumerate(stages) if here.clock.deadline is None and here.clock.none is None]
    if endless:
        what = (
            "so a request that nobody decides waits forever; "
            'in [clock], write deadline = "3d", or none = true if that is meant'
        )
        yield Finding(("clock", "deadline"), f"there is none{_in(definition, endless)}, {what}")
    yield from _deadlines_that_ask_nobody(definition, stages)
    yield from _braces(definition)
    yield from _deadlines_that_may_be_missing(definition) if definition.clock.none is None else ()
    if definition.policy.carry_over and not any(carries_over(definition, stage) for stage in definition.stage[1:]):
        what = "changes nothing: no later stage takes an approval without answers or a comment"
        yield Finding(("policy", "carry_over"), what)


def _braces(definition: Definition) -> Iterator[Finding]:
    """Yield the texts with single braces around a field's name, which messages show unchanged."""
    about = definition.workflow
    texts: list[tuple[Path, str | None]] = [
        (("workflow", key), getattr(about, key)) for key in ("title", "instructions")
    ]
    for event, actions in definition.on:
        texts += [(("on", event, at, "text"), getattr(each, "text", None)) for at, each in enumerate(actions or ())]
    for path, text in texts:
        found = next((each for each in _SINGLE.finditer(text or "") if each[1] in definition.fields), None)
        if found is not None:
            yield Finding(path, f"{found[0]} stays as it is; for the field's value, write {{{{ {found[1]} }}}}")


def _deadlines_that_ask_nobody(definition: Definition, stages: Sequence[Definition]) -> Iterator[Finding]:
    """Yield the deadlines that escalate where every escalation has run by then."""
    for at, here in enumerate(stages):
        end = length_of(here.clock.deadline)
        lengths = [each.after for each in definition.escalate if each.to]
        if here.clock.on_deadline != "escalate" or end is None:
            continue
        if lengths and all(is_at_least(end, each) and not is_at_least(each, end) for each in lengths):
            own = definition.stage[at].on_deadline is not None
            what = "nobody is left to ask by then, since every [[escalate]] is earlier, so the request expires"
            shown = f'{what}; write after = "{length_text(end)}" in one of them, or on_deadline = "expire"'
            yield Finding(("stage", at, "on_deadline") if own else ("clock", "on_deadline"), shown)
            return


def _deadlines_that_may_be_missing(definition: Definition) -> Iterator[Finding]:
    own = [(("stage", at, "deadline"), stage.deadline) for at, stage in enumerate(definition.stage)]
    for path, deadline in ((("clock", "deadline"), definition.clock.deadline), *own):
        spec = definition.fields[deadline.field] if isinstance(deadline, TimeOfField) else None
        if isinstance(deadline, TimeOfField) and spec is not None and not spec.required and spec.default is None:
            name = deadline.field
            meant = f"make {name} required, or set none = true if that is meant"
            yield Finding(path, f"a request without {name} waits forever; {meant}")


def _in(definition: Definition, numbers: Sequence[int]) -> str:
    """Name these stages; "" if they are all."""
    names = [definition.stage[at].id for at in numbers]
    return f" in stage {' and '.join(names)}" if len(names) < len(definition.stage) else ""
