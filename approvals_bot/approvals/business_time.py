"""When a span ends: by the clock on the wall, or counted while an office is open. Pure, and the same at every replay.

Business hours and minutes are open time, added up over breaks, nights, weekends and holidays. A business day leads to
the same time of the next open day; where the office is closed then, to its next opening on that day, or to its end of
that day. What begins while it is closed begins at the next opening. So nothing is ever due while nobody is there.

Times of the wall that a clock change skips or repeats are read as the moment of the change and as the first of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from approvals_bot.approvals.base import Frozen, refuse
from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.errors import ApprovalsBotError

LONGEST = timedelta(days=15 * 365)
"""Nothing is due later than this. Only a calendar that is hardly ever open leads there; `check` refuses such a span."""

Open = tuple[datetime, datetime]
"""From when to when the office is open without a break; both in UTC."""


class NoCalendarError(ApprovalsBotError):
    """A span is counted in business time, and no calendar says when that is. The workflow's author names one."""

    def __init__(self, length: str) -> None:
        self.length = length
        super().__init__(f'"{length}" is counted in a calendar, and the clock names none.')


def after(start: datetime, length: Length, calendar: Calendar | None) -> datetime:
    """When this length, begun then, is over. Never before `start`."""
    if isinstance(length, timedelta):
        return start + length
    if calendar is None:
        raise NoCalendarError(str(length))
    start = start.astimezone(UTC)
    return min(_end(start, length, calendar), start + LONGEST)


def takes_too_long(length: Length, calendar: Calendar) -> bool:
    """Whether it may reach `LONGEST`, for a calendar that is hardly ever open."""
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
    """The open day and moment at which counting begins: now, or the next opening. The moment of closing is open."""
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
    """This moment, or the next opening on its day, or the end of that day."""
    for begin, end in spans:
        if moment <= end:
            return max(begin, moment)
    return spans[-1][1]


def _open_times(calendar: Calendar, start: datetime) -> Iterator[Open]:
    """From this moment on."""
    first = start.astimezone(ZoneInfo(calendar.zone)).date() - timedelta(days=1)
    for later in range(LONGEST.days):
        for begin, end in _spans(calendar, first + timedelta(days=later)):
            if end > start:
                yield max(begin, start), end


def _spans(calendar: Calendar, day: date) -> list[Open]:
    """When the office is open on this day. A span that a clock change swallows whole is none."""
    zone = ZoneInfo(calendar.zone)
    spans = [(_instant(day, begin * 60, zone), _instant(day, end * 60, zone)) for begin, end in calendar.open_on(day)]
    return [(begin, end) for begin, end in spans if begin < end]


def _wall_time(moment: datetime, day: date, zone: ZoneInfo) -> float:
    """Seconds that a clock on the wall shows since the midnight in which this day began.

    In the second pass of a repeated hour it counts as stopped at the hour's end: the wall would else go back.
    """
    local = moment.astimezone(zone)
    shown = local.replace(tzinfo=None)
    if local.fold:
        shown = _change(moment, zone) + _offset(moment - timedelta(hours=3), zone)
    return (shown - datetime.combine(day, time())).total_seconds()


def _instant(day: date, seconds: float, zone: ZoneInfo) -> datetime:
    """When a clock on the wall shows this many seconds of this day."""
    extra, seconds = divmod(seconds, DAY_END * 60)
    wall = datetime.combine(day + timedelta(days=extra), time()) + timedelta(seconds=seconds)
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) != wall:  # the clocks skip it
        return _change(moment, zone).replace(tzinfo=UTC)
    return moment


def _change(moment: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks were last changed before this moment, within three hours; UTC without its zone."""
    late = moment.astimezone(UTC).replace(tzinfo=None)
    early, offset = late - timedelta(hours=3), _offset(late, zone)
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if _offset(middle, zone) == offset:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    offset = moment.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None, "the moment is aware"
    return offset


MOST = {"days": 366, "hours": 3_000, "minutes": 180_000}
"""A year or so: beyond it a typing error is likelier than a wish."""

_BUSINESS = re.compile(r"([0-9]{1,9}) *business *(day|hour|minute)s?", re.IGNORECASE)
_SECONDS = {"hours": 3_600, "minutes": 60}

Unit = Literal["days", "hours", "minutes"]


@dataclass(frozen=True, slots=True)
class BusinessTime:
    """So much time while the office is open. What it comes to depends on the calendar and on when it begins."""

    count: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """Of open time. Business days have no fixed length and are counted as days."""
        return self.count * _SECONDS[self.unit]

    def times(self, factor: float) -> BusinessTime:
        """So many times as long, in whole units of its own."""
        return BusinessTime(max(1, round(self.count * factor)), self.unit)

    def __str__(self) -> str:
        return f"{self.count} business {self.unit if self.count != 1 else self.unit[:-1]}"


Length = timedelta | BusinessTime
"""How long, by the clock on the wall or while the office is open."""


def parse_length(text: str) -> Length:
    """Read "4h" or "2 business days"; raises ValueError."""
    found = _BUSINESS.fullmatch(text.strip())
    if found is None:
        if "business" in text.lower():
            raise ValueError(
                f'"{text[:40]}" is not a span of time; write it like "2 business days" or "4 business hours"'
            )
        return parse_duration(text)
    unit: Unit = {"day": "days", "hour": "hours", "minute": "minutes"}[found[2].lower()]  # type: ignore[assignment]
    count = int(found[1])
    if count > MOST[unit]:
        raise ValueError(f"this is longer than {MOST[unit]:,} business {unit}")
    return BusinessTime(count, unit)


def length_text(length: Length) -> str:
    """As `parse_length` reads it back."""
    return str(length) if isinstance(length, BusinessTime) else duration_text(length)


def is_at_least(one: Length, other: Length) -> bool:
    """Whether it surely is as long as the other, whenever both begin.

    Days, hours and time by the wall can't be compared without a day on which they begin.
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


def _read(value: object) -> object:
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
            raise refuse('write a span of time as text, like "30m", "4h" or "2 business days"')
    if length == timedelta(0) or (isinstance(length, BusinessTime) and not length.count) or _is_negative(length):
        raise refuse("must be longer than 0s")
    return length


def _is_negative(length: Length) -> bool:
    return isinstance(length, timedelta) and length < timedelta(0)


Span = Annotated[
    Length,
    BeforeValidator(_read),
    PlainSerializer(length_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30m", "4h", "3d", "2 business days", "4 business hours"]}),
]
"""A length longer than nothing; text in TOML and JSON."""


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
            found[day] = _opening_spans(spans)
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
