"""Checks of a workflow's times: the fields that hold deadlines, and calendars."""

from __future__ import annotations

import re
from collections.abc import Iterator

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.business_time import takes_too_long
from approvals_bot.approvals.clock import calendar_of
from approvals_bot.approvals.deadlines import DATES, FIELD, Deadline, TimeOfField
from approvals_bot.approvals.policy import Definition
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
