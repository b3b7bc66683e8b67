"""Bugs to plant where runs have to do with others: children, runs that continue or are reset, schedules."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from approvals_bot.durable.core.events import Log, NewEvent
from approvals_bot.durable.engine import continuing
from approvals_bot.durable.engine import reset as resetting
from approvals_bot.durable.engine.schedules import Schedules
from approvals_bot.durable.store import sqlite_reading, sqlite_relatives
from approvals_bot.durable.store import sqlite_writing as log
from approvals_bot.durable.store.encoding import own_json
from approvals_bot.durable.store.protocol import (
    Append,
    Appended,
    Created,
    Fenced,
    NewRun,
    Stale,
    Successor,
    TokenTaken,
)
from approvals_bot.durable.store.sqlite import SqliteStore, written

Bug = Callable[[pytest.MonkeyPatch], None]


# ── children ──


def reports_a_child_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """`child_ended` is written in a transaction of its own, after the one that ends the child."""
    real_relatives, real_append, later = sqlite_relatives.end_relatives, SqliteStore.append, list[tuple[Any, ...]]()

    async def append(self: SqliteStore, batch: Append) -> Appended | Stale | Fenced:
        result = await real_append(self, batch)
        while later:
            given = later.pop()
            await self._writer.run(lambda db: real_relatives(db, *given))  # noqa: B023  # it is awaited here
        return result

    patch.setattr(log, "end_relatives", lambda db, *given: later.append(given))
    patch.setattr(SqliteStore, "append", append)


def forgets_which_children_go_on(patch: pytest.MonkeyPatch) -> None:
    """The end of a parent cancels those, too, that are to go on without it."""
    patch.setattr(sqlite_relatives, "_ASK", sqlite_relatives._ASK.replace("AND on_parent_close = 'cancel'", ""))


def keeps_the_parent_that_it_had(patch: pytest.MonkeyPatch) -> None:
    """A child that continues or is reset has the parent that it had when it was read."""
    real = log._succeed

    def succeed(db: sqlite3.Connection, old: str, successor: Successor, now: int, epoch: int) -> None:
        real(db, old, successor, now, epoch)
        if (parent := successor.row.parent) is not None:
            given = (parent.run_id, parent.number, successor.row.id)
            db.execute("UPDATE runs SET parent = ?, parent_number = ? WHERE id = ?", given)

    patch.setattr(log, "_succeed", succeed)


def leaves_children_behind(patch: pytest.MonkeyPatch) -> None:
    """Open children don't move to the run in the place of their parent."""
    patch.setattr(log, "adopt_children", lambda *_: None)


def forgets_who_has_ended_meanwhile(patch: pytest.MonkeyPatch) -> None:
    """A child that has ended isn't reported to the parent that a reset gives it."""

    def adopt(db: sqlite3.Connection, run_id: str, children: Any, at: int) -> None:
        for child in children:
            db.execute(sqlite_relatives._ADOPT, (run_id, child.number, sqlite_reading.last(db, child.run_id)))

    patch.setattr(log, "adopt_children", adopt)


# ── runs that continue, and tokens that are claimed ──


def loses_what_nobody_has_read(patch: pytest.MonkeyPatch) -> None:
    """Unread payloads don't move to the next run."""
    real = continuing._Moves.facts

    def facts(self: Any) -> list[NewEvent]:
        return [fact for fact in real(self) if fact.type != "hook_received"]

    patch.setattr(continuing._Moves, "facts", facts)


def moves_what_was_read(patch: pytest.MonkeyPatch) -> None:
    """The next run gets the last payload again that was taken in this one."""
    real = continuing._Moves.facts

    def facts(self: Any) -> list[NewEvent]:
        found = real(self)
        if not found and (numbers := {hook.number: number for number, hook in self._hooks.items()}):
            came = [e for e in self._log if e.type == "hook_received" and e.data["id"] in numbers]
            found += [NewEvent(e.type, e.data | {"id": numbers[e.data["id"]]}) for e in came[-1:]]
        return found

    patch.setattr(continuing._Moves, "facts", facts)


def forgets_what_was_taken(patch: pytest.MonkeyPatch) -> None:
    """The next run doesn't know the payloads that its hooks have taken, and takes a repeat of one."""
    patch.setattr(sqlite_relatives, "_NOTE_TAKEN", "DELETE FROM taken WHERE hook_id = ? AND false")


def leaves_the_key_behind(patch: pytest.MonkeyPatch) -> None:
    """The idempotency key stays with the run that has ended."""
    real = log._succeed

    def succeed(db: sqlite3.Connection, old: str, successor: Successor, now: int, epoch: int) -> None:
        real(db, old, successor, now, epoch)
        (key,) = db.execute("SELECT idempotency_key FROM runs WHERE id = ?", (successor.row.id,)).fetchone()
        db.execute("UPDATE runs SET idempotency_key = NULL WHERE id = ?", (successor.row.id,))
        db.execute("UPDATE runs SET idempotency_key = ? WHERE id = ?", (key, old))

    patch.setattr(log, "_succeed", succeed)


def takes_a_token_away(patch: pytest.MonkeyPatch) -> None:
    """A start that claims a token takes it from the hook that has it."""

    def create_with_hooks(db: sqlite3.Connection, run: NewRun, *rest: Any) -> Created | TokenTaken:
        for hook in run.data["hooks"]:
            db.execute("UPDATE hooks SET is_live = 0 WHERE token = ?", (hook["token"],))
        return log.create_with_hooks(db, run, *rest)

    patch.setattr(SqliteStore, "create_with_hooks", written(create_with_hooks))


def starts_another_for_a_repeat(patch: pytest.MonkeyPatch) -> None:
    """`start_or_resume` starts a run with a payload that an ended one has taken."""
    patch.setattr(sqlite_reading, "hook_that_took", lambda *_: None)
    patch.setattr(log, "hook_that_took", lambda *_: None)


def forgets_to_index_attributes(patch: pytest.MonkeyPatch) -> None:
    """What a body sets is in its run's row, and the run isn't found by it."""

    def set_own(db: sqlite3.Connection, run_id: str, own: Any) -> None:
        db.execute("UPDATE runs SET attributes = ? WHERE id = ?", (own_json(own), run_id))

    patch.setattr(log, "_set_own", set_own)


def keeps_attributes_that_are_gone(patch: pytest.MonkeyPatch) -> None:
    """The run is still found by what its body has removed or changed."""
    real = log._index

    def index(db: sqlite3.Connection, run_id: str, wanted: Any, known_by: str = log._OF_THE_PROJECTION) -> None:
        known = [] if known_by == log._OF_THE_PROJECTION else db.execute(known_by, (run_id,)).fetchall()
        real(db, run_id, sorted({*wanted, *known}), known_by)

    patch.setattr(log, "_index", index)


# ── resets ──


def loses_what_came_later(patch: pytest.MonkeyPatch) -> None:
    """A reset forgets the payloads that came after the place that it goes back to."""
    patch.setattr(resetting, "_kept", lambda copied, later: [])


def copies_a_payload_twice(patch: pytest.MonkeyPatch) -> None:
    """What came right after the place that a reset goes back to is there twice in the new run."""
    real = resetting._kept

    def kept(copied: Log, later: Log) -> Log:
        found = real(copied, later)
        came = [event for event in found if event.type == "hook_received"][:1]
        again = [event._replace(data=event.data | {"resume_id": f"{event.data['resume_id']} again"}) for event in came]
        return [*found, *again]

    patch.setattr(resetting, "_kept", kept)


def forgets_that_it_was_reset(patch: pytest.MonkeyPatch) -> None:
    """The old run goes on beside the new one."""
    patch.setattr(log, "_RESET", "UPDATE runs SET seq = ?, ended_at = nullif(?, ended_at) WHERE id = ? AND 0")


# ── schedules ──


def forgets_which_run_is_open(patch: pytest.MonkeyPatch) -> None:
    """A time starts its run beside that of the time before."""

    async def find(self: Schedules, watched: object) -> None: ...

    patch.setattr(Schedules, "_find_open_run", find)


def forgets_what_it_owes(patch: pytest.MonkeyPatch) -> None:
    """A start that was decided on is left out if its process dies before it has made it, or the store fails."""
    real = Schedules._make_start

    async def make_start(self: Schedules, watched: Any, at: datetime) -> None:
        if self._clock.now() - at > timedelta(seconds=1):
            await self._write(watched, replace(watched.state, starting=None))
        else:
            await real(self, watched, at)

    patch.setattr(Schedules, "_make_start", make_start)


OF_FAMILIES: tuple[Bug, ...] = (
    reports_a_child_after_the_commit,
    forgets_which_children_go_on,
    keeps_the_parent_that_it_had,
    leaves_children_behind,
    forgets_who_has_ended_meanwhile,
    forgets_that_it_was_reset,
)
OF_MAILBOXES: tuple[Bug, ...] = (
    loses_what_nobody_has_read,
    moves_what_was_read,
    forgets_what_was_taken,
    leaves_the_key_behind,
    takes_a_token_away,
    starts_another_for_a_repeat,
    forgets_to_index_attributes,
    keeps_attributes_that_are_gone,
    loses_what_came_later,
    copies_a_payload_twice,
)
OF_SCHEDULES: tuple[Bug, ...] = (forgets_which_run_is_open, forgets_what_it_owes)
_IN_GROUPS = {"families": OF_FAMILIES, "mailboxes": OF_MAILBOXES, "schedules": OF_SCHEDULES}
BUGS: dict[str, Bug] = {bug.__name__: bug for bugs in _IN_GROUPS.values() for bug in bugs}
GROUPS = {bug.__name__: group for group, bugs in _IN_GROUPS.items() for bug in bugs}
"""In which scenes each is looked for."""
