"""A calendar: when an office is open. `business days` and `business hours` of a workflow's file are counted in one.

What the counting means is told in `approvals.business_time`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import pairwise
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from approvals_bot.config.base import Frozen, refuse

WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_HOLIDAYS = 500  # dates in one calendar; each replay of a run that follows it reads them
DAY_END = 24 * 60  # minutes

_SPAN = re.compile(r"([0-9]{1,2}):([0-9]{2}) *(?:-|–|to) *([0-9]{1,2}):([0-9]{2})")
_EXAMPLE = 'write hours like "09:00-17:30", with a break ["09:00-12:00", "13:00-17:00"]'
_DAYS = 'write a day like "mon", or several like "mon-fri"'

Minutes = tuple[int, int]
"""From the first minute of a day to the second, counted from midnight; the second may be 1440."""


class Calendar(Frozen):
    """When an office is open, in its own time zone."""

    zone: TimeZone
    hours: Hours
    holidays: Annotated[tuple[Day, ...], Field(max_length=MOST_HOLIDAYS)] = ()

    def open_on(self, day: date) -> tuple[Minutes, ...]:
        """The minutes of this day in which it is open, in order; none on a holiday."""
        if day in self.holidays:
            return ()
        return tuple(_minutes(text) for text in self.hours.get(WEEK[day.weekday()], ()))


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise refuse(f'"{value[:60]}" is not a time zone; write it like "Europe/Berlin"') from None
    return value


def _hours(value: object) -> object:
    """Hours of Monday to Friday, or a table by days, as a table of single days in the week's order."""
    if isinstance(value, (str, list, tuple)):
        value = {"mon-fri": value}
    if not isinstance(value, dict):
        raise refuse(_EXAMPLE)
    found: dict[str, tuple[str, ...]] = {}
    for days, spans in value.items():
        for day in _days(days):
            if day in found:
                raise refuse(f"{day} stands here twice")
            found[day] = _spans(spans)
    if not any(found.values()):
        raise refuse("it is never open, so nothing would ever be due")
    return {day: found[day] for day in WEEK if found.get(day)}


def _days(text: object) -> tuple[str, ...]:
    first, dash, last = str(text).lower().partition("-")
    first, last = first.strip(), last.strip() if dash else first.strip()
    if first not in WEEK or last not in WEEK:
        raise refuse(f'"{str(text)[:40]}" is no day; {_DAYS}')
    start, end = WEEK.index(first), WEEK.index(last)
    return WEEK[start : end + 1] if start <= end else (*WEEK[start:], *WEEK[: end + 1])


def _spans(value: object) -> tuple[str, ...]:
    spans = [value] if isinstance(value, str) else value
    if not isinstance(spans, (list, tuple)) or not all(isinstance(each, str) for each in spans):
        raise refuse(_EXAMPLE)
    minutes = sorted(_minutes(each) for each in spans)
    for before, after in pairwise(minutes):
        if after[0] < before[1]:
            raise refuse(f"{_span_text(before)} and {_span_text(after)} overlap")
    return tuple(_span_text(each) for each in minutes)


def _minutes(text: str) -> Minutes:
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise refuse(f'"{text[:40]}" are no hours; {_EXAMPLE}')
    hour, minute, to_hour, to_minute = (int(part) for part in found.groups())
    start, end = hour * 60 + minute, to_hour * 60 + to_minute
    if minute > 59 or to_minute > 59 or end > DAY_END:
        raise refuse(f'"{text[:40]}" are no hours; {_EXAMPLE}')
    if end <= start:
        raise refuse(f'"{text[:40]}" ends before it begins; write what is after midnight on the next day')
    return start, end


def _span_text(minutes: Minutes) -> str:
    return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in minutes)


def _day(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise refuse('write a day like "2026-12-25"')


TimeZone = Annotated[str, AfterValidator(_time_zone)]
_SOME_HOURS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Hours = Annotated[
    dict[str, tuple[str, ...]],
    BeforeValidator(_hours),
    WithJsonSchema({"anyOf": [*_SOME_HOURS["anyOf"], {"type": "object", "additionalProperties": _SOME_HOURS}]}),
]
"""By day, in the week's order: spans like "09:00-17:30"."""
Day = Annotated[date, BeforeValidator(_day)]


@dataclass(frozen=True)
class Calendars:
    """The calendars that config.toml names, for workflows that count business days of their own."""

    named: Mapping[str, Calendar] = field(default_factory=dict)
