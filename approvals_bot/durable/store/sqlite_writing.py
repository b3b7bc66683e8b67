"""Writing runs to SQLite. Each function is one call of the store, inside a transaction that other calls may share.

A call reads what it needs in one statement and updates the run's row in one. Next to the disk, statements are the main
cost of a commit here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.events import (
    ENDINGS,
    Event,
    Log,
    NewEvent,
    children_of,
    closed_by,
    from_micros,
    hooks_of,
    lost_a_token,
    to_micros,
)
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.bearers import with_urls
from approvals_bot.durable.store.encoding import Indexed, Pair, indexed, log_unreadable, own_json, own_pairs, storable
from approvals_bot.durable.store.protocol import (
    MAX_UNREAD,
    Append,
    Appended,
    Claim,
    Claimed,
    Created,
    Fenced,
    Full,
    Lease,
    NewRun,
    Received,
    Reset,
    RunRecord,
    Stale,
    Successor,
    TokenTaken,
    WasReset,
    why_full,
)
from approvals_bot.durable.store.sqlite_chain import insert_events, insert_once, owe
from approvals_bot.durable.store.sqlite_reading import event_of, hook_that_took, run_and_log, taken_before
from approvals_bot.durable.store.sqlite_relatives import adopt_children, end_relatives, move_hooks, write_children

FREE_LEASES = "UPDATE runs SET owner = NULL, lease_until = NULL WHERE owner IS NOT NULL"


# ── creating ──────────────────────────────────────────────────────────────────────────────────────────────────────

_TAKEN = "SELECT 1 FROM runs WHERE id = ? OR idempotency_key = ?"
_CREATED = f"""
    SELECT runs.id, {with_urls("events.data")} FROM runs JOIN events ON run_id = runs.id AND events.seq = 1
    WHERE runs.id = ? OR idempotency_key = ?"""  # noqa: S608  # our own text
_CREATE = """
    INSERT INTO runs (id, workflow, code, version, kind, created_at, idempotency_key, attributes, seq, status, ended_at,
      stalled, view, parts, indexed, parent, parent_number, on_parent_close, epoch, wake_at, owner, lease_until)
    VALUES (:id, :workflow, :code, :version, :kind, :created_at, :key, without_urls(:attributes), :seq, :status,
      :ended_at, :stalled, without_urls(:view), without_urls(:parts), :indexed, :parent, :parent_number,
      :on_parent_close, :epoch, :wake_at, :owner, :until)"""


def create(
    db: sqlite3.Connection, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
) -> Created:
    new, now = run.row, to_micros(at)
    key = None if run.idempotency_key is None else storable(run.idempotency_key)
    if db.execute(_TAKEN, (new.id, key)).fetchone() is not None:
        run_id, data = db.execute(_CREATED, (new.id, key)).fetchone()
        return Created(run_id, run_id == new.id, json.loads(data))  # the same id again: the first answer was lost
    first = run.events()
    fits = lease is not None and then is not None and (then.expected, then.epoch) == (len(first), 1)
    events = _add(db, new.id, 0, first, now)
    if fits:
        assert then is not None
        later = max(to_micros(then.at), now)
        events += _add(db, new.id, len(first), then.events, later)
        wanted = None if then.attributes is None else indexed(then.attributes)
        row = _after(then, wanted, events, later, lease)
        if then.children is not None:
            write_children(db, new.id, then.children, later, then.cancel_until)
    else:
        wanted = None
        row = _PENDING | {"id": new.id, "wake_at": max(now, to_micros(new.wake_at or at)), "seq": len(first)}
    own = new.attributes if then is None or then.own is None or not fits else then.own
    owe(db, run.owes, new.id, 1, now)
    key_and_more = {"key": key, "created_at": now, "attributes": own_json(own)}
    named = {"workflow": new.workflow, "code": new.code, "version": new.version, "kind": new.kind}
    db.execute(_CREATE, row | key_and_more | named)
    _add_pairs(db, new.id, [*own_pairs(own), *(wanted.pairs if wanted is not None else ())])
    if row["ended_at"] is not None:
        db.execute(_CLOSE_HOOKS, (new.id,))
        end_relatives(db, new.id, row["ended_at"], None if then is None else then.cancel_until)
    if lease is None or fits:
        return Created(new.id, True, run.data, then=events[len(first) :] if fits else None)
    return Created(new.id, True, run.data, claim(db, lease, 1, new.id)[0])


def create_with_hooks(
    db: sqlite3.Connection, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
) -> Created | TokenTaken:
    key = None if run.idempotency_key is None else storable(run.idempotency_key)
    if db.execute(_TAKEN, (run.row.id, key)).fetchone() is not None:
        return create(db, run, at, lease, then)
    hooks = run.data["hooks"]
    for hook in hooks:
        owner = db.execute(_OWNER, (storable(hook["token"]),)).fetchone()
        if owner is not None:
            return TokenTaken(hook["token"], owner[0])
    if run.payload is not None:
        took = hook_that_took(db, hooks[0]["token"], run.payload.data["resume_id"])
        if took is not None:
            return TokenTaken(took.token, took.run_id)
    for hook in hooks:
        _open_hook(db, run.row.id, NewEvent("hook_created", hook), to_micros(at))
    created = create(db, run, at, lease, then)
    if run.payload is not None:
        unread = to_json({str(run.payload.data["id"]): 1}, "unread")
        received = len(to_json(run.payload.data, run.payload.type))
        db.execute(_STARTED_WITH, (unread, received, run.row.id))
    return created


_STARTED_WITH = "UPDATE runs SET unread = ?, received = ? WHERE id = ?"
"""Counts the payload that a run is started with. Planned decisions may have read it; the next ones set that right."""


# ── decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────

_LAST_AT = "(SELECT at FROM events WHERE run_id = runs.id AND events.seq = runs.seq)"
_NOW = (
    f"seq, epoch, ended_at, {_LAST_AT}, status, indexed, indexed IS NOT NULL OR attributes <> '{{}}', unread, received"
)
_CURRENT = f"SELECT {_NOW} FROM runs WHERE id = ?"  # noqa: S608  # our own text
_SHOWN = """view = coalesce(without_urls(:view), view), parts = coalesce(without_urls(:parts), parts),
      indexed = coalesce(:indexed, indexed),
      unread = :unread, received = :received"""
_KEEP = f"""
    UPDATE runs SET seq = :seq, status = 'running', stalled = NULL, {_SHOWN}
    WHERE id = :id"""  # noqa: S608  # our own text
_TAKE = f"""
    UPDATE runs SET seq = :seq, status = 'running', stalled = NULL, {_SHOWN}, epoch = :epoch,
      owner = :owner, lease_until = :until, wake_at = min(coalesce(wake_at, :wake_at), :wake_at)
    WHERE id = :id"""  # noqa: S608  # our own text
_LET_GO = f"""
    UPDATE runs SET seq = :seq, status = :status, stalled = :stalled, {_SHOWN}, epoch = :epoch,
      wake_at = :wake_at, owner = NULL, lease_until = NULL
    WHERE id = :id"""  # noqa: S608  # our own text
_END = f"""
    UPDATE runs SET seq = :seq, status = :status, ended_at = :ended_at, stalled = NULL, {_SHOWN},
      epoch = coalesce(:epoch, epoch), wake_at = NULL, owner = NULL, lease_until = NULL
    WHERE id = :id"""  # noqa: S608  # our own text
_FOLLOW = "UPDATE attributes SET status = ? WHERE run_id = ?"
_CLOSE_HOOKS = "UPDATE hooks SET is_live = 0 WHERE run_id = ? AND is_live = 1"


class Current(NamedTuple):
    """A run's row before a call changes it."""

    seq: int
    epoch: int
    ended_at: int | None
    last: int  # time of the log's last event
    status: str
    indexed: str | None  # digest of the projection's attributes
    is_found: int  # whether it has rows in `attributes`
    unread: str | None
    received: int


def append(db: sqlite3.Connection, batch: Append) -> Appended | Stale | Fenced:
    # Compare the epoch before the length. An owner that has lost its lease must learn that and stop. If it only learned
    # that its log is stale, it would read the new owner's events and go on as if the run were still its own. Both
    # comparisons are in the transaction that appends, which has held the write lock since its BEGIN.
    row = db.execute(_CURRENT, (batch.run_id,)).fetchone()
    if row is None or row[1] != batch.epoch or row[2] is not None:
        return Fenced()
    if row[0] != batch.expected:
        return Stale()
    return Appended(_decide(db, batch, Current(*row)))


def _decide(db: sqlite3.Connection, batch: Append, was: Current, lease: Lease | None = None) -> list[Event]:
    """Append a batch and update the run's row. With a lease, this claims the run."""
    at = max(to_micros(batch.at), was.last)
    events = _add(db, batch.run_id, batch.expected, batch.events, at)
    wanted = None if batch.attributes is None else indexed(batch.attributes)
    row = _after(batch, wanted, events, at, lease)
    row |= {"received": was.received, "unread": was.unread if batch.unread is None else row["unread"]}
    if batch.children is not None:
        write_children(db, batch.run_id, batch.children, at, batch.cancel_until)
    if row["ended_at"] is not None:
        db.execute(_END, row)
        if batch.successor is not None:
            _succeed(db, batch.run_id, batch.successor, at, batch.epoch)
        db.execute(_CLOSE_HOOKS, (batch.run_id,))
        end_relatives(db, batch.run_id, at, batch.cancel_until)
    elif batch.release:
        db.execute(_LET_GO, row)
    else:
        db.execute(_KEEP if lease is None else _TAKE, row)
    if was.is_found and row["status"] != was.status:
        db.execute(_FOLLOW, (row["status"], batch.run_id))
    if wanted is not None and wanted.digest != was.indexed:
        _index(db, batch.run_id, wanted.pairs)
    if batch.own is not None:
        _set_own(db, batch.run_id, batch.own)
    return events


_PENDING = {
    "seq": 1, "status": "pending", "ended_at": None, "stalled": None, "view": None, "parts": None, "indexed": None,
    "parent": None, "parent_number": None, "on_parent_close": None, "epoch": 0, "wake_at": None, "owner": None,
    "until": None, "unread": None,
}  # fmt: skip
"""The row of a run that has only been created."""

_UNCHANGED = {"view": None, "parts": None, "indexed": None, "epoch": None}


def _after(batch: Append, wanted: Indexed | None, events: list[Event], at: int, lease: Lease | None) -> dict[str, Any]:
    """Return the run's row as it is once these events have been added."""
    row: dict[str, Any] = {
        **_PENDING,
        "id": batch.run_id,
        "seq": events[-1].seq if events else batch.expected,
        "status": "running",
        "view": None if batch.view is None else to_json(batch.view, "view"),
        "parts": None if batch.parts is None else to_json(batch.parts, "parts"),
        "indexed": None if wanted is None else wanted.digest,
        "epoch": batch.epoch,
        "unread": to_json(batch.unread, "unread") if batch.unread else None,
    }
    ending = _ending(events)
    if ending is not None:
        row |= {"status": ending, "ended_at": at}
    elif batch.release:
        if lost_a_token(events):
            row["wake_at"] = at  # only the next replay shows the workflow that it didn't get the token
        elif batch.wake_at is not None:
            row["wake_at"] = to_micros(batch.wake_at)
        if batch.stalled is not None:
            row |= {"status": "stalled", "stalled": storable(batch.stalled)}
    elif lease is not None:
        row |= {"owner": lease.owner, "until": to_micros(lease.until), "wake_at": to_micros(lease.at)}
    return row


_PLACE = "iif(attributes.created_at = runs.created_at, 0, attributes.created_at)"
_OF_THE_PROJECTION, _OWN = (
    f"SELECT name, {with_urls('value')}, {_PLACE} FROM attributes CROSS JOIN runs ON runs.id = run_id "  # noqa: S608  # our own text
    f"WHERE run_id = ? AND substr(name, 1, 1) {is_of} '$'"
    for is_of in ("=", "<>")
)


def _index(db: sqlite3.Connection, run_id: str, wanted: Sequence[Pair], known_by: str = _OF_THE_PROJECTION) -> None:
    """Update the rows of `attributes`, of the projection or the run's own. Only the differences are written."""
    known = db.execute(known_by, (run_id,)).fetchall()
    gone = [(run_id, name, value) for name, value, _ in set(known).difference(wanted)]
    db.executemany("DELETE FROM attributes WHERE run_id = ? AND name = ? AND value = without_urls(?)", gone)
    _add_pairs(db, run_id, sorted(set(wanted).difference(known)))


_SET_OWN = "UPDATE runs SET attributes = without_urls(:own) WHERE id = :id AND attributes <> without_urls(:own)"


def _set_own(db: sqlite3.Connection, run_id: str, own: Mapping[str, Attribute]) -> None:
    """Update the run's own attributes, in its row and in `attributes`, if they have changed."""
    if db.execute(_SET_OWN, {"id": run_id, "own": own_json(own)}).rowcount:
        _index(db, run_id, own_pairs(own), _OWN)


def _add_pairs(db: sqlite3.Connection, run_id: str, pairs: Sequence[Pair]) -> None:
    """Add what a run is found by, with the status that its row has now."""
    if pairs:
        db.executemany(
            """INSERT INTO attributes (run_id, name, value, workflow, status, created_at)
               SELECT id, ?, without_urls(?), workflow, status, coalesce(nullif(?, 0), created_at) FROM runs
               WHERE id = ?""",
            [(*pair, run_id) for pair in pairs],
        )


def _ending(events: list[Event]) -> str | None:
    for event in events:
        if event.type in ENDINGS:
            return event.type.removeprefix("run_")
    return None


# ── facts ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# A payload doesn't make a run begin that was started for a later time.
_BEGINS_LATER = "status = 'pending' AND wake_at > :at"
_KEPT = f"""
    UPDATE runs SET seq = :seq, unread = :unread, received = :received,
      wake_at = CASE WHEN {_BEGINS_LATER} THEN wake_at ELSE min(coalesce(wake_at, :at), :at) END
    WHERE id = :id"""  # noqa: S608  # our own text
_WAKE = "UPDATE runs SET seq = :seq, wake_at = min(coalesce(wake_at, :at), :at) WHERE id = :id"
_CURRENT_HOOK = f"""
    SELECT run_id, number, is_live, EXISTS (SELECT 1 FROM taken WHERE hook_id = hooks.id),
      (lease_until IS NULL OR lease_until <= :at) AND NOT ({_BEGINS_LATER}), {_NOW}
    FROM hooks JOIN runs ON runs.id = run_id WHERE hooks.id = :id"""  # noqa: S608  # our own text


def record(
    db: sqlite3.Connection, run_id: str, facts: list[NewEvent], at: datetime, owes: Owes | None = None
) -> list[Event]:
    row = db.execute(_CURRENT, (storable(run_id),)).fetchone()
    if row is None:
        return []
    was = Current(*row)
    known: list[Event] = []
    new: list[NewEvent] = []
    for fact in {fact.key: fact for fact in facts}.values():
        event = event_of(db, run_id, fact.key)
        if event is None:
            new.append(fact)
        else:
            known.append(event)
    if was.ended_at is not None or (known and not new):
        return known
    now = to_micros(at)
    at_least = max(now, was.last)
    added = _add(db, run_id, was.seq, new, at_least)
    owe(db, owes, run_id, was.seq + len(added), at_least)
    changed = {"id": run_id, "seq": was.seq + len(added), "unread": was.unread, "received": was.received}
    ending = _ending(added)
    if ending is not None:
        db.execute(_END, _UNCHANGED | changed | {"status": ending, "ended_at": at_least})
        db.execute(_CLOSE_HOOKS, (run_id,))
        end_relatives(db, run_id, at_least, None)
        if was.is_found:
            db.execute(_FOLLOW, (ending, run_id))
    else:
        db.execute(_WAKE, changed | {"at": now})
    return known + added


def receive(
    db: sqlite3.Connection,
    hook_id: str,
    resume_id: str,
    payload: Any,
    at: datetime,
    lease: Lease | None = None,
    then: Append | None = None,
    also: dict[str, Any] | None = None,
    owes: Owes | None = None,
    most: int = MAX_UNREAD,
) -> Received | Full | None:
    now = to_micros(at)
    row = db.execute(_CURRENT_HOOK, {"id": hook_id, "at": now}).fetchone()
    if row is None:
        return None
    run_id, number, is_live, has_taken, is_free, *rest = row
    was = Current(*rest)
    fact = NewEvent("hook_received", {"id": number, "resume_id": resume_id, "payload": payload, **(also or {})})
    earlier = _find_earlier(db, hook_id, resume_id, run_id, fact.key) if has_taken or not is_live else None
    if earlier is not None or not is_live:
        return earlier
    at_least = max(now, was.last)
    event = Event(was.seq + 1, fact.type, from_micros(at_least), fact.data)
    values = _row(run_id, event, at_least)
    unread = {} if was.unread is None else json.loads(was.unread)
    received = was.received + len(values[-1])
    if (full := why_full(unread.get(str(number), 0), received, was.seq, most)) is not None:
        first = event_of(db, run_id, fact.key)
        return full if first is None else Received(first, run_id=run_id)
    # Write the payload before checking who works on the run: it is kept in any case. The planned batch is written only
    # if it was made for exactly this log and for the epoch that a claim would give now. That claim is then part of this
    # transaction: either the run is released in it, or this process goes on with it.
    if insert_once(db, values):
        owe(db, owes, run_id, event.seq, at_least)
        if (
            lease is not None
            and is_free
            and then is not None
            and (then.expected, then.epoch) == (was.seq + 1, was.epoch + 1)
        ):
            followed = _decide(db, then, was._replace(last=at_least, received=received), lease)
            return Received(event, then=followed, size=received, kept=(then.unread or {}).get(number, 0))
        unread[str(number)] = unread.get(str(number), 0) + 1
        counted = {"unread": to_json(unread, "unread"), "received": received}
        db.execute(_KEPT, {"id": run_id, "seq": was.seq + 1, "at": now, **counted})
    else:
        found = event_of(db, run_id, fact.key)
        assert found is not None  # it caused the conflict
        event, received, unread = found, 0, {}
    claimed = claim(db, lease, 1, run_id) if lease is not None and is_free else []
    kept = unread.get(str(number), 0)
    return Received(event, claimed[0] if claimed else None, run_id=run_id, size=received, kept=kept)


def _find_earlier(db: sqlite3.Connection, hook_id: str, resume_id: str, run_id: str, key: str) -> Received | None:
    """Return the payload that came first with this `resume_id`, perhaps in a run whose place this one has taken."""
    first = event_of(db, run_id, key)  # also after the run's end
    return taken_before(db, hook_id, resume_id) if first is None else Received(first, run_id=run_id)


# ── runs in the place of others ───────────────────────────────────────────────────────────────────────────────────

_OLD = f"SELECT seq, epoch, ended_at, {_LAST_AT}, next_run FROM runs WHERE id = ?"  # noqa: S608  # our own text
_RESET = """
    UPDATE runs SET seq = ?, status = 'reset', ended_at = ?, stalled = NULL, indexed = NULL, wake_at = NULL,
      owner = NULL, lease_until = NULL
    WHERE id = ?"""


_PARENT = ("parent", "parent_number", "on_parent_close")
_PARENT_OF = f"SELECT {', '.join(_PARENT)} FROM runs WHERE id = ?"  # noqa: S608  # our own text


def reset(db: sqlite3.Connection, reset: Reset, at: datetime) -> WasReset | Stale | TokenTaken:
    new, old, now = reset.successor, reset.old, to_micros(at)
    if db.execute("SELECT 1 FROM runs WHERE id = ?", (new.row.id,)).fetchone() is not None:
        return WasReset([])  # the first answer was lost
    row = db.execute(_OLD, (old,)).fetchone()
    if row is None or (row[0], row[4]) != (reset.expected, reset.next_run):
        return Stale()
    seq, epoch, ended_at, last, _ = row
    for hook in hooks_of(new.log):
        taken = hook.is_open and db.execute(_OWNER, (storable(hook.token),)).fetchone()
        if taken and taken[0] != old:
            return TokenTaken(hook.token, taken[0])
    ended: list[Event] = []
    if ended_at is None:
        at_least = max(now, last)
        ended = _add(db, old, seq, [reset.end()], at_least)
        db.execute(_RESET, (seq + 1, at_least, old))
        # Lists find the new run by these. The given ones stay, as those of any ended run.
        db.execute("DELETE FROM attributes WHERE run_id = ? AND substr(name, 1, 1) = '$'", (old,))
        db.execute(_FOLLOW, ("reset", old))
    _succeed(db, old, new, now, epoch)
    owe(db, reset.owes, new.row.id, 1, now)
    db.execute(_CLOSE_HOOKS, (old,))
    end_relatives(db, old, now, reset.cancel_until)
    return WasReset(ended)


def _succeed(db: sqlite3.Connection, old: str, successor: Successor, now: int, epoch: int) -> None:
    """Create the run that takes the place of an ended one, and give it what that has: hooks, relatives and key.

    `epoch` is the old run's. The new one's is higher, so whatever was planned for the old run doesn't fit it. Its
    parent is the old run's as it is now: another run may have taken that one's place since the old run was read.
    """
    new, holder = successor.row, successor.holder
    child_of = dict(zip(_PARENT, db.execute(_PARENT_OF, (old,)).fetchone(), strict=True))
    key = db.execute("SELECT idempotency_key FROM runs WHERE id = ?", (holder,)).fetchone()[0]
    db.execute("UPDATE runs SET idempotency_key = NULL WHERE id = ?", (holder,))
    db.execute("UPDATE runs SET next_run = ? WHERE id = ?", (new.id, old))
    shown = {
        "view": None if new.view is None else to_json(new.view, "view"),
        "parts": to_json(new.parts, "parts") if new.parts else None,
        "attributes": own_json(new.attributes),
    }
    named = {"id": new.id, "workflow": new.workflow, "code": new.code, "version": new.version, "kind": new.kind}
    placed = {"created_at": now, "key": key, "seq": len(successor.log), "wake_at": now, "epoch": epoch + 1}
    db.execute(_CREATE, _PENDING | shown | named | placed | child_of)
    _add_pairs(db, new.id, own_pairs(new.attributes))
    rows = [_row(new.id, event, to_micros(event.at)) for event in successor.log]
    insert_events(db, rows)
    received = sum(len(each[-1]) for each in rows if each[2] == "hook_received")
    unread = to_json(successor.unread, "unread") if successor.unread else None
    db.execute("UPDATE runs SET received = ?, unread = ? WHERE id = ?", (received, unread, new.id))
    move_hooks(db, new.id, hooks_of(successor.log))
    adopt_children(db, new.id, children_of(successor.log), now)


# ── events and their indexes ──────────────────────────────────────────────────────────────────────────────────────


def _add(db: sqlite3.Connection, run_id: str, seq: int, events: list[NewEvent], at: int) -> list[Event]:
    """Append events after `seq`, and index the hooks among them."""
    when = from_micros(at)
    added: list[Event] = []
    for number, event in enumerate(events, seq + 1):
        recorded = event
        if event.type == "hook_created":
            recorded = _open_hook(db, run_id, event, at)
        elif closed := closed_by(event):
            numbers = [(run_id, number) for number in closed]
            db.executemany("UPDATE hooks SET is_live = 0 WHERE run_id = ? AND number = ?", numbers)
        added.append(Event(number, recorded.type, when, recorded.data))
    insert_events(db, [_row(run_id, event, at) for event in added])
    return added


def _row(run_id: str, event: Event, at: int) -> tuple[Any, ...]:
    key, data = event.key, to_json(event.data, event.type)
    return run_id, event.seq, event.type, at, storable(key), data


_OWNER = "SELECT run_id FROM hooks WHERE token = ? AND is_live = 1"


def _open_hook(db: sqlite3.Connection, run_id: str, event: NewEvent, at: int) -> NewEvent:
    """Open a hook. Returns its `hook_created`, or a `hook_conflict` if another run has its token."""
    data = event.data
    if "adopts" in data:
        return _adopt_hook(db, event, at)
    answer = data.get("answer")
    token = storable(data["token"])
    inserted = db.execute(
        """INSERT INTO hooks (id, run_id, number, token, is_webhook, has_schema, answer, metadata, created_at)
           VALUES (?, ?, ?, ?, ?, ?, without_urls(?), without_urls(?), ?)
           ON CONFLICT (token) WHERE is_live = 1 DO NOTHING""",
        (
            data["hook_id"], run_id, data["id"], token, answer is not None, bool(data.get("has_schema")),
            None if answer is None else to_json(answer), to_json(data.get("metadata"), "metadata"), at,
        ),
    )  # fmt: skip
    if inserted.rowcount:
        return event
    owner = db.execute(_OWNER, (storable(data["token"]),)).fetchone()[0]
    taken = {"id": data["id"], "hook_id": data["hook_id"], "token": data["token"], "owner": owner}
    return NewEvent("hook_conflict", taken)


def _adopt_hook(db: sqlite3.Connection, event: NewEvent, at: int) -> NewEvent:
    """Give a hook that the run had before its body what the body says of it."""
    data = event.data
    metadata, hook_id = to_json(data.get("metadata"), "metadata"), storable(data["hook_id"])
    db.execute(
        "UPDATE hooks SET has_schema = ?, metadata = without_urls(?), created_at = ? WHERE id = ?",
        (bool(data.get("has_schema")), metadata, at, hook_id),
    )
    return event


# ── claims ────────────────────────────────────────────────────────────────────────────────────────────────────────

# A claim raises the epoch in the statement that takes the lease, then reads the log in the same transaction. So no
# append with an older epoch can come between the log that the new owner has read and its decisions. Renewing, releasing
# and freeing leases leaves the epoch alone: only a claim fences the owner before it. A claim of a run that wasn't due
# makes it due: if its owner dies before it has written when, others find it by that once the lease has ended.
_FREE = "(lease_until IS NULL OR lease_until <= :at)"
_CLAIM_DUE = f"""
    UPDATE runs SET owner = :owner, lease_until = :until, epoch = epoch + 1
    WHERE id IN (SELECT id FROM runs WHERE wake_at <= :at AND {_FREE} ORDER BY wake_at LIMIT :limit)
    RETURNING id, epoch"""  # noqa: S608  # our own text
_ENDED_LEASES = "SELECT id FROM runs WHERE owner IS NOT NULL AND lease_until <= :at"
_CLAIM_ONE = f"""
    UPDATE runs SET owner = :owner, lease_until = :until, epoch = epoch + 1, wake_at = min(coalesce(wake_at, :at), :at)
    WHERE id = :id AND ended_at IS NULL AND {_FREE}
    RETURNING id, epoch"""  # noqa: S608


def claim(db: sqlite3.Connection, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
    at, until = to_micros(lease.at), to_micros(lease.until)
    given = {"owner": lease.owner, "at": at, "until": until, "limit": limit, "id": run_id}
    held = {row[0] for row in db.execute(_ENDED_LEASES, given)} if run_id is None else frozenset[str]()
    claims = [Claim(*row) for row in db.execute(_CLAIM_DUE if run_id is None else _CLAIM_ONE, given).fetchall()]
    found = ((claim, _readable(db, claim.run_id)) for claim in claims)
    return [Claimed(claim, *run, claim.run_id in held) for claim, run in found if run is not None]


def renew(db: sqlite3.Connection, claims: list[Claim], lease_until: datetime) -> None:
    until = to_micros(lease_until)
    db.executemany(
        "UPDATE runs SET lease_until = ? WHERE id = ? AND epoch = ? AND owner IS NOT NULL",
        [(until, claim.run_id, claim.epoch) for claim in claims],
    )


def _readable(db: sqlite3.Connection, run_id: str) -> tuple[RunRecord, Log] | None:
    """Read a claimed run. If its log is damaged, it stays claimed until its lease ends, so it can't hold up others."""
    try:
        return run_and_log(db, run_id, 0)
    except (ValueError, sqlite3.OperationalError) as error:
        if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
            raise
        log_unreadable(run_id, error)
        return None
