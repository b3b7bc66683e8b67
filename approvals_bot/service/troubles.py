"""What is wrong for a while: the log says when it begins, every five minutes, and when it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

AGAIN = timedelta(minutes=5)  # between two lines about the same trouble
LOOK_EVERY = 5.0  # seconds

log = logging.getLogger("approvals_bot.service")


@dataclass(frozen=True, slots=True)
class LastingTrouble:
    """Something that is wrong. `key`: what, for programs: `channel email`. `channel`, `target`: fields of its lines."""

    key: str
    event: str
    text: str
    since: datetime
    logged_at: datetime
    channel: str = ""
    target: str = ""


class Troubles:
    """The troubles of one process. Beginning one that lasts already changes nothing but its text."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._open: dict[str, LastingTrouble] = {}

    def __iter__(self) -> Iterator[LastingTrouble]:
        return iter([*self._open.values()])

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def begin(self, key: str, event: str, text: str, *, channel: str = "", target: str = "") -> None:
        """Take note that this is wrong, and log it if it wasn't before."""
        if (known := self._open.get(key)) is not None:
            self._open[key] = replace(known, text=text)
            return
        now = self._now()
        self._open[key] = trouble = LastingTrouble(key, event, text, now, now, channel, target)
        _log(trouble, logging.ERROR, text, "begun")

    def end(self, key: str, event: str, text: str) -> None:
        """Take note that it is over, and log that if it was wrong."""
        if (known := self._open.pop(key, None)) is not None:
            _log(replace(known, event=event), logging.INFO, text, "over")

    def remind(self) -> None:
        """Log each trouble again whose last line is old."""
        now = self._now()
        for trouble in self:
            if now - trouble.logged_at >= AGAIN:
                self._open[trouble.key] = replace(trouble, logged_at=now)
                minutes = (now - trouble.since) // timedelta(minutes=1)
                _log(trouble, logging.ERROR, f"{trouble.text} (for {minutes} minutes now)", "lasting")

    async def keep_reminding(self) -> None:
        """Remind until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.remind()


def _log(trouble: LastingTrouble, level: int, text: str, outcome: str) -> None:
    fields = {"event": trouble.event, "channel": trouble.channel, "target": trouble.target, "outcome": outcome}
    log.log(level, "%s", text, extra=fields)
