"""What a run's writes do to its parent, its children and the run in its place in SQLite, in that write's transaction.

A child's row and first event come with its parent's `child_started`, and its end writes `child_ended` into the parent's
log. So neither can be lost, however the process dies. The parent's end asks its children to cancel in the same way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.events import ChildInLog, HookInLog
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.bearers import with_urls
from approvals_bot.durable.store.encoding import (
    cancel_request,
    own_json,
    own_pairs,
    parent_ended,
    parent_gave_up,
    storable,
)
from approvals_bot.durable.store.protocol import ChildWrites, NewRun
from approvals_bot.durable.store.sqlite_chain import insert_events
from approvals_bot.durable.store.sqlite_reading import last

_CREATE = """
    INSERT INTO runs (id, workflow, code, version, kind, status, created_at, attributes, seq, parent, parent_number,
      on_parent_close, wake_at)
    VALUES (?, ?, ?, ?, ?, 'pending', ?, without_urls(?), 1, ?, ?, ?, ?)"""
_FOUND_BY = """
    INSERT INTO attributes (run_id, name, value, workflow, status, created_at)
    VALUES (?, ?, without_urls(?), ?, 'pending', ?)"""


def write_children(db: sqlite3.Connection, run_id: str, children: ChildWrites, at: int, until: datetime | None) -> None:
    """Create the children that a batch asks for, and ask those to cancel that it gives up.

    These may tidy up until the given time, or not at all.
    """
    _create(db, children.started, at)
    for number in children.given_up:
        _ask(db, run_id, number, parent_gave_up(run_id), at, until)


def _create(db: sqlite3.Connection, children: Sequence[NewRun], at: int) -> None:
    rows = []
    for row, *_ in children:
        parent = row.parent
        assert parent is not None
        named = (row.id, row.workflow, row.code, row.version, row.kind)
        attributes = own_json(row.attributes)
        rows.append((*named, at, attributes, storable(parent.run_id), parent.number, parent.on_parent_close, at))
        pairs = [(row.id, name, value, row.workflow, at) for name, value, _ in own_pairs(row.attributes)]
        db.executemany(_FOUND_BY, pairs)
    db.executemany(_CREATE, rows)
    for each in children:
        insert_events(db, [(each.row.id, 1, "run_created", at, "run_created", to_json(each.data, "run_created"))])


_HAS_RELATIVES = """
    SELECT parent IS NOT NULL OR EXISTS (SELECT 1 FROM runs AS child WHERE child.parent = runs.id)
    FROM runs WHERE id = ?"""
_LAST_AT = "(SELECT at FROM events WHERE run_id = {run}.id AND events.seq = {run}.seq)"
# The ending's data is spliced in as text. It fits into an event, and its copy is a few characters longer.
_REPORT = f"""
    SELECT above.id, above.seq + 1, 'child_ended', max(:at, {_LAST_AT.format(run="above")}),
      child.parent_number || '.done',
      '{{"id":' || child.parent_number || ',"run_id":' || json_quote(child.id)
      || ',"status":' || json_quote(child.status) || ',' || substr({with_urls("ending.data")}, 2)
    FROM runs AS child JOIN runs AS above ON above.id = child.parent
      JOIN events AS ending ON ending.run_id = child.id AND ending.seq = child.seq
    WHERE child.id = :id AND child.status IN ('completed', 'failed', 'cancelled') AND above.ended_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM events WHERE run_id = above.id AND key = child.parent_number || '.done')"""  # noqa: S608  # our own text
_ASK = f"""
    SELECT id, seq + 1, 'cancel_requested', max(:at, {_LAST_AT.format(run="runs")}), 'cancel', :data FROM runs
    WHERE parent = :id AND (:number IS NULL OR parent_number = :number) AND ended_at IS NULL
      AND on_parent_close = 'cancel'
      AND NOT EXISTS (SELECT 1 FROM events WHERE run_id = runs.id AND key = 'cancel')"""  # noqa: S608  # our own text
_ADOPT = "UPDATE runs SET parent = ?, parent_number = ? WHERE id = ?"
_WAKE = "UPDATE runs SET seq = seq + 1, wake_at = min(coalesce(wake_at, :at), :at) WHERE id = :id"


def end_relatives(db: sqlite3.Connection, run_id: str, at: int, until: datetime | None) -> None:
    """Report to a run's parent how the run has ended, and ask its open children to cancel. Its row has ended already.

    The children may tidy up until the given time, or not at all. A run that was reset or has continued isn't reported:
    the run in its place is the parent's child then.
    """
    if db.execute(_HAS_RELATIVES, (run_id,)).fetchone()[0]:
        _write(db, db.execute(_REPORT, {"id": run_id, "at": at}).fetchall(), at)
        _ask(db, run_id, None, parent_ended(run_id), at, until)


def adopt_children(db: sqlite3.Connection, run_id: str, children: Iterable[ChildInLog], at: int) -> None:
    """Make a run that takes the place of another the parent of that one's children, by what its log calls them.

    A child may have been reset or have continued; then it is the run in its place. One that ended after its parent
    couldn't be reported then, and is now.
    """
    for child in children:
        current = last(db, child.run_id)
        db.execute(_ADOPT, (run_id, child.number, storable(current)))
        _write(db, db.execute(_REPORT, {"id": current, "at": at}).fetchall(), at)


# What a hook has taken in the run that it leaves, so the next run knows a repeat of it. An earlier run may have taken
# one as well. That is the first, by which a repeat is answered.
_NOTE_TAKEN = """
    INSERT OR IGNORE INTO taken (hook_id, resume_id, run_id, seq)
    SELECT id, substr(key, length(number || '.received.') + 1), events.run_id, seq
    FROM hooks JOIN events ON events.run_id = hooks.run_id
      AND key >= number || '.received.' AND key < number || '.received/'
    WHERE id = ?"""


def move_hooks(db: sqlite3.Connection, run_id: str, hooks: Iterable[HookInLog]) -> None:
    """Give hooks to the run that takes the place of the one that has them, perhaps not the one it is made from."""
    moved = [(run_id, hook.number, hook.is_open, storable(hook.id)) for hook in hooks]
    db.executemany(_NOTE_TAKEN, [each[-1:] for each in moved])  # by the run that they leave, so before they move
    db.executemany("UPDATE hooks SET run_id = ?, number = ?, is_live = ? WHERE id = ?", moved)


def _ask(db: sqlite3.Connection, run_id: str, number: int | None, reason: str, at: int, until: datetime | None) -> None:
    """Ask the open children of a run to cancel, or the one with this number. Those that go on without it are left."""
    given = {"id": run_id, "number": number, "at": at, "data": to_json(cancel_request(reason, at, until))}
    _write(db, db.execute(_ASK, given).fetchall(), at)


def _write(db: sqlite3.Connection, events: Sequence[tuple[Any, ...]], at: int) -> None:
    """Append an event to each of these logs, and wake its run."""
    for event in events:
        insert_events(db, [event])
    db.executemany(_WAKE, [{"id": event[0], "at": at} for event in events])
