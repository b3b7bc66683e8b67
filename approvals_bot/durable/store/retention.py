"""Deleting runs that ended long ago, in both databases. A run goes whole, and a stub of it stays.

The stub says what became of the run, and answers its idempotency key for a while: a caller who repeats a start must not
start anything a second time. It also has the hooks' IDs, so that an old link can say that its run was deleted.

A run that continued, or was reset, stays as long as the run in its place does: that one's hooks answer repeated
payloads from its log. So does the child of an open run, and a run that the audit doesn't vouch for yet.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection


class Stub(NamedTuple):
    """What stays of a deleted run.

    `outcome`: its request's, else its status. `seq` and `head`: the number and the hash of its last event, which the
    audit names, too. `key` and `input`: the SHA-256 of its idempotency key and of what came with that; the key is
    answered until `key_until`. All texts are printable, so either database takes them as they are.
    """

    run_id: str
    workflow: str
    kind: str
    outcome: str
    ended_at: datetime
    seq: int
    head: str
    key: str = ""
    input: str = ""
    key_until: datetime | None = None


class DeletableRun(NamedTuple):
    """A run that may be deleted: it has this idempotency key, and its hooks these IDs. Texts are as they are stored."""

    run_id: str
    ended_at: datetime
    key: str | None
    hooks: tuple[str, ...]


class Deletable(NamedTuple):
    """Which runs to look for, a page at a time: those that ended before `before`, after the last one of a page.

    `only`: of this workflow. `but`: of no workflow among these. `after`: the end and the ID of that last run.
    """

    before: datetime
    only: str | None = None
    but: tuple[str, ...] = ()
    after: tuple[datetime, str] | None = None
    most: int = 500


class RetentionStore(Protocol):
    """What a store does about runs that ended long ago."""

    async def deletable(self, which: Deletable) -> list[DeletableRun]:
        """Return runs that may be deleted, those that ended first at the beginning."""

    async def delete_runs(self, stubs: Sequence[tuple[Stub, Sequence[str]]], files: Sequence[str]) -> int:
        """Delete runs and write their stubs, in one transaction. Returns how many runs there were.

        With each stub come the IDs of the run's hooks. `files`: those that no other run has.
        """

    async def stub(self, *, run_id: str = "", key: str = "", hook_id: str = "") -> Stub | None:
        """Return the stub of a run, of the run that had an idempotency key (its SHA-256), or of a hook's run."""

    async def deleted(self) -> int:
        """Return how many runs were deleted."""

    async def stubs_among(self, run_ids: Collection[str]) -> set[str]:
        """Return those of these runs that have a stub."""

    async def forget_stubs(self, before: datetime, now: datetime, most: int) -> int:
        """Delete stubs of runs that ended before `before`, whose key is free. Returns how many there were."""


def key_digest(key: str) -> str:
    """Return the SHA-256 of an idempotency key, as stubs have it. `key`: as it is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


NAMES = ("run_id", "workflow", "kind", "outcome", "ended_at", "seq", "head", "key", "input", "key_until")
"""The columns of stubs."""

COLUMNS = ", ".join(NAMES)
_OF_RUN = ("attributes", "events", "chain", "taken", "owed_lines", "hooks")
_HAS_NO_NEXT = "NOT EXISTS (SELECT 1 FROM runs AS n WHERE n.id = runs.next_run)"
"""Nobody has reset it meanwhile, and no run goes on in its place."""
_FIND = {
    "run_id": f"SELECT {COLUMNS} FROM stubs WHERE run_id = {{}}",  # noqa: S608  # our own names, here and below
    "key": f"SELECT {COLUMNS} FROM stubs WHERE key = {{}} ORDER BY key_until DESC LIMIT 1",  # noqa: S608
    "hook_id": f"SELECT {COLUMNS} FROM stubs WHERE run_id = "  # noqa: S608
    "(SELECT run_id FROM stub_hooks WHERE hook_id = {})",
}


def _values(stub: Stub) -> tuple[str, str, str, str, int, int, str, str | None, str | None, int | None]:
    until = None if stub.key_until is None else to_micros(stub.key_until)
    head = (stub.run_id, stub.workflow, stub.kind, stub.outcome, to_micros(stub.ended_at), stub.seq, stub.head)
    return *head, stub.key or None, stub.input or None, until


def _stub(row: Sequence[Any]) -> Stub:
    run_id, workflow, kind, outcome, ended, seq, head, key, input, until = row
    kept = None if until is None else from_micros(until)
    return Stub(run_id, workflow, kind, outcome, from_micros(ended), seq, head, key or "", input or "", kept)


def _ended(run_id: str, ended: int, key: str | None, hooks: str) -> DeletableRun:
    return DeletableRun(run_id, from_micros(ended), key, tuple(json.loads(hooks)))


def _conditions(which: Deletable, place: str) -> tuple[str, list[Any]]:
    """Return the SQL conditions on runs, and the values of their placeholders. `place`: "?" or "$"."""
    given: list[Any] = [to_micros(which.before)]

    def put(value: Any) -> str:
        given.append(value)
        return place if place == "?" else f"${len(given)}"

    text = f"r.ended_at IS NOT NULL AND r.sealed = -1 AND r.ended_at < {place if place == '?' else '$1'}"
    if which.only is not None:
        text += f" AND r.workflow = {put(which.only)}"
    text += "".join(f" AND r.workflow <> {put(name)}" for name in which.but)
    if which.after is not None:
        text += f" AND (r.ended_at, r.id) > ({put(to_micros(which.after[0]))}, {put(which.after[1])})"
    text += """
      AND NOT EXISTS (SELECT 1 FROM runs AS n WHERE n.id = r.next_run)
      AND NOT EXISTS (SELECT 1 FROM runs AS p WHERE p.id = r.parent AND p.ended_at IS NULL)
      AND NOT EXISTS (SELECT 1 FROM owed_lines AS o WHERE o.run_id = r.id)"""
    return text, given


# ── SQLite ──

_HOOKS = "(SELECT json_group_array(h.id) FROM hooks AS h WHERE h.run_id = r.id)"


def deletable(db: sqlite3.Connection, which: Deletable) -> list[DeletableRun]:
    conditions, given = _conditions(which, "?")
    found = db.execute(
        f"SELECT r.id, r.ended_at, r.idempotency_key, {_HOOKS} FROM runs AS r"  # noqa: S608
        f" WHERE {conditions} ORDER BY r.ended_at, r.id LIMIT ?",
        [*given, which.most],
    )
    return [_ended(*row) for row in found.fetchall()]


_DELETE = f"DELETE FROM runs WHERE id = ? AND seq = ? AND {_HAS_NO_NEXT}"  # noqa: S608


def delete_runs(db: sqlite3.Connection, stubs: Sequence[tuple[Stub, Sequence[str]]], files: Sequence[str]) -> int:
    """Delete runs and write their stubs."""
    deleted = 0
    for stub, hooks in stubs:
        gone = db.execute(_DELETE, (stub.run_id, stub.seq)).rowcount
        if not gone:  # another replica was first, or somebody has reset it
            continue
        deleted += gone
        for table in _OF_RUN:
            db.execute(f"DELETE FROM {table} WHERE run_id = ?", (stub.run_id,))  # noqa: S608
        db.execute(f"INSERT OR REPLACE INTO stubs ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _values(stub))  # noqa: S608
        db.executemany("INSERT OR REPLACE INTO stub_hooks VALUES (?, ?)", [(id, stub.run_id) for id in hooks])
    for table, column in (("file_parts", "file_id"), ("files", "id")):
        db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(id,) for id in files])  # noqa: S608
    return deleted


def find_stub(db: sqlite3.Connection, *, run_id: str = "", key: str = "", hook_id: str = "") -> Stub | None:
    for name, value in (("run_id", run_id), ("key", key), ("hook_id", hook_id)):
        if value:
            row = db.execute(_FIND[name].format("?"), (value,)).fetchone()
            return None if row is None else _stub(row)
    return None


def count_deleted(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM stubs").fetchone()[0])


_OLD_STUBS = """
  SELECT run_id FROM stubs
  WHERE ended_at < {before} AND (key_until IS NULL OR key_until <= {now}) ORDER BY ended_at LIMIT {most}"""


def stubs_among(db: sqlite3.Connection, run_ids: Collection[str]) -> set[str]:
    found = db.execute(
        "SELECT run_id FROM stubs WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),)
    )
    return {run_id for (run_id,) in found}


def forget_stubs(db: sqlite3.Connection, before: datetime, now: datetime, most: int) -> int:
    """Delete stubs of runs that ended before `before`, and whose key is free by now."""
    old = db.execute(_OLD_STUBS.format(before="?", now="?", most="?"), (to_micros(before), to_micros(now), most))
    ids = old.fetchall()
    for table in ("stub_hooks", "stubs"):
        db.executemany(f"DELETE FROM {table} WHERE run_id = ?", ids)  # noqa: S608  # our own names
    return len(ids)


# ── PostgreSQL ──

_HOOKS_PG = "(SELECT coalesce(json_agg(h.id), '[]')::text FROM hooks AS h WHERE h.run_id = r.id)"
# One statement is one transaction. Only the runs that this one has deleted lose their rows and get a stub.
_DELETE_PG = f"""
  WITH given AS (SELECT * FROM json_to_recordset($1::json) AS g (
      run_id text, workflow text, kind text, outcome text, ended_at bigint, seq bigint, head text, key text,
      input text, key_until bigint, hooks json)),
  gone AS (DELETE FROM runs USING given AS g WHERE runs.id = g.run_id AND runs.seq = g.seq
      AND {_HAS_NO_NEXT} RETURNING runs.id),
  {", ".join(f"of_{name} AS (DELETE FROM {name} WHERE run_id IN (SELECT id FROM gone))" for name in _OF_RUN)},
  parts AS (DELETE FROM file_parts WHERE file_id = ANY ($2)),
  whole AS (DELETE FROM files WHERE id = ANY ($2)),
  named AS (INSERT INTO stub_hooks
      SELECT h.id, g.run_id FROM given AS g, json_array_elements_text(g.hooks) AS h (id)
      WHERE g.run_id IN (SELECT id FROM gone) ON CONFLICT (hook_id) DO NOTHING),
  kept AS (INSERT INTO stubs ({COLUMNS})
      SELECT {COLUMNS} FROM given WHERE run_id IN (SELECT id FROM gone) ON CONFLICT (run_id) DO NOTHING)
  SELECT count(*) FROM gone"""  # noqa: S608

_FORGET_PG = f"""
  WITH old AS ({_OLD_STUBS.format(before="$1", now="$2", most="$3")}),
  named AS (DELETE FROM stub_hooks WHERE run_id IN (SELECT run_id FROM old)),
  gone AS (DELETE FROM stubs WHERE run_id IN (SELECT run_id FROM old) RETURNING 1)
  SELECT count(*) FROM gone"""  # noqa: S608  # our own text


class PostgresRetention:
    """What the store in PostgreSQL does about runs that ended long ago."""

    _write: PostgresConnection
    _lists: PostgresConnection

    async def deletable(self, which: Deletable) -> list[DeletableRun]:
        conditions, given = _conditions(which, "$")
        async with self._lists.in_time():
            rows = await self._lists.fetch(
                f"SELECT r.id, r.ended_at, r.idempotency_key, {_HOOKS_PG} FROM runs AS r"  # noqa: S608
                f" WHERE {conditions} ORDER BY r.ended_at, r.id LIMIT {int(which.most)}",
                *given,
            )
        return [_ended(*row) for row in rows]

    async def delete_runs(self, stubs: Sequence[tuple[Stub, Sequence[str]]], files: Sequence[str]) -> int:
        given = [dict(zip(NAMES, _values(stub), strict=True)) | {"hooks": list(hooks)} for stub, hooks in stubs]
        async with self._write.in_time():
            ((deleted,),) = await self._write.fetch(_DELETE_PG, json.dumps(given), list(files))
        return int(deleted)

    async def stub(self, *, run_id: str = "", key: str = "", hook_id: str = "") -> Stub | None:
        for name, value in (("run_id", run_id), ("key", key), ("hook_id", hook_id)):
            if value:
                async with self._lists.in_time():
                    rows = await self._lists.fetch(_FIND[name].format("$1"), value)
                return _stub(rows[0]) if rows else None
        return None

    async def deleted(self) -> int:
        async with self._lists.in_time():
            ((count,),) = await self._lists.fetch("SELECT count(*) FROM stubs")
        return int(count)

    async def stubs_among(self, run_ids: Collection[str]) -> set[str]:
        async with self._lists.in_time():
            rows = await self._lists.fetch("SELECT run_id FROM stubs WHERE run_id = ANY ($1)", list(run_ids))
        return {run_id for (run_id,) in rows}

    async def forget_stubs(self, before: datetime, now: datetime, most: int) -> int:
        async with self._write.in_time():
            ((count,),) = await self._write.fetch(_FORGET_PG, to_micros(before), to_micros(now), most)
        return int(count)
