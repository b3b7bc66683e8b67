"""Files that people attach to requests, in both databases: a row for each, and its content in parts.

A part is one short write, so a large file doesn't delay a click, and nobody ever holds one whole in memory. The row
comes first, and the file is whole once that describes it. Until something claims it, it is gone at its time.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection

PART = 262_144  # bytes of a file that are written at once


class FileRow(NamedTuple):
    """A file. `owner`: the app or person who uploaded it; `until`: None once claimed.

    `described`: what its keeper says of it, as JSON; "" until it is whole. All texts are printable, so either database
    takes them as they are.
    """

    id: str
    owner: str
    created_at: datetime
    until: datetime | None
    described: str = ""

    def is_there(self, at: datetime) -> bool:
        """Whether it is whole, and claimed or still to be had at this time."""
        return bool(self.described) and (self.until is None or at < self.until)


class FileStore(Protocol):
    """What a store keeps of files."""

    async def begin_file(self, row: FileRow) -> None:
        """Add a file that has no content yet."""

    async def add_file_part(self, id: str, number: int, content: bytes) -> None:
        """Add a part of its content; the first one is number 0. A repeat does nothing."""

    async def finish_file(self, id: str, described: str) -> None:
        """Write what a file is, all of whose parts are there."""

    async def file(self, id: str) -> FileRow | None:
        """Return the file with this id; also one that isn't whole, or whose time is over."""

    async def file_part(self, id: str, number: int) -> bytes | None:
        """Return a part of a file's content. None after the last one."""

    async def unclaimed_files(self, owner: str, at: datetime) -> int:
        """Return how many files this owner has that nothing has claimed by then."""

    async def claim_file(self, id: str, at: datetime) -> bool:
        """Keep a file for good. Returns whether it was there; a file may be claimed more than once."""

    async def forget_file(self, at: datetime, id: str | None = None) -> bool:
        """Delete one file that nothing has claimed: this one, or one whose time is over. Returns whether there was one.

        It is one at a time, because a large one takes a while.
        """


_COLUMNS = "id, owner, created_at, until, described"


def file_values(row: FileRow) -> tuple[str, str, int, int | None, str]:
    """Return the row's columns."""
    until = None if row.until is None else to_micros(row.until)
    return row.id, row.owner, to_micros(row.created_at), until, row.described


def file_row(id: str, owner: str, created: int, until: int | None, described: str) -> FileRow:
    """Return the row with these columns."""
    return FileRow(id, owner, from_micros(created), None if until is None else from_micros(until), described)


# ── SQLite ──

_BEGIN = f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608  # ours
_FINISH = "UPDATE files SET described = ? WHERE id = ?"
_CLAIM = "UPDATE files SET until = NULL WHERE id = ? AND described <> '' AND (until IS NULL OR until > ?)"
_OVER = "SELECT id FROM files WHERE until <= ? ORDER BY until LIMIT 1"
_OF_OWNER = "SELECT count(*) FROM files WHERE owner = ? AND until > ?"


def begin_file(db: sqlite3.Connection, row: FileRow) -> None:
    db.execute(_BEGIN, file_values(row))


def add_file_part(db: sqlite3.Connection, id: str, number: int, content: bytes) -> None:
    db.execute("INSERT INTO file_parts VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (id, number, content))


def finish_file(db: sqlite3.Connection, id: str, described: str) -> None:
    db.execute(_FINISH, (described, id))


def find_file(db: sqlite3.Connection, id: str) -> FileRow | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM files WHERE id = ?", (id,)).fetchone()  # noqa: S608  # our own names
    return None if row is None else file_row(*row)


def file_part(db: sqlite3.Connection, id: str, number: int) -> bytes | None:
    row = db.execute("SELECT content FROM file_parts WHERE file_id = ? AND number = ?", (id, number)).fetchone()
    return None if row is None else bytes(row[0])


def unclaimed_files(db: sqlite3.Connection, owner: str, at: datetime) -> int:
    (count,) = db.execute(_OF_OWNER, (owner, to_micros(at))).fetchone()
    return int(count)


def claim_file(db: sqlite3.Connection, id: str, at: datetime) -> bool:
    return db.execute(_CLAIM, (id, to_micros(at))).rowcount > 0


def forget_file(db: sqlite3.Connection, at: datetime, id: str | None = None) -> bool:
    if id is None:
        over = db.execute(_OVER, (to_micros(at),)).fetchone()
        id = None if over is None else over[0]
    if id is None or not db.execute("DELETE FROM files WHERE id = ? AND until IS NOT NULL", (id,)).rowcount:
        return False
    db.execute("DELETE FROM file_parts WHERE file_id = ?", (id,))
    return True


# ── PostgreSQL ──

_BEGIN_PG = f"INSERT INTO files ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"  # noqa: S608
_ADD_PG = "INSERT INTO file_parts VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_FINISH_PG = "UPDATE files SET described = $1 WHERE id = $2"
_CLAIM_PG = """
    UPDATE files SET until = NULL WHERE id = $1 AND described <> '' AND (until IS NULL OR until > $2) RETURNING 1"""
_OVER_PG = "SELECT id FROM files WHERE until <= $1 ORDER BY until LIMIT 1"
_OF_OWNER_PG = "SELECT count(*) FROM files WHERE owner = $1 AND until > $2"
_FORGET_PG = """
    WITH gone AS (DELETE FROM files WHERE id = $1 AND until IS NOT NULL RETURNING id),
    parts AS (DELETE FROM file_parts WHERE file_id IN (SELECT id FROM gone))
    SELECT 1 FROM gone"""


class PostgresFiles:
    """What the store in PostgreSQL keeps of files. Contents are written and read where no click waits."""

    _write: PostgresConnection
    _lists: PostgresConnection

    async def begin_file(self, row: FileRow) -> None:
        await self._fetch(_BEGIN_PG, *file_values(row))

    async def add_file_part(self, id: str, number: int, content: bytes) -> None:
        await self._fetch(_ADD_PG, id, number, content)

    async def finish_file(self, id: str, described: str) -> None:
        await self._fetch(_FINISH_PG, described, id)

    async def file(self, id: str) -> FileRow | None:
        rows = await self._fetch(f"SELECT {_COLUMNS} FROM files WHERE id = $1", id)  # noqa: S608  # our own names
        return file_row(*rows[0]) if rows else None

    async def file_part(self, id: str, number: int) -> bytes | None:
        rows = await self._fetch("SELECT content FROM file_parts WHERE file_id = $1 AND number = $2", id, number)
        return bytes(rows[0][0]) if rows else None

    async def unclaimed_files(self, owner: str, at: datetime) -> int:
        return int((await self._fetch(_OF_OWNER_PG, owner, to_micros(at)))[0][0])

    async def claim_file(self, id: str, at: datetime) -> bool:
        async with self._write.in_time():
            return bool(await self._write.fetch(_CLAIM_PG, id, to_micros(at)))

    async def forget_file(self, at: datetime, id: str | None = None) -> bool:
        if id is None:
            over = await self._fetch(_OVER_PG, to_micros(at))
            if not over:
                return False
            id = over[0][0]
        return bool(await self._fetch(_FORGET_PG, id))

    async def _fetch(self, sql: str, *given: object) -> list[Any]:
        async with self._lists.in_time():
            return await self._lists.fetch(sql, *given)
