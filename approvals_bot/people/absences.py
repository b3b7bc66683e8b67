"""Who is away, and who stands in: days in a person's own zone, followed from stand-in to stand-in.

A stand-in who is away has stand-ins of her own. They are followed for a few steps and never in a circle; where nobody
is found, it says why, and the person herself stays asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MOST_STEPS = 5  # from stand-in to stand-in; who is so far away knows nothing of the matter


@dataclass(frozen=True, slots=True)
class Absence:
    """Days on which a person is away, the first and the last included. `stand_ins`: in the order they are asked."""

    first: date
    last: date
    stand_ins: tuple[str, ...] = ()

    def begins(self, zone: str) -> datetime:
        return _midnight(self.first, zone)

    def ends(self, zone: str) -> datetime:
        return _midnight(self.last + timedelta(days=1), zone)


@dataclass(frozen=True, slots=True)
class Away:
    """A person is away now.

    `until`: when she is back, and `back`: on which day. `stand_ins`: who is there and may be asked in her place, in
    that order. `trouble`: what is wrong with the stand-ins that are written down, for the operator to mend; or "".
    """

    until: datetime
    back: date
    stand_ins: tuple[str, ...] = ()
    trouble: str = ""


Known = Callable[[str], tuple[Sequence[Absence], str]]
"""A person's absences and her zone, by address."""


def away(address: str, at: datetime, known: Known) -> Away | None:
    """Whether this person is away at this time, and who may stand in for her. None: she is there."""
    absence = _absence(address, at, known)
    if absence is None:
        return None
    found, troubles = dict[str, None](), dict[str, None]()
    _follow((address,), absence, at, known, found, troubles)
    back = absence.last + timedelta(days=1)
    return Away(absence.ends(known(address)[1]), back, tuple(found), "; ".join(troubles))


def next_change(address: str, at: datetime, known: Known) -> datetime | None:
    """When this person next leaves or comes back, by what is written down now."""
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
    for stand_in in absence.stand_ins:
        theirs = _absence(stand_in, at, known)
        if stand_in in way:
            circle = (*way[way.index(stand_in) :], stand_in)
            troubles.setdefault(f"the stand-ins lead in a circle ({' → '.join(circle)})")
        elif theirs is None:
            found.setdefault(stand_in)
        elif len(way) == MOST_STEPS:
            troubles.setdefault(f"there are more than {MOST_STEPS} stand-ins in a row ({' → '.join((*way, stand_in))})")
        else:
            _follow((*way, stand_in), theirs, at, known, found, troubles)


def _absence(address: str, at: datetime, known: Known) -> Absence | None:
    """The one that lasts longest, of those that overlap."""
    absences, zone = known(address)
    current = [each for each in absences if each.begins(zone) <= at < each.ends(zone)]
    return max(current, key=lambda each: each.last, default=None)


def _midnight(day: date, zone: str) -> datetime:
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        local = ZoneInfo("UTC")
    return datetime.combine(day, time(), local).astimezone(UTC)
