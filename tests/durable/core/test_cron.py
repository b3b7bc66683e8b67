"""Cron times against brute force: every minute of a year, around every change of the clocks."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.core.local_time import offset_at
from tests.support.thorough import examples

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Africa/Cairo",  # at midnight
    "America/Santiago",  # at midnight, in the southern hemisphere
    "Asia/Gaza",  # twice in spring and twice in autumn, around Ramadan
    "America/Havana",  # the hour after midnight comes twice
    "Asia/Kathmandu",
)
MINUTE = timedelta(minutes=1)


def changes(zone: str, year: int) -> list[datetime]:
    """Return when the clocks change in this year, to the minute."""
    hours = (datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(366 * 24))
    found = []
    for hour in hours:
        after = hour + timedelta(hours=1)
        if offset_at(hour, ZoneInfo(zone)) != offset_at(after, ZoneInfo(zone)):
            while offset_at(hour, ZoneInfo(zone)) != offset_at(after, ZoneInfo(zone)):
                hour += MINUTE  # walks to the change
            found.append(hour)
    return found


AROUND = [(zone, at) for zone in ZONES for year in (2025, 2026) for at in changes(zone, year)]


def fields(lowest: int, highest: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """Return fields of an expression: each as it is written, and the numbers that it means."""
    everything = frozenset(range(lowest, highest + 1))
    some = st.sets(st.integers(lowest, highest), min_size=1, max_size=4)
    return st.one_of(
        st.just(("*", everything)),
        st.integers(2, 20).map(lambda n: (f"*/{n}", frozenset(range(lowest, highest + 1, n)))),
        some.map(lambda chosen: (",".join(map(str, sorted(chosen))), frozenset(chosen))),
        st.tuples(st.integers(lowest, highest), st.integers(lowest, highest)).map(
            lambda pair: (f"{min(pair)}-{max(pair)}", frozenset(range(min(pair), max(pair) + 1)))
        ),
    )


@cache
def minutes_around(zone: str, change: datetime) -> list[tuple[datetime, datetime, bool, list[datetime]]]:
    """Return each minute around a change: its wall clock, whether it shows that again, and what it has just skipped."""
    found, moment = [], change - timedelta(days=2)
    before = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    while moment < change + timedelta(days=2):
        moment += MINUTE
        local = moment.astimezone(ZoneInfo(zone))
        wall = local.replace(tzinfo=None)
        skipped = [before + MINUTE * n for n in range(1, int((wall - before) / MINUTE))]
        found.append((moment, wall, bool(local.fold), skipped))
        before = wall
    return found


def expected(
    zone: str, change: datetime, minutes: frozenset[int], hours: frozenset[int], days: frozenset[int]
) -> list[datetime]:
    """Return the times around a change, by looking at each minute and at what its clocks skip."""

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and wall.isoweekday() % 7 in days

    if hours == frozenset(range(24)):
        return [moment for moment, wall, *_ in minutes_around(zone, change) if matches(wall)]
    return [
        moment
        for moment, wall, is_again, skipped in minutes_around(zone, change)
        if (matches(wall) and not is_again) or any(map(matches, skipped))
    ]


@settings(max_examples=examples(500), deadline=None)
@given(
    around=st.sampled_from(AROUND),
    minute=fields(0, 59),
    hour=fields(0, 23),
    day=fields(0, 6),
    start=st.integers(-2_000, 200),
    seconds=st.integers(0, 59),
)
def test_times_are_those_that_brute_force_finds(
    around: tuple[str, datetime],
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    day: tuple[str, frozenset[int]],
    start: int,
    seconds: int,
) -> None:
    zone, change = around
    begin, end = change + start * MINUTE, change + timedelta(days=2)
    cron = Cron(f"{minute[0]} {hour[0]} * * {day[0]}", zone)
    wanted = [time for time in expected(zone, change, minute[1], hour[1], day[1]) if time > begin]
    found = []
    for time in cron.times(begin + timedelta(seconds=seconds)):
        if time > end:
            break
        found.append(time)
    assert found == wanted
    assert cron.last(begin + timedelta(seconds=seconds), end) == (wanted[-1] if wanted else None)
    for one, following in zip([begin, *wanted[:20]], wanted, strict=False):
        assert cron.after(one) == following


def test_a_skipped_time_is_the_moment_of_the_change() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    assert cron.after(datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 29, 1, tzinfo=UTC)


def test_a_repeated_time_is_the_first_of_the_two() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    times = islice(cron.times(datetime(2026, 10, 24, 12, tzinfo=UTC)), 2)
    assert list(times) == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


def test_six_fields_begin_with_seconds() -> None:
    cron = Cron("*/20 30 2 * * *", "Europe/Berlin")
    at = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    times = list(islice(cron.times(at - MINUTE), 4))
    assert times == [at, at + timedelta(seconds=20), at + timedelta(seconds=40), at + timedelta(days=1, hours=1)]


def test_every_hour_goes_on_in_an_hour_that_comes_twice() -> None:
    at = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    times = list(islice(Cron("30 * * * *", "Europe/Berlin").times(at - MINUTE), 3))
    assert times == [at, at + timedelta(hours=1), at + timedelta(hours=2)]


def test_half_an_hour_that_comes_twice_has_its_times_twice() -> None:
    at = datetime(2025, 4, 5, 14, 30, tzinfo=UTC)
    times = list(islice(Cron("30 * * * *", "Australia/Lord_Howe").times(at - MINUTE), 3))
    assert times == [at, at + timedelta(minutes=30), at + timedelta(minutes=90)]


def test_the_last_hour_of_a_day_that_comes_twice_has_its_times_twice() -> None:
    at = datetime(2025, 10, 30, 20, 30, tzinfo=UTC)  # 23:30 in Cairo, half an hour before the clocks go back
    times = list(islice(Cron("30 * 30 10 *", "Africa/Cairo").times(at - MINUTE), 3))
    assert times == [at, at + timedelta(hours=1), datetime(2026, 10, 29, 22, 30, tzinfo=UTC)]


def test_a_day_that_a_zone_skips_is_the_moment_of_the_change() -> None:
    cron = Cron("0 12 * * *", "Pacific/Apia")  # 30 December 2011 didn't exist there
    times = list(islice(cron.times(datetime(2011, 12, 29, 0, tzinfo=UTC)), 3))
    assert times == [
        datetime(2011, 12, 29, 22, tzinfo=UTC),
        datetime(2011, 12, 30, 10, tzinfo=UTC),
        datetime(2011, 12, 30, 22, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@daily", "five fields"),
        ("0 9 * *", "five fields"),
        ("61 * * * *", "bad minute"),
        ("0 9 * * FOO", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("* * */20 * 1L", "no times"),
        ("² * * * *", "bad minute"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cron(text, "UTC")


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises((ValueError, KeyError)):
        Cron("0 9 * * *", "Europe/Bonn")


@settings(max_examples=examples(300))
@given(text=st.text(alphabet="0123456789*/,-L#W MONJA?²", max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        Cron(text, "Asia/Gaza").after(datetime(2026, 3, 1, tzinfo=UTC))


def test_the_last_of_many_times_is_found_from_the_end() -> None:
    until = datetime(2026, 3, 1, tzinfo=UTC)
    assert Cron("* * * * * *", "UTC").last(datetime(2000, 1, 1, tzinfo=UTC), until) == until
    assert Cron("0 0 29 2 *", "UTC").last(datetime(2000, 1, 1, tzinfo=UTC), until) == datetime(2024, 2, 29, tzinfo=UTC)
