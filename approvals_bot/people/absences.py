"""Absences and delegates: days in a person's own time zone, followed from delegate to delegate.

A delegate who is away has delegates of their own. These chains are followed for a few steps, and never in a circle. If
nobody is found, the result says why, and the person stays an approver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MOST_STEPS = 5  # from delegate to delegate; anybody further away knows nothing about the matter


@dataclass(frozen=True, slots=True)
class Absence:
    """Days on which a person is away, first and last included. `delegates`: in order of preference."""

    first: date
    last: date
    delegates: tuple[str, ...] = ()

    def begins(self, zone: str) -> datetime:
        return _midnight(self.first, zone)

    def ends(self, zone: str) -> datetime:
        return _midnight(self.last + timedelta(days=1), zone)


@dataclass(frozen=True, slots=True)
class Away:
    """A person who is away now.

    `until`: when they are back; `back`: on which day. `delegates`: the available delegates, in order of preference.
    `trouble`: what the operator has to fix about the configured delegates, or "".
    """

    until: datetime
    back: date
    delegates: tuple[str, ...] = ()
    trouble: str = ""


Known = Callable[[str], tuple[Sequence[Absence], str]]
"""Looks up a person's absences, those first that count first, and their time zone, by address."""


def away(address: str, at: datetime, known: Known) -> Away | None:
    """Return this person's absence at this time, with its delegates; None if they aren't away."""
    absence = _absence(address, at, known)
    if absence is None:
        return None
    found, troubles = dict[str, None](), dict[str, None]()
    _follow((address,), absence, at, known, found, troubles)
    back = absence.last + timedelta(days=1)
    return Away(absence.ends(known(address)[1]), back, tuple(found), "; ".join(troubles))


def next_change(address: str, at: datetime, known: Known) -> datetime | None:
    """Return when this person next leaves or comes back, by today's configuration; None for never."""
    absences, zone = known(address)
    moments = [moment for each in absences for moment in (each.begins(zone), each.ends(zone))]
    return min((moment for moment in moments if moment > at), default=None)


def _follow(
    way: tuple[str, ...],
    absence: Absence,
    at: datetime,
    known: Known,
    found: dict[str, None],
    troubles: dict[str, None],
) -> None:
    for delegate in absence.delegates:
        theirs = _absence(delegate, at, known)
        if delegate in way:
            circle = (*way[way.index(delegate) :], delegate)
            troubles.setdefault(f"the delegates form a circle ({' → '.join(circle)})")
        elif theirs is None:
            found.setdefault(delegate)
        elif len(way) == MOST_STEPS:
            troubles.setdefault(f"more than {MOST_STEPS} delegates in a row are away ({' → '.join((*way, delegate))})")
        else:
            _follow((*way, delegate), theirs, at, known, found, troubles)


def _absence(address: str, at: datetime, known: Known) -> Absence | None:
    """Return the current absence. Of several, the first that names delegates says who they are; the last ends it."""
    absences, zone = known(address)
    current = [each for each in absences if each.begins(zone) <= at < each.ends(zone)]
    if len(current) < 2:
        return current[0] if current else None
    delegates = next((each.delegates for each in current if each.delegates), ())
    return Absence(min(each.first for each in current), max(each.last for each in current), delegates)


def _midnight(day: date, zone: str) -> datetime:
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        local = ZoneInfo("UTC")
    return datetime.combine(day, time(), local).astimezone(UTC)
