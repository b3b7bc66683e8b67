"""The directory of people, kept up to date: a file, or what a target answers.

The last content that could be read counts until another can. A directory that could not be read since the start is
unknown, not empty: people who may be in it are asked to try again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from approvals_bot.people import IdentityRules, People, SourceUnavailable
from approvals_bot.people.roster import LARGEST_DIRECTORY, NOBODY, EntryFault, Roster, Rosters, read_roster
from approvals_bot.service.troubles import Troubles

TROUBLE = "directory"  # the key of its lasting trouble
LOOK_EVERY = 1.0  # seconds between two looks at whether the file has changed

log = logging.getLogger("approvals_bot.service")


class DirectorySource(Protocol):
    """Where people are listed. `name`: of the file or target."""

    @property
    def name(self) -> str: ...

    async def fetch(self, limit: int) -> bytes:
        """Return its content, cut off after `limit` bytes. Raises SourceUnavailable."""

    def state(self) -> object:
        """Return a value that differs once the source has changed, as far as that can be seen without reading it."""


@dataclass(frozen=True, slots=True)
class DirectoryFile:
    """A directory in a file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    async def fetch(self, limit: int) -> bytes:
        return await asyncio.to_thread(self.read, limit)

    def read(self, limit: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                return file.read(limit)
        except OSError as error:
            raise SourceUnavailable(self.name, error.strerror or "it can't be opened") from None

    def state(self) -> object:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """How a directory is, for operators. `trouble`: why it can't be read; "" if it could be at the last attempt.

    `people`, `groups`, `bad` and `faults` are of what was read last, at `read_at`; None: never.
    """

    source: str
    people: int = 0
    groups: int = 0
    bad: int = 0
    faults: tuple[EntryFault, ...] = ()
    read_at: datetime | None = None
    trouble: str = ""


class DirectoryReader:
    """Keeps `rosters.listed` up to date with `[directory] people`."""

    def __init__(self, rosters: Rosters, now: Callable[[], datetime], troubles: Troubles | None = None) -> None:
        """`troubles`: where it is noted that the directory can't be read."""
        self.rosters = rosters
        self._troubles = Troubles(now) if troubles is None else troubles
        self.state: DirectoryState | None = None
        self._now = now
        self._people: People | None = None
        self._source: DirectorySource | None = None
        self._rules = IdentityRules()
        self._refresh = 0.0  # seconds
        self._was: tuple[str, IdentityRules] | None = None  # what the roster was made of
        self._seen: object = None
        self._due = 0.0

    def use(self, people: People, source: DirectorySource | None, refresh: float) -> None:
        """Read this source from now on, at once and then every `refresh` seconds.

        What was read from another one counts until this one could be read.
        """
        self._people, self._source, self._rules, self._refresh = people, source, people.rules, refresh
        self._due = 0.0
        if source is None:
            self._troubles.end(TROUBLE, "directory_back", "no directory is read any more")
            self.state, self._was = None, None
            self.rosters.listed, self.rosters.fault = NOBODY, None
        elif self.state is None or self.state.source != source.name:
            self.state = DirectoryState(source.name)

    async def read(self) -> None:
        """Read the directory. What goes wrong is logged and shown; it never raises."""
        source, state = self._source, self.state
        if source is None or state is None:
            return
        self._seen, self._due = source.state(), time.monotonic() + self._refresh
        try:
            roster = await self._changed(source)
        except SourceUnavailable as error:
            text = f"the directory {error.fault}; the people whom it listed last still count"
            self._troubles.begin(TROUBLE, "directory_down", text, "Check [directory] people")
            if state.read_at is None and self.rosters.listed is NOBODY:
                self.rosters.fault = error.fault
            self.state, read = replace(state, trouble=error.reason), False
        else:
            self._troubles.end(TROUBLE, "directory_back", f"the directory {source.name} can be read again")
            if roster is not None:
                self.rosters.listed = roster
                self._log_faults(state, roster)
            found, self.rosters.fault, read = self.rosters.listed, None, True
            self.state = DirectoryState(
                source.name, len(found.rows), len(found.groups), found.bad, found.faults, self._now()
            )
        if self._people is not None:
            self._people.unreadable[source.name] = "" if read else self.state.trouble
            self._people.bad_entries[source.name] = self.state.bad

    async def _changed(self, source: DirectorySource) -> Roster | None:
        """Fetch the directory's roster; None if nothing has changed in it."""
        content = await source.fetch(LARGEST_DIRECTORY + 1)
        rules, digest = self._rules, hashlib.sha256(content).hexdigest()
        if self._was == (digest, rules):
            return None
        roster = await asyncio.to_thread(read_roster, content, rules, source.name)
        self._was = digest, rules
        return roster

    def _log_faults(self, before: DirectoryState, roster: Roster) -> None:
        if roster.bad and (before.bad, before.faults) != (roster.bad, roster.faults):
            first = roster.faults[0]  # its message may have an address in it
            log.warning(
                "%s has %d entries with faults, the first in line %d (%s); `approvals-bot doctor` says what is wrong",
                before.source,
                roster.bad,
                first.line,
                first.key,
            )

    async def keep_reading(self) -> None:
        """Read the directory when it changes and when it is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            source = self._source
            if source is None:
                continue
            if time.monotonic() >= self._due or await asyncio.to_thread(source.state) != self._seen:
                await self.read()
