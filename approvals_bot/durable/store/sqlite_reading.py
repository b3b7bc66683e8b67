"""Reading runs, hooks and the audit from SQLite, and decoding their rows."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.events import Event, Log, from_micros, to_micros
from approvals_bot.durable.store.bearers import Bearers, with_urls
from approvals_bot.durable.store.encoding import (
    as_given,
    cursor_after,
    most_unread,
    readable_attributes,
    readable_json,
    readable_time,
    state_row,
    storable,
)
from approvals_bot.durable.store.lists import SQLITE, STATUSES_PRESENT, count_of, needs_statuses, page_of
from approvals_bot.durable.store.protocol import (
    ENDED_HOOKS,
    Filter,
    HookRow,
    Parent,
    Received,
    RunRecord,
    StateRow,
)

_ENDING = f"SELECT {with_urls('data')} FROM events WHERE run_id = runs.id AND events.seq = runs.seq"  # noqa: S608  # our own text
_RUN_COLUMNS = f"""
    runs.id, workflow, code, version, kind, status, runs.created_at, ended_at,
      {with_urls("attributes")}, seq, {with_urls("view")}, {with_urls("parts")}, stalled, wake_at, epoch,
      ({_ENDING} AND ended_at IS NOT NULL) AS ending,
      next_run, received, unread, parent, parent_number, on_parent_close"""
_SELECT_RUN = f"SELECT {_RUN_COLUMNS} FROM runs WHERE runs.id = ?"  # noqa: S608  # our own text
_SELECT_HOOK = f"""
    SELECT id, run_id, number, token, is_webhook, has_schema, {with_urls("answer")}, {with_urls("metadata")},
      created_at, generation, is_live
    FROM hooks"""  # noqa: S608  # our own text
_LIVE = f"{_SELECT_HOOK} WHERE token = ? AND is_live = 1"
_TOOK = f"""{_SELECT_HOOK} WHERE id = (
      SELECT id FROM (
        SELECT id, run_id, number, created_at FROM hooks
        WHERE token = :token AND is_live = 0 ORDER BY created_at DESC LIMIT {ENDED_HOOKS}) AS ended
      WHERE EXISTS (
        SELECT 1 FROM events WHERE run_id = ended.run_id AND key = ended.number || '.received.' || :resume_id)
        OR EXISTS (SELECT 1 FROM taken WHERE hook_id = ended.id AND resume_id = :resume_id)
      LIMIT 1)"""  # noqa: S608  # our own text
_TAKEN = f"""
    SELECT events.run_id, seq, type, at, {with_urls("data")} FROM hooks JOIN events ON events.run_id = hooks.run_id
      AND key = number || '.received.' || :resume_id
    WHERE id = :hook_id"""  # noqa: S608  # our own text
_TAKEN_BEFORE = f"""
    SELECT run_id, seq, type, at, {with_urls("data")} FROM taken JOIN events USING (run_id, seq)
    WHERE hook_id = ? AND resume_id = ?"""  # noqa: S608  # our own text
_LAST_RUN = """
    WITH RECURSIVE place (id) AS (
      VALUES (?)
      UNION
      SELECT next_run FROM runs JOIN place USING (id) WHERE status IN ('reset', 'continued') AND next_run IS NOT NULL)
    SELECT id FROM place JOIN runs USING (id) WHERE status NOT IN ('reset', 'continued') OR next_run IS NULL"""
_EVENT = f"SELECT seq, type, at, {with_urls('data')} FROM events WHERE run_id = ?"  # noqa: S608  # our own text
_SELECT_EVENTS = f"{_EVENT} AND seq > ? ORDER BY seq"


def run_and_log(db: sqlite3.Connection, run_id: str, after: int = 0) -> tuple[RunRecord, Log] | None:
    rows = _fetch_leniently(db, _SELECT_RUN, (storable(run_id),))
    if not rows:
        return None
    return _run_row(rows[0]), [_event(*event) for event in db.execute(_SELECT_EVENTS, (run_id, after)).fetchall()]


def event_of(db: sqlite3.Connection, run_id: str, key: str) -> Event | None:
    row = db.execute(f"{_EVENT} AND key = ?", (run_id, storable(key))).fetchone()
    return None if row is None else _event(*row)


def hook(db: sqlite3.Connection, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
    sql, given = (
        (_LIVE, storable(token or "")) if hook_id is None else (f"{_SELECT_HOOK} WHERE id = ?", storable(hook_id))
    )
    row = db.execute(sql, (given,)).fetchone()
    return None if row is None else _hook_row(row)


def hook_that_took(db: sqlite3.Connection, token: str, resume_id: str) -> HookRow | None:
    """Return the hook that had this token, took this `resume_id` and is no longer live."""
    row = db.execute(_TOOK, {"token": storable(token), "resume_id": storable(resume_id)}).fetchone()
    return None if row is None else _hook_row(row)


def taken(db: sqlite3.Connection, hook_id: str, resume_id: str) -> Received | None:
    given = {"hook_id": storable(hook_id), "resume_id": storable(resume_id)}
    row = db.execute(_TAKEN, given).fetchone()
    return taken_before(db, hook_id, resume_id) if row is None else Received(_event(*row[1:]), run_id=row[0])


def taken_before(db: sqlite3.Connection, hook_id: str, resume_id: str) -> Received | None:
    """Return the payload that a hook took under this `resume_id` in a run whose place its run has taken."""
    row = db.execute(_TAKEN_BEFORE, (storable(hook_id), storable(resume_id))).fetchone()
    return None if row is None else Received(_event(*row[1:]), run_id=row[0])


def installation(db: sqlite3.Connection) -> str:
    """Return the ID of the installation that the database belongs to."""
    (found,) = db.execute("SELECT id FROM installation").fetchone() or ("",)
    if not found:
        raise sqlite3.DatabaseError("it doesn't say which installation it belongs to")
    return str(found)


def last(db: sqlite3.Connection, run_id: str) -> str:
    """Return the ID of the run that goes on in the place of this one."""
    row = db.execute(_LAST_RUN, (storable(run_id),)).fetchone()
    return run_id if row is None else str(row[0])


def look(
    db: sqlite3.Connection,
    most: int,
    *,
    token: str | None = None,
    hook_id: str | None = None,
    resume_id: str | None = None,
) -> tuple[HookRow, RunRecord, Log | None] | None:
    found = None
    if token is not None and resume_id is not None:
        found = hook_that_took(db, token, resume_id)
    if found is None:
        found = hook(db, token=token, hook_id=hook_id)
    if found is None:
        return None
    (row,) = [_run_row(each) for each in _fetch_leniently(db, _SELECT_RUN, (found.run_id,))]
    if row.seq > most:
        return found, row, None
    return found, row, [_event(*event) for event in db.execute(_SELECT_EVENTS, (found.run_id, 0)).fetchall()]


_NEXT_WAKE = """
    SELECT min(at) FROM (
      SELECT * FROM (
        SELECT wake_at AS at FROM runs WHERE wake_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= :at)
        ORDER BY wake_at LIMIT 1)
      UNION ALL
      SELECT min(lease_until) FROM runs WHERE owner IS NOT NULL AND owner <> :owner AND lease_until > :at
    )"""


def next_wake(db: sqlite3.Connection, owner: str, at: datetime) -> datetime | None:
    (wake,) = db.execute(_NEXT_WAKE, {"owner": owner, "at": to_micros(at)}).fetchone()
    return None if wake is None else from_micros(wake)


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def runs(db: sqlite3.Connection, bearers: Bearers, which: Filter) -> tuple[list[RunRecord], str | None]:
    sql, given = page_of(which, _statuses(db, which), _RUN_COLUMNS, SQLITE)
    rows = _fetch_leniently(db, sql, _numbered(bearers.compared(given)))
    page = [_run_row(row[:-1]) for row in rows[: which.limit]]
    if which.keys is not None:
        page = [record._replace(key=as_given(row[-1])) for record, row in zip(page, rows, strict=False)]
    return page, cursor_after(page[-1].id, rows[which.limit - 1][-1]) if len(rows) > which.limit else None


def count(db: sqlite3.Connection, bearers: Bearers, which: Filter, most: int) -> int:
    sql, given = count_of(which, _statuses(db, which), most, SQLITE)
    (number,) = db.execute(sql, _numbered(bearers.compared(given))).fetchone()
    return int(number)


def _statuses(db: sqlite3.Connection, which: Filter) -> list[str]:
    return [status for (status,) in db.execute(STATUSES_PRESENT)] if needs_statuses(which) else []


def _numbered(given: list[Any]) -> dict[str, Any]:
    """Return the arguments by the names that SQLite sees in `$1`, `$2`, …"""
    return {str(number): value for number, value in enumerate(given, 1)}


def _fetch_leniently(db: sqlite3.Connection, sql: str, given: Any) -> list[Any]:
    """Fetch rows. Text that isn't UTF-8, which SQLite accepts, comes with � in place of what can't be decoded."""
    try:
        return db.execute(sql, given).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
        db.text_factory = lambda raw: raw.decode(errors="replace")
        try:
            return db.execute(sql, given).fetchall()
        finally:
            db.text_factory = str


# ── schedules and counters ────────────────────────────────────────────────────────────────────────────────────────


def schedules(db: sqlite3.Connection) -> list[StateRow]:
    rows = _fetch_leniently(db, "SELECT name, version, state FROM schedules ORDER BY name", ())
    return [state_row(*row) for row in rows]


def counter(db: sqlite3.Connection, name: str) -> StateRow | None:
    given = (storable(name),)
    rows = _fetch_leniently(db, "SELECT name, version, state FROM counters WHERE name = ?", given)
    return state_row(*rows[0]) if rows else None


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _event(seq: int, type: Any, at: int, data: str) -> Event:
    return Event(seq, type, from_micros(at), json.loads(data))


def _run_row(row: Any) -> RunRecord:
    return RunRecord(
        id=row[0], workflow=row[1], code=row[2], version=row[3], kind=row[4], status=row[5],
        created_at=readable_time(row[6]), ended_at=readable_time(row[7]), attributes=readable_attributes(row[8]),
        seq=row[9], view=readable_json(row[10], object), parts=readable_json(row[11], list) or [],
        stalled=as_given(row[12]), wake_at=readable_time(row[13]), epoch=row[14], ending=readable_json(row[15], dict),
        next_run=row[16], payload_size=row[17], most_unread=0 if row[18] is None else most_unread(row[18]),
        parent=None if row[19] is None else Parent(*row[19:]),
    )  # fmt: skip


def _hook_row(row: Any) -> HookRow:
    return HookRow(
        id=row[0], run_id=row[1], number=row[2], token=as_given(row[3]), is_webhook=bool(row[4]),
        has_schema=bool(row[5]), answer=None if row[6] is None else json.loads(row[6]), metadata=json.loads(row[7]),
        created_at=from_micros(row[8]), generation=row[9], is_live=bool(row[10]),
    )  # fmt: skip
