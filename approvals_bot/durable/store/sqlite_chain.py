"""The chains in SQLite: of the runs' logs, written with their events, and of the audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.audit import (
    AuditEntry,
    AuditFilter,
    AuditLine,
    OwedLine,
    Owes,
    audit_line,
    audit_row,
    owed_line,
)
from approvals_bot.durable.store.bearers import with_urls, without_urls
from approvals_bot.durable.store.chain import ChainedEvent, ChainKey, RunHead, chain_rows, new_salt
from approvals_bot.durable.store.encoding import as_given, readable_time, storable

# ── logs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_INSERT = "INSERT INTO events (run_id, seq, type, at, key, data) VALUES (?, ?, ?, ?, ?, ?)"
_LINK = "INSERT INTO chain (run_id, seq, salt, hash) VALUES (?, ?, ?, ?)"
_HEAD = "SELECT hash FROM chain WHERE run_id = ? AND seq = ?"


def insert_events(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows (run, seq, type, at, key, data) of one run that follow one another, with their links."""
    if rows:
        held = [(*row[:-1], without_urls(db, row[-1])) for row in rows]  # before it is hashed
        db.executemany(_INSERT, held)
        _link(db, held)


def insert_once(db: sqlite3.Connection, row: tuple[Any, ...]) -> bool:
    """Insert an event with its link, unless the log has one with its key. Returns whether it was inserted."""
    held = (*row[:-1], without_urls(db, row[-1]))
    if not db.execute(f"{_INSERT} ON CONFLICT (run_id, key) DO NOTHING", held).rowcount:
        return False
    _link(db, [held])
    return True


def _link(db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    run_id, seq = rows[0][:2]
    head = db.execute(_HEAD, (run_id, seq - 1)).fetchone() if seq > 1 else (run_id,)
    db.executemany(_LINK, chain_rows(run_id, "" if head is None else head[0], rows))


def chained(db: sqlite3.Connection, run_id: str) -> list[ChainedEvent]:
    rows = db.execute(
        """SELECT seq, type, at, key, data, coalesce(salt, ''), coalesce(hash, '')
           FROM events LEFT JOIN chain USING (run_id, seq) WHERE run_id = ? ORDER BY seq""",
        (storable(run_id),),
    )
    return [ChainedEvent(*row) for row in rows.fetchall()]


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────

_ADD = "INSERT INTO audit (seq, at, what, who, run_id, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"


def add_to_audit(db: sqlite3.Connection, entry: AuditEntry, when: datetime, key: ChainKey | None) -> AuditLine:
    """Add a line to the end of the chain. The transaction orders the processes that add one."""
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before = (row[0] + 1, row[1]) if row else (1, "")
    at = to_micros(when)
    data, line = audit_row(before, seq, at, entry, key, new_salt())
    named = [storable(text) for text in (entry.what, entry.who, entry.run_id)]
    db.execute(_ADD, (seq, at, *named, data, line.hash))
    return line


_OWE = "INSERT INTO owed_lines (id, run_id, seq, at, about) VALUES (?, ?, ?, ?, without_urls(?)) ON CONFLICT DO NOTHING"
_OWED = f"SELECT id, run_id, seq, at, {with_urls('about')} FROM owed_lines ORDER BY at LIMIT ?"  # noqa: S608  # our own text


def owe(db: sqlite3.Connection, owes: Owes | None, run_id: str, seq: int, at: int) -> None:
    """Note that the audit owes the line of an event, in the transaction that adds the event."""
    if owes is not None:
        db.execute(_OWE, (owes.id, storable(run_id), seq, at, to_json(owes.about, "the audit")))


def owed_lines(db: sqlite3.Connection, most: int) -> list[OwedLine]:
    rows = db.execute(_OWED, (most,)).fetchall()
    return [owed_line(id, as_given(run), seq, readable_time(at), about) for id, run, seq, at, about in rows]


def settle(
    db: sqlite3.Connection, owed: str, entries: Sequence[AuditEntry], when: datetime, key: ChainKey | None
) -> bool:
    if not db.execute("DELETE FROM owed_lines WHERE id = ?", (owed,)).rowcount:
        return False
    for entry in entries:
        add_to_audit(db, entry, when, key)
    return True


def cut_audit(
    db: sqlite3.Connection, seq: int, entry: AuditEntry, when: datetime, key: ChainKey | None
) -> AuditLine | None:
    if not db.execute("SELECT 1 FROM audit WHERE seq = ?", (seq,)).fetchone():
        return None
    line = add_to_audit(db, entry, when, key)
    db.execute("DELETE FROM audit WHERE seq <= ?", (seq,))
    return line


def audit_lines(db: sqlite3.Connection, which: AuditFilter) -> list[AuditLine]:
    where, given = which.conditions()
    order = "DESC" if which.newest_first else ""
    sql = f"SELECT seq, at, what, who, run_id, data, hash FROM audit {where} ORDER BY seq {order} LIMIT ?"  # noqa: S608  # our own text
    return [_line(row) for row in db.execute(sql, (*(_stored(each) for each in given), which.limit)).fetchall()]


def _stored(value: int | str) -> int | str:
    return storable(value) if isinstance(value, str) else value


def _line(row: Any) -> AuditLine:
    seq, at, what, who, run_id, data, digest = row
    return audit_line(seq, readable_time(at), (as_given(what), as_given(who), as_given(run_id)), data, digest)


# ── naming the heads of runs in the audit ─────────────────────────────────────────────────────────────────────────

_ENDED = """
    SELECT runs.id, runs.seq, coalesce(hash, ''), status FROM runs
      LEFT JOIN chain ON run_id = runs.id AND chain.seq = runs.seq
    WHERE ended_at IS NOT NULL AND sealed >= 0 ORDER BY ended_at LIMIT ?"""
_GROWN = """
    SELECT runs.id, runs.seq, coalesce(hash, '') FROM runs
      LEFT JOIN chain ON run_id = runs.id AND chain.seq = runs.seq
    WHERE ended_at IS NULL AND runs.seq > sealed AND runs.id > ? ORDER BY runs.id LIMIT ?"""


def seal_ended(db: sqlite3.Connection, at: datetime, key: ChainKey | None, most: int) -> int:
    """Add a line for each ended run that has none yet. Returns how many were added."""
    rows = db.execute(_ENDED, (most,)).fetchall()
    for run_id, seq, head, status in rows:
        add_to_audit(db, AuditEntry("run_ended", None, run_id, {"seq": seq, "head": head, "status": status}), at, key)
    db.executemany("UPDATE runs SET sealed = -1 WHERE id = ?", [row[:1] for row in rows])
    return len(rows)


def seal_open(db: sqlite3.Connection, at: datetime, key: ChainKey | None, most: int, after: str) -> list[RunHead]:
    """Add a line with the heads of open runs that have grown since the last one that names them. Returns those."""
    heads = [RunHead(*row) for row in db.execute(_GROWN, (after, most)).fetchall()]
    if heads:
        add_to_audit(db, AuditEntry("runs_sealed", data={"heads": [list(head) for head in heads]}), at, key)
        db.executemany("UPDATE runs SET sealed = ? WHERE id = ?", [(head.seq, head.run_id) for head in heads])
    return heads
