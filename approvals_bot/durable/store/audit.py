"""The audit in the store: its lines, in a chain, and how each run's chain is named in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.store.chain import ChainedEvent, ChainKey, RunHead, seal, sealed_line_hash


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What a line of the audit says.

    `who` is the person or app that is meant, `actor` who acted, and by which key, session or program.
    """

    what: str
    who: str | None = None
    run_id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    actor: dict[str, Any] | None = None


class NewLine(NamedTuple):
    """A line of the audit that is added in the transaction of the change it is about."""

    entry: AuditEntry
    at: datetime
    key: ChainKey | None = None


class Owes(NamedTuple):
    """A line that the audit is going to owe once an act is in a log: written with the act, in one transaction.

    `about` is what the line says and whatever else it takes to write it, as its author likes. `id` is random.
    """

    id: str
    about: dict[str, Any]


class OwedLine(NamedTuple):
    """A line that the audit owes, and the event of the act. Damaged, `about` is empty."""

    id: str
    run_id: str
    seq: int
    at: datetime
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line of the audit. `hash` covers it and, through the hash of the line before, all earlier lines.

    `salt` is what its content was sealed with (store/chain.py).
    """

    seq: int
    at: datetime
    entry: AuditEntry
    hash: str
    salt: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """The lines of the audit to read, and their order. `above` and `below` are numbers of lines, not included."""

    who: str | None = None
    what: str | None = None
    run_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    above: int | None = None
    below: int | None = None
    newest_first: bool = False
    limit: int = 1_000_000_000

    def conditions(self, mark: Callable[[int], str] = lambda number: "?") -> tuple[str, list[int | str]]:
        """Return the WHERE clause and its values. `mark` names the parameter with a number, from 1."""
        wanted: list[tuple[str, int | str | None]] = [
            ("who =", self.who),
            ("what =", self.what),
            ("run_id =", self.run_id),
            ("at >=", None if self.since is None else to_micros(self.since)),
            ("at <", None if self.until is None else to_micros(self.until)),
            ("seq >", self.above),
            ("seq <", self.below),
        ]
        given = [(test, value) for test, value in wanted if value is not None]
        tests = " AND ".join(f"{test} {mark(number)}" for number, (test, _) in enumerate(given, 1))
        return f"WHERE {tests}" if given else "", [value for _, value in given]


ALL_LINES = AuditFilter()


class AuditStore(Protocol):
    """The part of a store that keeps the audit."""

    async def audit(self, entry: AuditEntry, at: datetime, key: ChainKey | None = None) -> AuditLine:
        """Add a line to the audit and return it. With a key, its hash is an HMAC."""

    async def owed_lines(self, most: int) -> list[OwedLine]:
        """Return the lines that the audit owes, the oldest first."""

    async def settle(self, owed: str, entries: Sequence[AuditEntry], at: datetime, key: ChainKey | None) -> bool:
        """Add the lines of an act that owes one. Returns whether they were added: of several calls, by the first."""

    async def audit_lines(self, which: AuditFilter = ALL_LINES) -> list[AuditLine]:
        """Return the lines of the audit that match."""

    async def chained(self, run_id: str) -> list[ChainedEvent]:
        """Return the rows of a run's log as they are stored, with their links of the chain."""

    async def seal_ended(self, at: datetime, key: ChainKey | None, most: int) -> int:
        """Add a line `run_ended` to the audit for each ended run that has none, with the head of its chain.

        Takes `most` runs at a time, and returns how many it took.
        """

    async def seal_open(self, at: datetime, key: ChainKey | None, most: int, after: str = "") -> list[RunHead]:
        """Add a line `runs_sealed` with the heads of open runs that have grown since the last such line.

        Takes up to `most` runs whose id is greater than `after`, and returns their heads, in the order of their ids.
        """

    async def cut_audit(self, seq: int, entry: AuditEntry, at: datetime, key: ChainKey | None) -> AuditLine | None:
        """Delete the lines up to this one, and add the line that says so, in one transaction.

        Returns None, and writes nothing, if another process has cut there before.
        """


AUDIT_CUT = "audit_cut"
"""A line that says up to which line the audit was cut, and the hash of that: the next line's chain begins with it."""

BACKED_UP, RESTORED = "backed_up", "restored"
"""What the audit's line of a backup says."""


async def last_backup(store: AuditStore) -> datetime | None:
    """Return when everything was last in a backup. None if it never was."""
    line = await last_backup_line(store)
    return None if line is None else line.at


async def last_backup_line(store: AuditStore) -> AuditLine | None:
    """Return the line of the last backup, or of the restore since: what was restored is in a backup, too."""
    found = [
        line
        for what in (BACKED_UP, RESTORED)
        for line in await store.audit_lines(AuditFilter(what=what, newest_first=True, limit=1))
    ]
    return max(found, key=lambda line: line.seq, default=None)


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ACTOR, SALT = "$actor", "$salt"
"""Names among a row's data. No other data's name begins with a dollar."""


def audit_row(
    before: str, seq: int, at: int, entry: AuditEntry, key: ChainKey | None, salt: str
) -> tuple[str, AuditLine]:
    """Return the data of a new row, and its line.

    `before` is the hash of the line before, or empty for the first; `at` is in microseconds.
    """
    line = AuditLine(seq, from_micros(at), entry, line_hash(before, seq, at, entry, salt, key), salt)
    actor = {} if entry.actor is None else {ACTOR: entry.actor}
    return json.dumps(entry.data | actor | {SALT: salt}, sort_keys=True), line


def audit_line(seq: int, at: datetime, named: tuple[str, str | None, str | None], data: str, hash: str) -> AuditLine:
    """Return the line of a row. `named`: what, who and run, as they were given. Of damaged data, nothing is kept."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        given = {}
    actor, salt = given.pop(ACTOR, None), given.pop(SALT, "")
    return AuditLine(seq, at, AuditEntry(*named, given, actor), hash, salt if isinstance(salt, str) else "")


def owed_line(id: str, run_id: str, seq: int, at: datetime, about: str) -> OwedLine:
    """Return the owed line of a row."""
    try:
        given = json.loads(about)
    except (ValueError, RecursionError):
        given = None
    return OwedLine(id, run_id, seq, at, given if isinstance(given, dict) else {})


def line_content(entry: AuditEntry) -> str:
    """Return what a line's seal covers."""
    return json.dumps([entry.who, entry.actor, entry.data], sort_keys=True)


def line_hash(before: str, seq: int, at: int, entry: AuditEntry, salt: str, key: ChainKey | None) -> str:
    return sealed_line_hash(before, seq, at, entry.what, entry.run_id, seal(salt, line_content(entry)), key)
