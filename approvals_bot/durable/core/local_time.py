"""Wall clocks of time zones, and the moments that they show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

LONGEST_CHANGE = timedelta(hours=25)
"""More than any change of clocks: a zone that moves across the date line skips a whole day."""


def moment_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment, in UTC, at which clocks in this zone show a naive `wall`.

    For a time that they skip, it is the moment of the change. For one that they show twice, it is the first.
    """
    moment = wall.replace(tzinfo=zone).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == wall:
        return moment
    return last_change(moment, zone)


def last_change(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clocks changed, in UTC. They must have changed once in the 25 hours before `moment`."""
    late = moment.astimezone(UTC)
    early, offset = late - LONGEST_CHANGE, offset_at(late, zone)
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if offset_at(middle, zone) == offset:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)


def offset_at(moment: datetime, zone: ZoneInfo) -> timedelta:
    """Return how far clocks in this zone are ahead of UTC."""
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None, "the moment is aware"
    return offset
