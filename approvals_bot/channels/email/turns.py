"""A relay's allowance: no more than so many mails in any such span of time. Who comes too early is given a turn.

Kept in memory: after a restart the relay may be given one allowance too many, and with several processes each counts
for itself.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

LATE = timedelta(seconds=30)  # who comes later than this for a turn has lost it: others may have gone in between

_WORDS = {1: "a second", 60: "a minute", 3_600: "an hour", 86_400: "a day"}


class Turns:
    """Gives turns in the order in which they are asked for."""

    def __init__(self, count: int, per: timedelta) -> None:
        self._count = count
        self._per = per
        self._given: deque[datetime] = deque(maxlen=count)  # the newest turns, oldest first; some are still to come
        self._waiting: dict[str, datetime] = {}

    def __str__(self) -> str:
        return f"{self._count} mail{'s' if self._count > 1 else ''} {_WORDS[int(self._per.total_seconds())]}"

    def wait(self, who: str, now: datetime) -> timedelta:
        """How long this one still has to wait for its turn, which is kept for it; nothing: it goes now."""
        turn = self._waiting.pop(who, None)
        if turn is None or turn < now - LATE:
            turn = max(now, self._given[0] + self._per) if len(self._given) == self._count else now
            self._given.append(turn)
        if turn > now:
            self._waiting[who] = turn
        self._forget(now)
        return max(timedelta(), turn - now)

    def _forget(self, now: datetime) -> None:
        """Turns that nobody came for, because their requests were decided."""
        for who, turn in [*self._waiting.items()]:  # in the order of their turns
            if turn >= now - LATE:
                break
            del self._waiting[who]
