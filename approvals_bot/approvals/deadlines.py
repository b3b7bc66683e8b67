"""The deadline of a stage: after a length of time, at a time of day, or at the time in a field of the request. Pure.

A time of day is the next one after the opening of the stage, a date the end of that day, both in the clock's zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from approvals_bot.approvals.base import refuse
from approvals_bot.approvals.business_time import BusinessTime, Length, length_text, read_length
from approvals_bot.durable.core.local_time import moment_of

FIELD = "field:"
"""What a deadline begins with that a field holds."""

DATES = ("date", "datetime")
"""The types of fields that can hold one."""

_TIME_OF_DAY = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_NO_LENGTH = re.compile(r"\s*(?:[^\d\s.]|\d+\s*[ap]\.?m\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """The next time that clocks show this."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02}:{self.minute:02}"


@dataclass(frozen=True, slots=True)
class TimeOfField:
    """The date or time in this field."""

    field: str

    def __str__(self) -> str:
        return f"{FIELD}{self.field}"


Deadline = Length | TimeOfDay | TimeOfField


def length_of(deadline: Deadline | None) -> Length | None:
    """Return the deadline if it is a length of time, which can be compared with others."""
    return deadline if isinstance(deadline, timedelta | BusinessTime) else None


def moment_of_deadline(
    deadline: TimeOfDay | TimeOfField, start: datetime, zone: str, values: Mapping[str, Any]
) -> datetime | None:
    """Return the deadline of a stage that opens at `start`. None: the field that holds it isn't given.

    `values`: the request's typed fields. Only a field's time may lie before `start`.
    """
    match deadline:
        case TimeOfDay(hour, minute):
            return _next(start, time(hour, minute), ZoneInfo(zone))
        case TimeOfField(name):
            return _end_of(values.get(name), ZoneInfo(zone))


def _next(start: datetime, clock: time, zone: ZoneInfo) -> datetime:
    today = start.astimezone(zone).date()
    days = (today + timedelta(days=later) for later in range(3))
    return next(moment for day in days if (moment := moment_of(datetime.combine(day, clock), zone)) > start)


def _end_of(value: Any, zone: ZoneInfo) -> datetime | None:
    match value:
        case datetime():
            return value.astimezone(UTC)
        case date():
            return moment_of(datetime.combine(value + timedelta(days=1), time()), zone)
        case _:
            return None


def _read(value: object) -> object:
    match value:
        case TimeOfDay() | TimeOfField():
            return value
        case time(second=0, microsecond=0, tzinfo=None):
            return TimeOfDay(value.hour, value.minute)
        case str() if value.startswith(FIELD):
            return TimeOfField(value.removeprefix(FIELD))
        case str() if (found := _TIME_OF_DAY.fullmatch(value.strip())) is not None:
            hour, minute = int(found[1]), int(found[2])
            if hour > 23 or minute > 59:
                raise refuse(f'"{value}" is not a time of day; write it like "23:00"')
            return TimeOfDay(hour, minute)
        case str() if _NO_LENGTH.match(value):
            raise refuse(f'"{value[:40]}" is not a deadline; write it like "4h", "23:00" or "field:needed_by"')
        case _:
            return read_length(value)


def _text(value: Deadline) -> str:
    return str(value) if isinstance(value, TimeOfDay | TimeOfField) else length_text(value)


StageDeadline = Annotated[
    Deadline,
    BeforeValidator(_read),
    PlainSerializer(_text, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*[0-9.]+\s*[A-Za-z:]|^field:",
            "examples": ["30m", "4h", "3d", "2 business days", "23:00", "field:needed_by"],
        }
    ),
]
"""A deadline; text in TOML and JSON."""
