"""Reading runs, hooks and the audit from SQLite, and what their rows mean."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.events import Event, Log, from_micros
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.encoding import cursor_after, link, read_cursor
from approvals_bot.durable.store.protocol import AuditEntry, AuditLine, Filter, HookRow, RunRow
from approvals_bot.durable.store.texts import as_given, storable

_SELECT_RUN = """
    SELECT id, workflow, code, version, status, created_at, ended_at, attributes, seq, view, stalled, wake_at, epoch,
      (SELECT data FROM events WHERE run_id = runs.id AND events.seq = runs.seq AND ended_at IS NOT NULL) AS ending
    FROM runs"""
_SELECT_HOOK = """
    SELECT id, run_id, number, token, is_webhook, has_schema, answer, metadata, created_at, generation, is_live
    FROM hooks"""
_LIVE = f"{_SELECT_HOOK} WHERE token = ? AND is_live = 1"
_SELECT_EVENTS = "SELECT seq, type, at, data FROM events WHERE run_id = ? AND seq > ? ORDER BY seq"


def run_and_log(db: sqlite3.Connection, run_id: str, after: int) -> tuple[RunRow, Log] | None:
    row = db.execute(f"{_SELECT_RUN} WHERE id = ?", (storable(run_id),)).fetchone()
    if row is None:
        return None
    return _run_row(row), [_event(*event) for event in db.execute(_SELECT_EVENTS, (run_id, after)).fetchall()]


def event_of(db: sqlite3.Connection, run_id: str, key: str) -> Event | None:
    row = db.execute(
        "SELECT seq, type, at, data FROM events WHERE run_id = ? AND key = ?", (run_id, storable(key))
    ).fetchone()
    return None if row is None else _event(*row)


def hook(db: sqlite3.Connection, token: str | None, hook_id: str | None) -> HookRow | None:
    sql, given = (
        (_LIVE, storable(token or "")) if hook_id is None else (f"{_SELECT_HOOK} WHERE id = ?", storable(hook_id))
    )
    row = db.execute(sql, (given,)).fetchone()
    return None if row is None else _hook_row(row)


def look(
    db: sqlite3.Connection, most: int, token: str | None, hook_id: str | None
) -> tuple[HookRow, RunRow, Log | None] | None:
    found = hook(db, token, hook_id)
    if found is None:
        return None
    row = _run_row(db.execute(f"{_SELECT_RUN} WHERE id = ?", (found.run_id,)).fetchone())
    if row.seq > most:
        return found, row, None
    return found, row, [_event(*event) for event in db.execute(_SELECT_EVENTS, (found.run_id, 0)).fetchall()]


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def runs(db: sqlite3.Connection, which: Filter) -> tuple[list[RunRow], str | None]:
    where, given = ["1 = 1"], dict[str, Any](limit=which.limit + 1)
    if which.workflow is not None:
        where.append("workflow = :workflow")
        given["workflow"] = which.workflow
    if which.status == "stalled":
        where.append("stalled IS NOT NULL")  # in the words of their index
    elif which.status is not None:
        where.append("status = :status")
        given["status"] = which.status
    if which.waiting_for is not None:
        where.append("ended_at IS NULL")
        where.append("EXISTS (SELECT 1 FROM json_each(view, '$.waiting_for') WHERE value = :waiting_for)")
        given["waiting_for"] = storable(which.waiting_for)
    for i, (name, value) in enumerate(which.attributes.items()):
        # As JSON has it: json_each can't give back every text. A quote inside of one would stand behind a backslash.
        where.append(f"(instr(attributes, '{{' || :pair{i}) > 0 OR instr(attributes, ',' || :pair{i}) > 0)")
        given[f"pair{i}"] = to_json({name: value})[1:-1]
    if which.cursor is not None:
        given["at"], given["after"] = read_cursor(which.cursor)
        where.append("(created_at, id) < (:at, :after)")
    sql = f"{_SELECT_RUN} WHERE {' AND '.join(where)} ORDER BY created_at DESC, id DESC LIMIT :limit"
    rows = [_run_row(row) for row in db.execute(sql, given).fetchall()]
    page = rows[: which.limit]
    more = len(rows) > which.limit
    return page, cursor_after(page[-1]) if more else None


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────


def add_to_audit(db: sqlite3.Connection, entry: AuditEntry, at: int) -> AuditLine:
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before = (row[0] + 1, row[1]) if row else (1, "")
    data, digest = link(before, seq, at, entry)
    db.execute(
        "INSERT INTO audit (seq, at, what, who, run_id, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, at, storable(entry.what), _storable(entry.who), _storable(entry.run_id), data, digest),
    )
    return AuditLine(seq, from_micros(at), entry.what, entry.who, entry.run_id, entry.data, digest)


def audit_lines(db: sqlite3.Connection) -> list[AuditLine]:
    rows = db.execute("SELECT seq, at, what, who, run_id, data, hash FROM audit ORDER BY seq").fetchall()
    return [
        AuditLine(s, from_micros(at), as_given(what), _as_given(who), _as_given(run), json.loads(d), h)
        for s, at, what, who, run, d, h in rows
    ]


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _event(seq: int, type: Any, at: int, data: str) -> Event:
    return Event(seq, type, from_micros(at), json.loads(data))


def _run_row(row: Any) -> RunRow:
    return RunRow(
        id=row[0], workflow=row[1], code=row[2], version=row[3], status=row[4], created_at=from_micros(row[5]),
        ended_at=_at(row[6]), attributes=json.loads(row[7]), seq=row[8],
        view=None if row[9] is None else json.loads(row[9]), stalled=_as_given(row[10]), wake_at=_at(row[11]),
        epoch=row[12], ending=None if row[13] is None else json.loads(row[13]),
    )  # fmt: skip


def _hook_row(row: Any) -> HookRow:
    return HookRow(
        id=row[0], run_id=row[1], number=row[2], token=as_given(row[3]), is_webhook=bool(row[4]),
        has_schema=bool(row[5]), answer=None if row[6] is None else json.loads(row[6]), metadata=json.loads(row[7]),
        created_at=from_micros(row[8]), generation=row[9], is_live=bool(row[10]),
    )  # fmt: skip


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _as_given(stored: str | None) -> str | None:
    return None if stored is None else as_given(stored)


def _at(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
