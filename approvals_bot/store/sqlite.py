"""The store in one SQLite file: WAL and `synchronous=FULL`, so that an acknowledged click survives a power cut.

(`synchronous=NORMAL`, the usual advice for WAL, loses acknowledged commits when the power goes: with 4,000 simulated
power cuts it lost some in 3,645, FULL in none.)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

import aiosqlite

from approvals_bot.core.events import ENDINGS, Event, Log, NewEvent, from_micros, to_micros
from approvals_bot.core.values import to_json
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.store import (
    Append,
    Appended,
    AuditEntry,
    AuditLine,
    Claim,
    Claimed,
    Created,
    Fenced,
    Filter,
    HookRow,
    Lease,
    NewRun,
    Received,
    RunRow,
    Stale,
)
from approvals_bot.store.group_commit import Reader, Writer, in_thread
from approvals_bot.store.sole_owner import SoleOwner

T = TypeVar("T")

BUSY_TIMEOUT = 5000  # milliseconds that we wait for another process's write, a CLI command for example


class SqliteStore:
    """Implements `Store`. One connection writes, one reads; each has a thread of its own."""

    def __init__(self, path: str, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._writer = Writer(writer)
        self._reader = Reader(reader)
        self._version = -1
        self._sole_owner = SoleOwner(Path(path + ".lock"))

    @classmethod
    async def open(cls, path: str) -> Self:
        """Open (and create or migrate) the file. StoreUnavailableError, with the reason, if that can't be done."""
        try:
            Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # once, at start
            writer = await _connection(path, _migrate)
            reader = await _connection(path)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailableError(f"The database file {path} can't be opened: {error}") from error
        return cls(path, writer, reader)

    async def begin_work(self) -> None:
        try:
            if self._sole_owner.acquire():
                # Nobody else works on this file, so whoever held a lease is dead: its runs need not wait for its end.
                await self._writer.run(lambda db: _run(db, _FREE_LEASES))
        finally:
            self._sole_owner.share()

    async def create(self, run: NewRun, at: datetime, lease: Lease | None = None) -> Created:
        return await self._writer.run(lambda db: _create(db, run, to_micros(at), lease))

    async def read(self, run_id: str, after: int = 0) -> tuple[RunRow, Log] | None:
        return await self._reader.run(lambda db: _read_log(db, run_id, after))

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        return await self._writer.run(lambda db: _append(db, batch))

    async def record(self, run_id: str, facts: list[NewEvent], at: datetime) -> list[Event]:
        return await self._writer.run(lambda db: _record(db, run_id, facts, to_micros(at)))

    async def receive(
        self, hook_id: str, resume_id: str, payload: Any, at: datetime, lease: Lease | None = None
    ) -> Received | None:
        return await self._writer.run(lambda db: _receive(db, hook_id, resume_id, payload, to_micros(at), lease))

    async def claim(self, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        return await self._writer.run(lambda db: _claim(db, lease, limit, run_id))

    async def renew(self, claims: list[Claim], lease_until: datetime) -> None:
        given = [(to_micros(lease_until), claim.run_id, claim.epoch) for claim in claims]
        await self._writer.run(lambda db: _run_many(db, _RENEW, given))

    async def hook(self, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
        where, given = ("token = ? AND is_live = 1", token) if hook_id is None else ("id = ?", hook_id)
        sql = f"{_SELECT_HOOK} WHERE {where}"  # both texts are ours
        row = await self._reader.run(lambda db: db.execute(sql, (given,)).fetchone())
        return None if row is None else _hook_row(row)

    async def runs(self, which: Filter) -> tuple[list[RunRow], str | None]:
        return await self._reader.run(lambda db: _runs(db, which))

    async def next_wake(self, owner: str, at: datetime) -> datetime | None:
        given = {"owner": owner, "at": to_micros(at)}
        row = await self._reader.run(lambda db: db.execute(_NEXT_WAKE, given).fetchone())
        return None if row[0] is None else from_micros(row[0])

    async def audit(self, entry: AuditEntry | None, at: datetime) -> list[AuditLine]:
        if entry is None:
            return await self._reader.run(_audit_lines)
        return await self._writer.run(lambda db: [_audit(db, entry, to_micros(at))])

    async def changed(self) -> bool:
        """SQLite counts other connections' commits in `data_version`. Asked on the connection that writes, so ours
        don't count."""
        version = await self._writer.look(lambda db: db.execute("PRAGMA data_version").fetchone()[0])
        was, self._version = self._version, version
        return bool(was != version)

    async def check(self) -> None:
        current = await self._writer.run(lambda db: db.execute("PRAGMA user_version").fetchone()[0])
        if current != len(_migrations()):
            raise StoreUnavailableError(f"The database has schema {current}, this program needs {len(_migrations())}.")

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()
        self._sole_owner.release()


# ── creating, reading ─────────────────────────────────────────────────────────────────────────────────────────────

_SELECT_RUN = """
    SELECT id, workflow, code, version, status, created_at, ended_at, attributes, seq, view, stalled, wake_at, epoch,
      (SELECT data FROM events WHERE run_id = runs.id AND events.seq = runs.seq AND ended_at IS NOT NULL) AS ending
    FROM runs"""
_SELECT_HOOK = """
    SELECT id, run_id, number, token, is_webhook, has_schema, answer, metadata, created_at, generation, is_live
    FROM hooks"""
_FREE_LEASES = "UPDATE runs SET owner = NULL, lease_until = NULL WHERE owner IS NOT NULL"


def _create(db: sqlite3.Connection, run: NewRun, at: int, lease: Lease | None) -> Created:
    given = (run.id, run.workflow, run.code, run.version, at, run.idempotency_key, to_json(run.attributes), at)
    inserted = db.execute(
        """INSERT INTO runs (id, workflow, code, version, status, created_at, idempotency_key, attributes, seq, wake_at)
           VALUES (?, ?, ?, ?, 'pending', ?, ?, ?, 1, ?)
           ON CONFLICT DO NOTHING RETURNING id""",
        given,
    ).fetchone()
    if inserted is not None:
        _insert(db, run.id, 1, at, NewEvent("run_created", run.data))
        if lease is not None:
            (claimed,) = _claim(db, lease, 1, run.id)
            return Created(claimed.row, True, run.data, claimed)
    run_id = db.execute(
        "SELECT id FROM runs WHERE id = ? OR idempotency_key = ?", (run.id, run.idempotency_key)
    ).fetchone()[0]
    data = db.execute("SELECT data FROM events WHERE run_id = ? AND seq = 1", (run_id,)).fetchone()[0]
    row = _run_row(db.execute(f"{_SELECT_RUN} WHERE id = ?", (run_id,)).fetchone())
    return Created(row, run_id == run.id, json.loads(data))


def _read_log(db: sqlite3.Connection, run_id: str, after: int) -> tuple[RunRow, Log] | None:
    db.execute("BEGIN")  # one look: the row and its events belong together
    try:
        return _run_and_log(db, run_id, after)
    finally:
        db.execute("COMMIT")


def _run_and_log(db: sqlite3.Connection, run_id: str, after: int) -> tuple[RunRow, Log] | None:
    row = db.execute(f"{_SELECT_RUN} WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        return None
    events = db.execute(
        "SELECT seq, type, at, data FROM events WHERE run_id = ? AND seq > ? ORDER BY seq", (run_id, after)
    ).fetchall()
    return _run_row(row), [_event(*event) for event in events]


# ── decisions and facts ───────────────────────────────────────────────────────────────────────────────────────────


def _append(db: sqlite3.Connection, batch: Append) -> Appended | Stale | Fenced:
    row = db.execute("SELECT seq, epoch, status FROM runs WHERE id = ?", (batch.run_id,)).fetchone()
    if row is None or row[1] != batch.epoch or row[2] in ("completed", "failed", "cancelled"):
        return Fenced()
    if row[0] != batch.expected:
        return Stale()
    events = _add(db, batch.run_id, batch.events, to_micros(batch.at))
    if batch.view is not None:
        db.execute("UPDATE runs SET view = ? WHERE id = ?", (to_json(batch.view, "view"), batch.run_id))
    ended = any(event.type in ENDINGS for event in events)
    if ended:
        return Appended(events)
    db.execute(
        """UPDATE runs SET stalled = :stalled, status = CASE WHEN :stalled IS NULL THEN 'running' ELSE 'stalled' END
           WHERE id = :id AND (:stalled IS NOT NULL OR status = 'stalled')""",
        {"stalled": batch.stalled, "id": batch.run_id},
    )
    if batch.release:
        wake_at = None if batch.wake_at is None else to_micros(batch.wake_at)
        if any(event.type == "hook_conflict" for event in events):
            wake_at = to_micros(batch.at)  # the workflow doesn't know yet that it lost the token
        db.execute(
            "UPDATE runs SET owner = NULL, lease_until = NULL, wake_at = ? WHERE id = ?", (wake_at, batch.run_id)
        )
    return Appended(events)


def _record(db: sqlite3.Connection, run_id: str, facts: list[NewEvent], at: int) -> list[Event]:
    known: list[Event] = []
    new: list[NewEvent] = []
    for fact in {fact.key: fact for fact in facts}.values():
        event = _event_of(db, run_id, fact.key)
        if event is None:
            new.append(fact)
        else:
            known.append(event)
    if new and _is_open(db, run_id):
        known += _add(db, run_id, new, at)
        db.execute(
            "UPDATE runs SET wake_at = min(coalesce(wake_at, :at), :at) WHERE id = :id AND ended_at IS NULL",
            {"at": at, "id": run_id},
        )
    return known


def _receive(
    db: sqlite3.Connection, hook_id: str, resume_id: str, payload: Any, at: int, lease: Lease | None
) -> Received | None:
    hook = db.execute("SELECT run_id, number, is_live FROM hooks WHERE id = ?", (hook_id,)).fetchone()
    if hook is None:
        return None
    run_id, number, is_live = hook
    fact = NewEvent("hook_received", {"id": number, "resume_id": resume_id, "payload": payload})
    if not is_live:
        first = _event_of(db, run_id, fact.key)  # a repeat may come after the end
        return None if first is None else Received(first)
    (event,) = _record(db, run_id, [fact], at)
    claimed = _claim(db, lease, 1, run_id) if lease is not None else []
    return Received(event, claimed[0] if claimed else None)


def _event_of(db: sqlite3.Connection, run_id: str, key: str) -> Event | None:
    row = db.execute("SELECT seq, type, at, data FROM events WHERE run_id = ? AND key = ?", (run_id, key)).fetchone()
    return None if row is None else _event(*row)


def _is_open(db: sqlite3.Connection, run_id: str) -> bool:
    return db.execute("SELECT 1 FROM runs WHERE id = ? AND ended_at IS NULL", (run_id,)).fetchone() is not None


def _add(db: sqlite3.Connection, run_id: str, events: list[NewEvent], at: int) -> list[Event]:
    """Append events and what they mean for the index rows. The clock may step back; a run's log doesn't."""
    seq, last = db.execute(
        "SELECT seq, at FROM events WHERE run_id = ? ORDER BY seq DESC LIMIT 1", (run_id,)
    ).fetchone()
    at = max(at, last)
    added: list[Event] = []
    for event in events:
        seq += 1
        indexed = _index(db, run_id, event, at)
        _insert(db, run_id, seq, at, indexed)
        added.append(Event(seq, indexed.type, from_micros(at), indexed.data))
    if added:
        db.execute("UPDATE runs SET seq = ? WHERE id = ?", (seq, run_id))
    return added


def _insert(db: sqlite3.Connection, run_id: str, seq: int, at: int, event: NewEvent) -> None:
    db.execute(
        "INSERT INTO events (run_id, seq, type, at, key, data) VALUES (?, ?, ?, ?, ?, ?)",
        (run_id, seq, event.type, at, event.key, to_json(event.data, event.type)),
    )


def _index(db: sqlite3.Connection, run_id: str, event: NewEvent, at: int) -> NewEvent:
    """Bring the index rows up to this event. Gives the event as it must stand in the log."""
    match event.type:
        case "run_started":
            db.execute("UPDATE runs SET status = 'running' WHERE id = ?", (run_id,))
        case "hook_created":
            return _open_hook(db, run_id, event, at)
        case "hook_disposed":
            db.execute("UPDATE hooks SET is_live = 0 WHERE run_id = ? AND number = ?", (run_id, event.data["id"]))
        case "run_completed" | "run_failed" | "run_cancelled":
            status = event.type.removeprefix("run_")
            db.execute(
                """UPDATE runs SET status = ?, ended_at = ?, stalled = NULL, wake_at = NULL, owner = NULL, lease_until
                = NULL WHERE id = ?""",
                (status, at, run_id),
            )
            db.execute("UPDATE hooks SET is_live = 0 WHERE run_id = ? AND is_live = 1", (run_id,))
        case _:
            pass
    return event


def _open_hook(db: sqlite3.Connection, run_id: str, event: NewEvent, at: int) -> NewEvent:
    data = event.data
    answer = data.get("answer")
    inserted = db.execute(
        """INSERT INTO hooks (id, run_id, number, token, is_webhook, has_schema, answer, metadata, created_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (token) WHERE is_live = 1 DO NOTHING RETURNING id""",
        (
            data["hook_id"], run_id, data["id"], data["token"], answer is not None, bool(data.get("has_schema")),
            None if answer is None else to_json(answer), to_json(data.get("metadata"), "metadata"), at,
        ),
    ).fetchone()  # fmt: skip
    if inserted is not None:
        return event
    owner = db.execute("SELECT run_id FROM hooks WHERE token = ? AND is_live = 1", (data["token"],)).fetchone()[0]
    taken = {"id": data["id"], "hook_id": data["hook_id"], "token": data["token"], "owner": owner}
    return NewEvent("hook_conflict", taken)


# ── whose turn it is ──────────────────────────────────────────────────────────────────────────────────────────────

_FREE = "(lease_until IS NULL OR lease_until <= :at)"
_CLAIM_DUE = f"""
    UPDATE runs SET owner = :owner, lease_until = :until, epoch = epoch + 1
    WHERE id IN (SELECT id FROM runs WHERE wake_at <= :at AND {_FREE} ORDER BY wake_at LIMIT :limit)
    RETURNING id, epoch"""  # noqa: S608  # our own text
_CLAIM_ONE = f"""
    UPDATE runs SET owner = :owner, lease_until = :until, epoch = epoch + 1
    WHERE id = :id AND ended_at IS NULL AND {_FREE}
    RETURNING id, epoch"""  # noqa: S608


def _claim(db: sqlite3.Connection, lease: Lease, limit: int, run_id: str | None) -> list[Claimed]:
    at, until = to_micros(lease.at), to_micros(lease.until)
    given = {"owner": lease.owner, "at": at, "until": until, "limit": limit, "id": run_id}
    claims = [Claim(*row) for row in db.execute(_CLAIM_DUE if run_id is None else _CLAIM_ONE, given).fetchall()]
    found = ((claim, _run_and_log(db, claim.run_id, 0)) for claim in claims)
    return [Claimed(claim, *run) for claim, run in found if run is not None]


_RENEW = "UPDATE runs SET lease_until = ? WHERE id = ? AND epoch = ? AND owner IS NOT NULL"
_NEXT_WAKE = f"""
    SELECT min(at) FROM (
      SELECT * FROM (SELECT wake_at AS at FROM runs WHERE wake_at IS NOT NULL AND {_FREE} ORDER BY wake_at LIMIT 1)
      UNION ALL
      SELECT min(lease_until) FROM runs WHERE owner IS NOT NULL AND owner <> :owner AND lease_until > :at
    )"""  # noqa: S608


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _runs(db: sqlite3.Connection, which: Filter) -> tuple[list[RunRow], str | None]:
    where, given = ["1 = 1"], dict[str, Any](limit=which.limit + 1)
    if which.workflow is not None:
        where.append("workflow = :workflow")
        given["workflow"] = which.workflow
    if which.status is not None:
        where.append("status = :status")
        given["status"] = which.status
    if which.waiting_for is not None:
        where.append("ended_at IS NULL")
        where.append("EXISTS (SELECT 1 FROM json_each(view, '$.waiting_for') WHERE value = :waiting_for)")
        given["waiting_for"] = which.waiting_for
    for i, (name, value) in enumerate(which.attributes.items()):
        where.append(f"EXISTS (SELECT 1 FROM json_each(attributes) WHERE key = :n{i} AND value = :v{i})")  # noqa: S608
        given |= {f"n{i}": name, f"v{i}": value}
    if which.cursor is not None:
        given["at"], given["after"] = _read_cursor(which.cursor)
        where.append("(created_at, id) < (:at, :after)")
    sql = f"{_SELECT_RUN} WHERE {' AND '.join(where)} ORDER BY created_at DESC, id DESC LIMIT :limit"
    rows = [_run_row(row) for row in db.execute(sql, given).fetchall()]
    page = rows[: which.limit]
    more = len(rows) > which.limit
    return page, f"{to_micros(page[-1].created_at)}.{page[-1].id}" if more else None


def _read_cursor(cursor: str) -> tuple[int, str]:
    at, _, run_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 19) or not run_id:
        raise ValueError("this cursor is not one that a list gave")
    return int(at), run_id


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _audit(db: sqlite3.Connection, entry: AuditEntry, at: int) -> AuditLine:
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, before = (row[0] + 1, row[1]) if row else (1, "")
    data = json.dumps(entry.data, sort_keys=True)
    covered = json.dumps([before, seq, at, entry.what, entry.who, entry.run_id, data])
    digest = hashlib.sha256(covered.encode()).hexdigest()
    db.execute(
        "INSERT INTO audit (seq, at, what, who, run_id, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, at, entry.what, entry.who, entry.run_id, data, digest),
    )
    return AuditLine(seq, from_micros(at), entry.what, entry.who, entry.run_id, entry.data, digest)


def _audit_lines(db: sqlite3.Connection) -> list[AuditLine]:
    rows = db.execute("SELECT seq, at, what, who, run_id, data, hash FROM audit ORDER BY seq").fetchall()
    return [AuditLine(s, from_micros(at), what, who, run, json.loads(d), h) for s, at, what, who, run, d, h in rows]


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _event(seq: int, type: Any, at: int, data: str) -> Event:
    return Event(seq, type, from_micros(at), json.loads(data))


def _run_row(row: Any) -> RunRow:
    return RunRow(
        id=row[0], workflow=row[1], code=row[2], version=row[3], status=row[4], created_at=from_micros(row[5]),
        ended_at=_at(row[6]), attributes=json.loads(row[7]), seq=row[8],
        view=None if row[9] is None else json.loads(row[9]), stalled=row[10], wake_at=_at(row[11]), epoch=row[12],
        ending=None if row[13] is None else json.loads(row[13]),
    )  # fmt: skip


def _hook_row(row: Any) -> HookRow:
    return HookRow(
        id=row[0], run_id=row[1], number=row[2], token=row[3], is_webhook=bool(row[4]), has_schema=bool(row[5]),
        answer=None if row[6] is None else json.loads(row[6]), metadata=json.loads(row[7]),
        created_at=from_micros(row[8]), generation=row[9], is_live=bool(row[10]),
    )  # fmt: skip


def _run(db: sqlite3.Connection, sql: str, given: tuple[Any, ...] = ()) -> None:
    db.execute(sql, given)


def _run_many(db: sqlite3.Connection, sql: str, given: list[tuple[Any, ...]]) -> None:
    db.executemany(sql, given)


def _at(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _connection(path: str, *works: Callable[[sqlite3.Connection], None]) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
    try:
        for work in (_set_up, *works):
            await in_thread(connection, work)
    except BaseException:
        with suppress(Exception):
            await asyncio.shield(connection.close())
        raise
    return connection


def _set_up(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
    mode = _switch_to_wal(db)
    db.execute("PRAGMA synchronous = FULL")
    synchronous = db.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous != 2:
        raise sqlite3.OperationalError(f"needs journal_mode=wal and synchronous=FULL, got {mode} and {synchronous}")
    db.execute("PRAGMA foreign_keys = ON")


def _switch_to_wal(db: sqlite3.Connection) -> str:
    """This one statement does not wait for others itself: of two processes that make a new file, one is refused."""
    for delay in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
        try:
            return str(db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(delay)  # on this connection's own thread
    return str(db.execute("PRAGMA journal_mode = WAL").fetchone()[0])


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("approvals_bot.store") / "migrations"
    files = sorted((f.name, f) for f in folder.iterdir() if f.name.endswith(".sqlite.sql"))
    return [(name, file.read_text()) for name, file in files]


def _migrate(db: sqlite3.Connection) -> None:
    """Apply what is missing, all in one transaction, so that two processes that start at once don't meet half-way."""
    migrations = _migrations()
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise sqlite3.OperationalError(
                f"it has schema {version}, but this program knows only {len(migrations)}; run the newer program"
            )
        for _, script in migrations[version:]:
            for statement in _statements(script):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
