"""Business days and hours, in all calendars and across clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from approvals_bot.approvals.business_time import (
    WEEK,
    BusinessTime,
    Calendar,
    NoCalendarError,
    after,
    parse_length,
    takes_too_long,
)
from approvals_bot.approvals.clock import Clock

BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = Calendar(
    zone="Europe/Berlin",
    hours="09:00-17:00",
    holidays=("2026-12-25", "2027-01-01"),
)


def ends(start: str, length: str, calendar: Calendar = OFFICE) -> str:
    """Return the end, both times as the office's wall clock shows them: "2026-03-06 17:30"."""
    zone = ZoneInfo(calendar.zone)
    begun = datetime.fromisoformat(start).replace(tzinfo=zone)
    return f"{after(begun, parse_length(length), calendar).astimezone(zone):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        ("2026-03-03 14:00", "2 business days", "2026-03-05 14:00"),  # Tuesday to Thursday
        ("2026-03-06 14:00", "1 business day", "2026-03-09 14:00"),  # across the weekend
        ("2026-03-06 17:30", "1 business day", "2026-03-10 09:00"),  # Friday evening starts on Monday morning
        ("2026-03-07 12:00", "1 business day", "2026-03-10 09:00"),
        ("2026-03-06 17:00", "1 business day", "2026-03-09 17:00"),  # closing time is still open
        ("2026-03-06 08:00", "1 business day", "2026-03-09 09:00"),
        ("2026-12-24 10:00", "1 business day", "2026-12-28 10:00"),  # a holiday, then a weekend
        ("2026-12-31 16:00", "1 business day", "2027-01-04 16:00"),  # across the new year
        ("2026-03-06 16:30", "1 business hour", "2026-03-09 09:30"),
        ("2026-03-06 16:00", "1 business hour", "2026-03-06 17:00"),
        ("2026-03-06 17:30", "4 business hours", "2026-03-09 13:00"),
        ("2026-12-31 16:59", "2 business minutes", "2027-01-04 09:01"),
        ("2026-03-27 16:00", "1 business day", "2026-03-30 16:00"),  # the clocks go forward in between: still 16:00
        ("2026-10-23 16:00", "2 business hours", "2026-10-26 10:00"),
        ("2026-03-06 14:00", "40 business hours", "2026-03-13 14:00"),
    ],
)
def test_business_lengths_end_in_office_hours(start: str, length: str, end: str) -> None:
    assert ends(start, length) == end


UNEVEN = Calendar(
    zone="Europe/Berlin",
    hours={"mon-thu": ["09:00-12:00", "13:00-17:00"], "fri": "10:00-15:00"},
)


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        ("2026-03-05 16:30", "1 business day", "2026-03-06 15:00"),  # Friday ends earlier …
        ("2026-03-05 09:30", "1 business day", "2026-03-06 10:00"),  # … and starts later
        ("2026-03-06 12:30", "1 business day", "2026-03-09 13:00"),  # into Monday's break
        ("2026-03-03 11:30", "1 business hour", "2026-03-03 13:30"),  # across a break
        ("2026-03-03 12:30", "1 business day", "2026-03-04 13:00"),
        ("2026-03-05 16:30", "2 business days", "2026-03-09 16:30"),
    ],
)
def test_days_with_different_hours(start: str, length: str, end: str) -> None:
    assert ends(start, length, UNEVEN) == end


def test_a_night_shift_across_a_clock_change() -> None:
    night = Calendar(zone="Europe/Berlin", hours={"sun": "00:00-06:00"})
    assert ends("2026-03-29 00:00", "5 business hours", night) == "2026-03-29 06:00"  # this night has five hours
    assert ends("2026-10-25 00:00", "7 business hours", night) == "2026-10-25 06:00"  # and this one seven
    swallowed = Calendar(zone="Europe/Berlin", hours={"sun": "02:15-02:45"})
    assert ends("2026-03-28 12:00", "1 business minute", swallowed) == "2026-04-05 02:16"


def test_only_business_time_needs_a_calendar() -> None:
    start = datetime(2026, 3, 7, 12, tzinfo=UTC)
    assert after(start, timedelta(hours=4), None) == start + timedelta(hours=4)
    with pytest.raises(NoCalendarError, match='"2 business days" needs a calendar'):
        after(start, BusinessTime(2, "days"), None)


# ── laws ──

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns")
NIGHTS = [
    datetime.fromisoformat(day).replace(tzinfo=UTC)
    for day in ("2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31")
]
"""Days before a clock change, each with its zone."""
MOMENTS = st.builds(
    lambda day, seconds: day + timedelta(seconds=seconds),
    st.sampled_from(NIGHTS)
    | st.dates(date(2026, 1, 1), date(2028, 1, 1)).map(lambda day: datetime.combine(day, time(), UTC)),
    st.integers(0, 2 * 86_400),
)


@st.composite
def calendars(draw: st.DrawFn, *, alike: bool = False) -> Calendar:
    """Any calendar. `alike`: all open days have the same hours, and none at night, when clocks change."""
    quarters = range(16, 92) if alike else range(97)

    def spans() -> list[str]:
        edges = sorted(draw(st.sets(st.sampled_from(quarters), min_size=2, max_size=6)))
        pairs = zip(edges[::2], edges[1::2], strict=False)
        return [f"{a // 4:02}:{a % 4 * 15:02}-{b // 4:02}:{b % 4 * 15:02}" for a, b in pairs]

    days = draw(st.sets(st.sampled_from(WEEK), min_size=1))
    same = spans()
    hours = {day: same if alike else spans() for day in days}
    holidays = draw(st.sets(st.dates(date(2026, 1, 1), date(2028, 6, 1)), max_size=5))
    return Calendar(zone=draw(st.sampled_from(ZONES)), hours=hours, holidays=tuple(holidays))


def lengths(most: int = 20) -> st.SearchStrategy[BusinessTime]:
    return st.builds(BusinessTime, st.integers(1, most), st.sampled_from(("days", "hours", "minutes")))


def is_open(calendar: Calendar, moment: datetime) -> bool:
    """Whether the office is open at this moment, closing time included."""
    local = moment.astimezone(ZoneInfo(calendar.zone)).replace(tzinfo=None)
    for day in (local.date(), local.date() - timedelta(days=1)):
        minutes = (local - datetime.combine(day, time())) / timedelta(minutes=1)
        if any(begin <= minutes <= end for begin, end in calendar.open_on(day)):
            return True
    return False


@given(calendars(), MOMENTS, lengths())
def test_a_length_ends_within_the_hours_and_after_its_start(
    calendar: Calendar, start: datetime, length: BusinessTime
) -> None:
    end = after(start, length, calendar)
    assert end > start
    assert is_open(calendar, end)


@given(calendars(), MOMENTS, st.integers(0, 10**6), lengths())
def test_a_later_start_never_ends_earlier(
    calendar: Calendar, start: datetime, later: int, length: BusinessTime
) -> None:
    assert after(start, length, calendar) <= after(start + timedelta(seconds=later), length, calendar)


@given(calendars(), MOMENTS, lengths(), st.integers(1, 20))
def test_a_longer_length_ends_later(calendar: Calendar, start: datetime, length: BusinessTime, more: int) -> None:
    longer = BusinessTime(length.count + more, length.unit)
    assert after(start, length, calendar) < after(start, longer, calendar)


@given(calendars(), MOMENTS, st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_hours_add_up(calendar: Calendar, start: datetime, one: int, other: int, is_hours: bool) -> None:
    def of(count: int) -> BusinessTime:
        return BusinessTime(count, "hours" if is_hours else "minutes")

    assert after(after(start, of(one), calendar), of(other), calendar) == after(start, of(one + other), calendar)


@given(calendars(alike=True), MOMENTS, st.integers(1, 20), st.integers(1, 20))
def test_equal_days_add_up(calendar: Calendar, start: datetime, one: int, other: int) -> None:
    first = after(start, BusinessTime(one, "days"), calendar)
    assert after(first, BusinessTime(other, "days"), calendar) == after(
        start, BusinessTime(one + other, "days"), calendar
    )


@given(calendars(), MOMENTS, lengths())
def test_the_zone_of_the_start_does_not_matter(calendar: Calendar, start: datetime, length: BusinessTime) -> None:
    assert after(start.astimezone(BERLIN), length, calendar) == after(start, length, calendar)


# ── valid calendars ──


@pytest.mark.parametrize(
    ("hours", "what"),
    [
        ({}, "this calendar is never open"),
        ([], "this calendar is never open"),
        ({"mon": []}, "this calendar is never open"),
        ("9-17", "is not a time range"),
        ("09:00-25:00", "is not a time range"),
        ("09:70-10:00", "is not a time range"),
        ("22:00-06:00", "ends before it starts"),
        ("09:00-09:00", "ends before it starts"),
        (["09:00-12:00", "11:00-13:00"], "overlap"),
        ({"monday": "09:00-17:00"}, "is not a day"),
        ({"mon-wed": "09:00-17:00", "tue": "10:00-12:00"}, "twice"),
        (9, "write hours like"),
    ],
)
def test_invalid_hours_are_refused(hours: object, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        Calendar.model_validate({"zone": "UTC", "hours": hours})


def test_hours_are_stored_by_day() -> None:
    found = Calendar.model_validate({"zone": "UTC", "hours": {"fri-sun": "9:00 - 13:00", "mon": "08:00-24:00"}})
    assert found.hours == {
        "mon": ("08:00-24:00",),
        "fri": ("09:00-13:00",),
        "sat": ("09:00-13:00",),
        "sun": ("09:00-13:00",),
    }


def test_a_calendar_that_is_hardly_ever_open_takes_too_long() -> None:
    rare = Calendar(zone="UTC", hours={"mon": "09:00-09:15"})
    assert takes_too_long(BusinessTime(3_000, "hours"), rare)
    assert not takes_too_long(BusinessTime(3_000, "hours"), OFFICE)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    assert after(start, BusinessTime(3_000, "hours"), rare) < start + timedelta(days=16 * 365)


@pytest.mark.parametrize(
    "text",
    [
        "business days",
        "0 business days",
        "-1 business days",
        "2 business weeks",
        "1.5 business hours",
        "400 business days",
    ],
)
def test_invalid_business_times_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Clock.model_validate({"deadline": text})
