"""Durations: `"7 days"`, `"1h30m"`, `90`, `timedelta(hours=2)`, or an instant in the future."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta

from approvals_bot.errors import InvalidArgumentError

Duration = str | int | float | timedelta | datetime
"""Text (`"10s"`, `"1 minute"`, `"7 days"`, `"1h30m"`), seconds, a timedelta, or an aware datetime."""

_UNITS = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86_400,
    "w": 604_800,
}  # seconds
_WORDS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*,?", re.IGNORECASE)


LONGEST = 1000 * 365 * 86_400.0
"""Seconds in a thousand years. Counted from today, its end still has a date."""


def parse_duration(text: str) -> timedelta:
    """Parse `"1h30m"` or `"7 days"`. Raises ValueError for anything else, such as a sign or a missing unit."""
    seconds, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        unit = part and _WORDS.get(part[2].lower())
        if part is None or unit is None:
            raise InvalidArgumentError(
                f"{text!r} is not a duration: write it like '30s', '15m', '4h', '7 days' or '1h30m'"
            )
        seconds += float(part[1]) * _UNITS[unit]
        at = part.end()
    if at == 0:
        raise InvalidArgumentError("an empty text is not a duration: write it like '30s', '15m', '4h' or '7 days'")
    return timedelta(seconds=_plausible(seconds, text))


def as_seconds(duration: Duration, now: datetime) -> float:
    """Return the seconds from `now`; 0 for an instant that has passed. Raises ValueError if it isn't a duration."""
    match duration:
        case str():
            return parse_duration(duration).total_seconds()
        case timedelta():
            seconds = duration.total_seconds()
        case datetime():
            if duration.tzinfo is None:
                raise InvalidArgumentError("a datetime to sleep until must be aware: give it a time zone")
            return seconds_until(duration, now)
        case bool():
            raise InvalidArgumentError(f"{duration!r} is not a duration")
        case int() | float():
            seconds = float(min(duration, LONGEST + 1))  # an int may be more than a float can be
        case _:
            raise InvalidArgumentError(f"{duration!r} is not a duration")
    if math.isnan(seconds) or seconds < 0:
        raise InvalidArgumentError(f"a duration must be a number, 0 or more, not {duration!r}")
    return _plausible(seconds, duration)


def seconds_until(instant: datetime, now: datetime) -> float:
    """Return the seconds from `now` to an aware instant; 0 if it has passed. Raises ValueError if it is too far away.

    Later ones may have no date in UTC: the last year is 9999.
    """
    seconds = max(0.0, (instant - now).total_seconds())
    if seconds > LONGEST:
        raise InvalidArgumentError(f"a time can be a thousand years away at most; {instant.isoformat()} is later")
    return seconds


def _plausible(seconds: float, duration: object) -> float:
    if seconds > LONGEST:
        raise InvalidArgumentError(f"a duration can be a thousand years at most; {duration!r} is longer")
    return seconds
