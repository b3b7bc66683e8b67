"""Cron expressions in a time zone, as moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from approvals_bot.durable.core.local_time import LONGEST_CHANGE, last_change, moment_of, offset_at

_ANY = datetime(2026, 1, 1)  # noqa: DTZ001  # a wall clock's time
_FIRST_LOOK, _WIDER = timedelta(minutes=1), 4
_EVERY_HOUR = frozenset(range(24))


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, `0 9 * * MON-FRI`, in the time zone of its wall clock.

    It has five fields (minute, hour, day, month, weekday), or six with seconds in front. Where it names hours, a time
    that the clocks skip is the moment of the change, and one that they show twice is the first of the two. With `*` for
    the hour, it goes by the time that passes: every 15 minutes stays every 15 minutes.

    Raises ValueError if the expression or the zone can't be read, or if it has no times.
    """

    text: str
    zone: str
    _fields: str = field(init=False, repr=False, compare=False)
    _names_hours: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = self.text.split()
        if len(fields) not in (5, 6):
            raise ValueError('write five fields: minute, hour, day, month and weekday, like "0 9 * * MON-FRI"')
        # Clocks that change are handled below: cronsim's rules for them hold for five fields only.
        object.__setattr__(self, "_fields", " ".join(fields if len(fields) == 6 else ["0", *fields]))
        try:
            times = CronSim(self._fields, _ANY)
        except CronSimError as error:
            raise ValueError(f"is not a cron expression: {str(error).lower()}") from None
        object.__setattr__(self, "_names_hours", times.hours != _EVERY_HOUR)
        ZoneInfo(self.zone)
        if next(times, None) is None:
            raise ValueError("has no times in the next fifty years")

    def after(self, moment: datetime) -> datetime | None:
        """Return the first time after this moment, in UTC. None if there is none in fifty years."""
        return next(self.times(moment), None)

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the times after this moment, in UTC and in order."""
        zone = ZoneInfo(self.zone)
        return self._of_the_clock(after, zone) if self._names_hours else self._of_passing_time(after, zone)

    def _of_the_clock(self, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        for wall in CronSim(self._fields, after.astimezone(zone).replace(tzinfo=None)):
            moment = moment_of(wall, zone)
            if moment > after:  # several skipped times are one moment
                yield moment
                after = moment

    def _of_passing_time(self, after: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Walk along the clock with its offset, up to each change of it.

        cronsim could do this with aware times, but it misses some where clocks change by half an hour.
        """
        offset = offset_at(after, zone)
        while True:
            wall = next(CronSim(self._fields, (after.astimezone(UTC) + offset).replace(tzinfo=None)), None)
            if wall is None:
                return
            time = (wall - offset).replace(tzinfo=UTC)
            near = min(time, after + LONGEST_CHANGE)  # a later change shows no time again that has passed
            if (later := offset_at(near, zone)) != offset:
                after, offset = last_change(near, zone) - timedelta(seconds=1), later
            elif near < time and offset_at(time, zone) != offset:
                after = max(near, time - LONGEST_CHANGE)
                offset = offset_at(after, zone)
            else:
                yield time
                after = time

    def last(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last time after `after` and up to `until`, in UTC. None if there is none.

        It looks from the end, so a long span costs no more than a short one.
        """
        span = _FIRST_LOOK
        while True:
            start, found = max(after, until - span), None
            for time in self.times(start):
                if time > until:
                    break
                found = time
            if found is not None or start == after:
                return found
            span *= _WIDER
