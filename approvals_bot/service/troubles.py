"""What is wrong for a while: the log says when it begins, changes, every five minutes, and when it is over."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

AGAIN = timedelta(minutes=5)  # between two lines about the same trouble
ORDER = (
    "store",
    "key_not_everywhere",
    "log",
    "channel",
    "directory",
    "source",
    "configuration",
    "stalled",
    "target",
    "anchor",
    "archive",
    "replica_gone",
)
"""What to look at first, by the first word of a trouble's key: what keeps everybody from working, before the rest."""
CHANGED = timedelta(seconds=20)  # between two lines at least, if it is wrong for another reason now
NUMBERED = re.compile(r"[\w:-]*\d[\w:-]*")  # what is another one each time: ports, times, IDs of mails
LOOK_EVERY = 5.0  # seconds

log = logging.getLogger("approvals_bot.service")


@dataclass(frozen=True, slots=True)
class LastingTrouble:
    """Something that is wrong. `key`: what, for programs: `channel email`. `channel`, `target`: fields of its lines.

    `text` says what is wrong, `mend` what to do about it. `logged`: both, as its last line said them.
    """

    key: str
    event: str
    text: str
    mend: str
    since: datetime
    logged_at: datetime
    channel: str = ""
    target: str = ""
    logged: str = ""

    @property
    def said(self) -> str:
        return f"{self.text}. {self.mend}"


def urgency(key: str) -> int:
    """Return the place of this key's trouble among those that there are, the most urgent first."""
    kind = key.partition(" ")[0]
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


class Troubles:
    """The troubles of one process. Beginning one that lasts already changes nothing but its words."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._open: dict[str, LastingTrouble] = {}

    def __iter__(self) -> Iterator[LastingTrouble]:
        return iter([*self._open.values()])

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def begin(
        self,
        key: str,
        event: str,
        text: str,
        mend: str,
        *,
        channel: str = "",
        target: str = "",
        is_logged: bool = False,
    ) -> None:
        """Record that this is wrong, and log it if it wasn't before. `is_logged`: the caller has logged it."""
        if (known := self._open.get(key)) is not None:
            self._open[key] = replace(known, text=text, mend=mend)
            return
        now = self._now()
        trouble = LastingTrouble(key, event, text, mend, now, now, channel, target)
        self._open[key] = replace(trouble, logged=trouble.said)
        if not is_logged:
            _log(trouble, logging.ERROR, trouble.said, "begun")

    def end(self, key: str, event: str, text: str, *, is_logged: bool = False) -> None:
        """Record that this is over, and log that if it was wrong. `is_logged`: the caller logs it."""
        if (known := self._open.pop(key, None)) is not None and not is_logged:
            _log(replace(known, event=event), logging.INFO, text, "over")

    def remind(self) -> None:
        """Log each trouble again whose last line is old, or gave another reason: what to do has changed, too."""
        now = self._now()
        for trouble in self:
            is_another = NUMBERED.sub("", trouble.said) != NUMBERED.sub("", trouble.logged)
            if now - trouble.logged_at >= (CHANGED if is_another else AGAIN):
                self._open[trouble.key] = replace(trouble, logged_at=now, logged=trouble.said)
                minutes = (now - trouble.since) // timedelta(minutes=1)
                lasts = f"for {minutes} minute{'' if minutes == 1 else 's'} now: " if minutes else ""
                _log(trouble, logging.ERROR, lasts + trouble.said, "lasting")


def _log(trouble: LastingTrouble, level: int, text: str, outcome: str) -> None:
    fields = {"event": trouble.event, "channel": trouble.channel, "target": trouble.target, "outcome": outcome}
    log.log(level, "%s", text, extra=fields)
