"""Business time: when a length of time ends, in wall-clock time or in office hours. Pure, so replays agree.

Business hours and minutes count only open time, across breaks, nights, weekends and holidays. A business day ends at
the same time on the next open day; if the office is closed then, at its next opening or the closing of that day. A
length that starts while the office is closed starts at the next opening. So nothing is ever due while nobody is there.

A wall-clock time that a clock change skips is the moment of the change; one that it repeats is the first of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from approvals_bot.approvals.base import Frozen, nearest, refuse
from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.durable.core.local_time import last_change, moment_of, offset_at
from approvals_bot.errors import ApprovalsBotError

LONGEST = timedelta(days=15 * 365)
"""Nothing is due later than this. Only a calendar that is hardly ever open gets there; checks refuse such a length."""

Open = tuple[datetime, datetime]
"""The start and end of a time without breaks when the office is open, in UTC."""


class NoCalendarError(ApprovalsBotError):
    """A length in business time without a calendar. The workflow's author names one."""

    def __init__(self, length: str) -> None:
        self.length = length
        super().__init__(f'"{length}" needs a calendar, and the clock names none.')


def after(start: datetime, length: Length, calendar: Calendar | None) -> datetime:
    """Return when a length that starts at `start` ends. Never before `start`."""
    if isinstance(length, timedelta):
        return start + length
    if calendar is None:
        raise NoCalendarError(str(length))
    start = start.astimezone(UTC)
    return min(_end(start, length, calendar), start + LONGEST)


def is_open(calendar: Calendar, moment: datetime) -> bool:
    """Whether the office is open at this moment. At its closing time it no longer is."""
    day = moment.astimezone(ZoneInfo(calendar.zone)).date()
    return any(begin <= moment < end for begin, end in _spans(calendar, day))


def takes_too_long(length: Length, calendar: Calendar) -> bool:
    """Whether this length may reach `LONGEST`, as with a calendar that is hardly ever open."""
    if isinstance(length, timedelta):
        return False
    monday = date(2024, 1, 1)
    week = [calendar.model_copy(update={"holidays": ()}).open_on(monday + timedelta(days=n)) for n in range(7)]
    if length.unit == "days":
        weeks = length.count / sum(bool(spans) for spans in week)
    else:
        weeks = length.seconds / 60 / sum(end - start for spans in week for start, end in spans)
    return timedelta(weeks=weeks) + timedelta(days=7 * len(calendar.holidays)) > LONGEST / 3


def _end(start: datetime, length: BusinessTime, calendar: Calendar) -> datetime:
    if length.unit == "days":
        return _days_later(start, length.count, calendar)
    left = timedelta(seconds=length.seconds)
    for begin, end in _open_times(calendar, start):
        if end - begin >= left:
            return begin + left
        left -= end - begin
    return start + LONGEST


def _days_later(start: datetime, count: int, calendar: Calendar) -> datetime:
    day, begin = _begin(start, calendar)
    zone = ZoneInfo(calendar.zone)
    clock = _wall_time(begin, day, zone)
    for later in range(1, LONGEST.days):
        spans = _spans(calendar, day + timedelta(days=later))
        count -= bool(spans)
        if count == 0:
            return _in_hours(_instant(day + timedelta(days=later), clock, zone), spans)
    return start + LONGEST


def _begin(start: datetime, calendar: Calendar) -> tuple[date, datetime]:
    """Return the open day and moment at which counting starts: now, or the next opening. Closing time is open."""
    first = start.astimezone(ZoneInfo(calendar.zone)).date() - timedelta(days=1)
    closing: tuple[date, datetime] | None = None
    for later in range(LONGEST.days):
        day = first + timedelta(days=later)
        for begin, end in _spans(calendar, day):
            if begin <= start < end:
                return day, start
            if end == start:
                closing = (day, start)
            elif begin > start:
                return closing or (day, begin)
    return first, start


def _in_hours(moment: datetime, spans: list[Open]) -> datetime:
    """Return this moment, or the next opening on its day, or the closing of that day."""
    for begin, end in spans:
        if moment <= end:
            return max(begin, moment)
    return spans[-1][1]


def _open_times(calendar: Calendar, start: datetime) -> Iterator[Open]:
    """Yield the open times from this moment on."""
    first = start.astimezone(ZoneInfo(calendar.zone)).date() - timedelta(days=1)
    for later in range(LONGEST.days):
        for begin, end in _spans(calendar, first + timedelta(days=later)):
            if end > start:
                yield max(begin, start), end


def _spans(calendar: Calendar, day: date) -> list[Open]:
    """Return the open times of this day, without any that a clock change skips entirely."""
    zone = ZoneInfo(calendar.zone)
    spans = [(_instant(day, begin * 60, zone), _instant(day, end * 60, zone)) for begin, end in calendar.open_on(day)]
    return [(begin, end) for begin, end in spans if begin < end]


def _wall_time(moment: datetime, day: date, zone: ZoneInfo) -> float:
    """Return the wall-clock seconds since the midnight at which this day began.

    In the second pass of a repeated hour the clock counts as stopped at the hour's end; otherwise it would go back.
    """
    local = moment.astimezone(zone)
    shown = local.replace(tzinfo=None)
    if local.fold:
        changed = last_change(moment, zone)
        shown = changed.replace(tzinfo=None) + offset_at(changed - timedelta(seconds=1), zone)
    return (shown - datetime.combine(day, time())).total_seconds()


def _instant(day: date, seconds: float, zone: ZoneInfo) -> datetime:
    """Return the moment at which a wall clock shows this many seconds of this day."""
    extra, seconds = divmod(seconds, DAY_END * 60)
    return moment_of(datetime.combine(day + timedelta(days=extra), time()) + timedelta(seconds=seconds), zone)


MOST = {"days": 366, "hours": 3_000, "minutes": 180_000}
"""About a year: anything longer is rather a typing error."""

_BUSINESS = re.compile(r"([0-9]{1,9}) *business *(day|hour|minute)s?", re.IGNORECASE)
_SECONDS = {"hours": 3_600, "minutes": 60}

Unit = Literal["days", "hours", "minutes"]


@dataclass(frozen=True, slots=True)
class BusinessTime:
    """An amount of open time. When it ends depends on the calendar and the start."""

    count: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """Seconds of open time, for hours and minutes. Business days have no fixed length."""
        return self.count * _SECONDS[self.unit]

    def times(self, factor: float) -> BusinessTime:
        """Multiply, rounded to whole units."""
        return BusinessTime(max(1, round(self.count * factor)), self.unit)

    def __str__(self) -> str:
        return f"{self.count} business {self.unit if self.count != 1 else self.unit[:-1]}"


Length = timedelta | BusinessTime
"""A length in wall-clock or business time."""


def parse_length(text: str) -> Length:
    """Parse "4h" or "2 business days". Raises ValueError."""
    found = _BUSINESS.fullmatch(text.strip())
    if found is None:
        if "business" in text.lower():
            raise ValueError(f'"{text[:40]}" is not a duration; write it like "2 business days" or "4 business hours"')
        return parse_duration(text)
    unit: Unit = {"day": "days", "hour": "hours", "minute": "minutes"}[found[2].lower()]  # type: ignore[assignment]
    count = int(found[1])
    if count > MOST[unit]:
        raise ValueError(f"this is longer than {MOST[unit]:,} business {unit}")
    return BusinessTime(count, unit)


def length_text(length: Length) -> str:
    """Return the text that `parse_length` reads back."""
    return str(length) if isinstance(length, BusinessTime) else duration_text(length)


def is_at_least(one: Length, other: Length) -> bool:
    """Whether one length is at least the other, whenever both start.

    Business days, business hours and wall-clock time can't be compared without a start, so the result is False.
    """
    match one, other:
        case timedelta(), timedelta():
            return one >= other
        case BusinessTime(unit="days"), BusinessTime(unit="days"):
            return one.count >= other.count
        case BusinessTime(unit="hours" | "minutes"), BusinessTime(unit="hours" | "minutes"):
            return one.seconds >= other.seconds
        case _:
            return False


def read_length(value: object) -> Length:
    """Return the length that an author wrote. Raises the error of a validator."""
    match value:
        case timedelta():
            length: Length = value
        case BusinessTime():
            length = value
        case str():
            try:
                length = parse_length(value)
            except ValueError as error:
                raise refuse(str(error)) from None
        case _:
            raise refuse('write a duration as text, like "30m", "4h" or "2 business days"')
    if length == timedelta(0) or (isinstance(length, BusinessTime) and not length.count) or _is_negative(length):
        raise refuse("must be longer than 0s")
    return length


def _is_negative(length: Length) -> bool:
    return isinstance(length, timedelta) and length < timedelta(0)


Span = Annotated[
    Length,
    BeforeValidator(read_length),
    PlainSerializer(length_text, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\s*[0-9.]+\s*[A-Za-z]",
            "examples": ["30m", "4h", "3d", "2 business days", "4 business hours"],
        }
    ),
]
"""A positive length; text in TOML and JSON."""


WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_HOLIDAYS = 500  # dates in one calendar; each replay of a run that follows it reads them
DAY_END = 24 * 60  # minutes

_SPAN = re.compile(r"([0-9]{1,2}):([0-9]{2}) *(?:-|–|to) *([0-9]{1,2}):([0-9]{2})")
_EXAMPLE = 'write hours like "09:00-17:30", with a break ["09:00-12:00", "13:00-17:00"]'
_DAYS = 'write a day like "mon", or several like "mon-fri"'

Minutes = tuple[int, int]
"""Start and end in minutes from midnight; the end may be 1440."""


class Calendar(Frozen):
    """When an office is open, in its own time zone."""

    zone: TimeZone
    hours: Hours
    holidays: Annotated[tuple[Day, ...], Field(max_length=MOST_HOLIDAYS)] = ()

    def open_on(self, day: date) -> tuple[Minutes, ...]:
        """Return the open times of this day, in order; none on a holiday."""
        if day in self.holidays:
            return ()
        return tuple(_minutes(text) for text in self.hours.get(WEEK[day.weekday()], ()))


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise refuse(f'"{value[:60]}" is not a time zone; write it like "Europe/Berlin"', _zone_meant(value)) from None
    return value


def _zone_meant(value: str) -> str:
    """Return the zone that was probably meant: of this city, or written otherwise; "" if none is close."""
    named, zones = value[:60].lower().replace(" ", "_"), sorted(available_timezones())
    return next((zone for zone in zones if zone.lower().endswith(f"/{named}")), "") or nearest(named, zones)


def _hours(value: object) -> object:
    """Normalize hours to a table of single days, in the week's order.

    Accepts hours of Monday to Friday, or a table by days.
    """
    if isinstance(value, (str, list, tuple)):
        value = {"mon-fri": value}
    if not isinstance(value, dict):
        raise refuse(_EXAMPLE)
    found: dict[str, tuple[str, ...]] = {}
    for days, spans in value.items():
        for day in _days(days):
            if day in found:
                raise refuse(f"{day} is listed twice")
            found[day] = _opening_spans(spans)
    if not any(found.values()):
        raise refuse("this calendar is never open, so nothing would ever be due")
    return {day: found[day] for day in WEEK if found.get(day)}


def _days(text: object) -> tuple[str, ...]:
    first, dash, last = str(text).lower().partition("-")
    first, last = first.strip(), last.strip() if dash else first.strip()
    if first not in WEEK or last not in WEEK:
        raise refuse(f'"{str(text)[:40]}" is not a day; {_DAYS}')
    start, end = WEEK.index(first), WEEK.index(last)
    return WEEK[start : end + 1] if start <= end else (*WEEK[start:], *WEEK[: end + 1])


def _opening_spans(value: object) -> tuple[str, ...]:
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
        raise refuse(f'"{text[:40]}" is not a time range; {_EXAMPLE}')
    hour, minute, to_hour, to_minute = (int(part) for part in found.groups())
    start, end = hour * 60 + minute, to_hour * 60 + to_minute
    if minute > 59 or to_minute > 59 or end > DAY_END:
        raise refuse(f'"{text[:40]}" is not a time range; {_EXAMPLE}')
    if end <= start:
        raise refuse(f'"{text[:40]}" ends before it starts; put hours after midnight on the next day')
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
"""By day, in the week's order: times like "09:00-17:30"."""
Day = Annotated[date, BeforeValidator(_day)]


@dataclass(frozen=True)
class Calendars:
    """The calendars of config.toml, for Python workflows that use business time."""

    named: Mapping[str, Calendar] = field(default_factory=dict)
