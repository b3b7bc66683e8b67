"""When a span ends: by the clock on the wall, or counted while an office is open. Pure, and the same at every replay.

Business hours and minutes are open time, added up over breaks, nights, weekends and holidays. A business day leads to
the same time of the next open day; where the office is closed then, to its next opening on that day, or to its end of
that day. What begins while it is closed begins at the next opening. So nothing is ever due while nobody is there.

Times of the wall that a clock change skips or repeats are read as the moment of the change and as the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from approvals_bot.config.business import BusinessTime, Length
from approvals_bot.config.calendars import DAY_END, Calendar
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
