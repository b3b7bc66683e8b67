"""Time zones in words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import available_timezones

import pytest

from approvals_bot.approvals.card_text import moment

AT = datetime(2026, 11, 4, 21, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("America/Sao_Paulo", "18:36 in São Paulo"),
        ("Asia/Kathmandu", "03:21 in Kathmandu"),
        ("Asia/Calcutta", "03:06 in Kolkata"),
        ("America/Argentina/Buenos_Aires", "18:36 in Buenos Aires"),
        ("Europe/Berlin", "22:36 in Berlin"),
        ("UTC", "21:36 UTC"),
        ("Etc/GMT+3", "18:36 UTC−03:00"),  # a minus
        ("CET", "22:36 UTC+01:00"),
        ("US/Pacific", "13:36 UTC−08:00"),  # a minus
        ("Mars/Olympus", "21:36 UTC"),
    ],
)
def test_a_time_names_its_city(zone: str, expected: str) -> None:
    assert moment(AT, zone).endswith(f", {expected}")


def test_no_zone_is_a_bare_number() -> None:
    for zone in available_timezones():
        assert re.search(r", \d\d:\d\d (in \w.*|UTC([+−]\d\d:\d\d)?)$", moment(AT, zone)), zone


def test_an_hour_that_comes_twice_has_its_offset() -> None:
    first, second = (moment(datetime(2026, 10, 25, hour, 30, tzinfo=UTC), "Europe/Berlin") for hour in (0, 1))
    assert first == "Sun 25 Oct 2026, 02:30 in Berlin (UTC+02:00)"
    assert second == "Sun 25 Oct 2026, 02:30 in Berlin (UTC+01:00)"
    assert moment(datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "Europe/Berlin") == "Sun 29 Mar 2026, 03:30 in Berlin"
