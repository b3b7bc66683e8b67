"""Checks of a workflow's times: deadlines, the fields that hold them, escalations, and calendars."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.business_time import is_at_least, takes_too_long
from approvals_bot.approvals.clock import MORE, Clock, calendar_of
from approvals_bot.approvals.deadlines import DATES, FIELD, Deadline, TimeOfField, length_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.config.address_checks import address_faults
from approvals_bot.config.messages import Finding
from approvals_bot.config.positions import Path
from approvals_bot.config.service import ServiceSettings

_ADD = 'add one to config.toml: [calendars.office] with zone = "Europe/Berlin" and hours = "09:00-17:00"'
_LENGTHS = ("duration", "string", "text", "enum")
_ONLY_A_FIELD = re.compile(r"\s*\{\{\s*(\w+)\s*\}\}\s*")


def deadline_faults(path: Path, deadline: Deadline | None, definition: Definition) -> Iterator[Finding]:
    """Check that the field that holds a deadline exists, and holds a time."""
    if not isinstance(deadline, TimeOfField):
        return
    spec = definition.fields.get(deadline.field)
    dates = [name for name, one in definition.fields.items() if one.type in DATES]
    if spec is None:
        near = nearest(deadline.field, dates)
        yield Finding(path, f"no field is called {deadline.field}", near and f"{FIELD}{near}", about=("fields",))
    elif spec.type not in DATES:
        what = f"{deadline.field} is no date or datetime, but a field of type {spec.type}"
        yield Finding(path, what, f"{FIELD}{dates[0]}" if dates else "", about=("fields",))


def calendar_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check that the calendar exists and that the business days can be counted in it."""
    name, calendars = definition.clock.calendar, service.calendars
    if isinstance(name, str) and name not in calendars:
        yield unknown_calendar(("clock", "calendar"), name, service)
        return
    calendar = calendar_of(definition.clock, calendars)
    for path, length in definition.business_times():
        if calendar is None:
            there = f"set calendar in [clock] (choose one of {', '.join(sorted(calendars))})" if calendars else _ADD
            yield Finding(path, f'"{length}" needs a calendar; {there}')
        elif takes_too_long(length, calendar):
            yield Finding(path, f'"{length}" takes more than five years, because the calendar is rarely open')


def unknown_calendar(path: Path, name: str, service: ServiceSettings) -> Finding:
    return Finding(path, f"no calendar is called {name}", nearest(name, service.calendars))


def length_faults(path: Path, text: str, definition: Definition) -> Iterator[Finding]:
    """Check that a length which is nothing but a field's value can be one: a number alone has no unit."""
    spec = definition.fields.get(found[1]) if (found := _ONLY_A_FIELD.fullmatch(text)) else None
    if found is not None and spec is not None and spec.type not in _LENGTHS:
        name = found[1]
        instead = f'write "{{{{ {name} }}}}d" or "{{{{ {name} }}}}h"' if spec.type == "integer" else "use a duration"
        yield Finding(path, f"{name} is a field of type {spec.type}, which has no unit; {instead}", about=("fields",))


def clocks_of(definition: Definition) -> Iterator[tuple[Path, Clock | Stage]]:
    """Yield the file's clock, and the stages, which may have times of their own."""
    yield ("clock",), definition.clock
    yield from ((("stage", at), stage) for at, stage in enumerate(definition.stage))


def clock_faults(definition: Definition, service: ServiceSettings) -> Iterator[Finding]:
    """Check deadlines and escalations: what could never happen, and whom an escalation asks."""
    for path, clock in clocks_of(definition):
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
            yield from address_faults(place, escalation.to[int(place[-1])], definition, service, of_approver=True)


def _picks_more(path: Path, to: Sequence[str], mode: str, definition: Definition) -> Iterator[Finding]:
    if MORE not in to:
        return
    if mode == "replace":
        yield Finding((*path, to.index(MORE)), "asks more people, so it replaces nobody: leave mode out")
    if not any(seat.pick is not None for stage in definition.stage for seat in stage.seats):
        yield Finding((*path, to.index(MORE)), "no seat picks people: set pick, or name who is asked")
