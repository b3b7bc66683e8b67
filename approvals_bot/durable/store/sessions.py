"""Sessions of people who have signed in, in both databases: a row for each browser.

A browser holds random bytes, and the row their digest, so a copy of the database signs nobody in. Each request reads
its session's row again: what one replica ends has ended at all of them. Copies of an installation have no sessions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection


class SessionRow(NamedTuple):
    """A signed-in browser. `id` is the digest of what it holds; from `until` on, the row may be deleted.

    `proved`: whether the person proved who they are for this session. A provider or a proxy may have remembered them.
    All texts are printable, so either database takes them as they are.
    """

    id: str
    person: str
    method: str
    created_at: datetime
    seen_at: datetime
    browser: str
    until: datetime
    proved: bool


class SessionStore(Protocol):
    """What a store keeps of sessions."""

    async def add_session(self, row: SessionRow) -> None:
        """Add a session that begins now. Some sessions that may be deleted by then are deleted with it."""

    async def session(self, id: str) -> SessionRow | None:
        """Return the session with this id."""

    async def sessions(self, person: str) -> list[SessionRow]:
        """Return this person's sessions, the newest first; also those that may be deleted by now."""

    async def sessions_left(self, ids: Collection[str]) -> set[str]:
        """Return those of these ids whose sessions nobody has ended."""

    async def mark_session(self, id: str, seen_at: datetime) -> None:
        """Write when this session was seen last. Nothing happens if it has ended."""

    async def end_sessions(self, *, id: str | None = None, person: str | None = None) -> int:
        """End the session with this id, and all of this person's. Returns how many there were."""


def session_values(row: SessionRow) -> tuple[str, str, str, int, int, str, int, int]:
    """Return the row's columns."""
    created, seen, until = (to_micros(at) for at in (row.created_at, row.seen_at, row.until))
    return row.id, row.person, row.method, created, seen, row.browser, until, int(row.proved)


def session_row(
    id: str, person: str, method: str, created: int, seen: int, browser: str, until: int, proved: int
) -> SessionRow:
    """Return the row with these columns."""
    times = (from_micros(created), from_micros(seen))
    return SessionRow(id, person, method, *times, browser, from_micros(until), bool(proved))


_COLUMNS = "id, person, method, created_at, seen_at, browser, until, proved"
_NEWEST_FIRST = "ORDER BY created_at DESC, id"

# ── SQLite ──

_ONE = f"SELECT {_COLUMNS} FROM sessions WHERE id = ?"  # noqa: S608  # our own names, here and below
_ALL = f"SELECT {_COLUMNS} FROM sessions WHERE person = ? {_NEWEST_FIRST}"  # noqa: S608
_ADD = f"INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_FORGET = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE until <= ? ORDER BY until LIMIT 10)"


def find_session(db: sqlite3.Connection, id: str) -> SessionRow | None:
    row = db.execute(_ONE, (id,)).fetchone()
    return None if row is None else session_row(*row)


def list_sessions(db: sqlite3.Connection, person: str) -> list[SessionRow]:
    return [session_row(*row) for row in db.execute(_ALL, (person,)).fetchall()]


def sessions_left(db: sqlite3.Connection, ids: Collection[str]) -> set[str]:
    marks = ", ".join("?" * len(ids))
    rows = db.execute(f"SELECT id FROM sessions WHERE id IN ({marks})", tuple(ids))  # noqa: S608  # question marks
    return {id for (id,) in rows}


def add_session(db: sqlite3.Connection, row: SessionRow) -> None:
    db.execute(_ADD, session_values(row))
    db.execute(_FORGET, (to_micros(row.created_at),))


def mark_session(db: sqlite3.Connection, id: str, seen_at: datetime) -> None:
    db.execute("UPDATE sessions SET seen_at = ? WHERE id = ?", (to_micros(seen_at), id))


def end_sessions(db: sqlite3.Connection, *, id: str | None = None, person: str | None = None) -> int:
    return db.execute("DELETE FROM sessions WHERE id = ? OR person = ?", (id, person)).rowcount


# ── PostgreSQL ──

_ONE_PG = f"SELECT {_COLUMNS} FROM sessions WHERE id = $1"  # noqa: S608
_ALL_PG = f"SELECT {_COLUMNS} FROM sessions WHERE person = $1 {_NEWEST_FIRST}"  # noqa: S608
_LEFT_PG = "SELECT id FROM sessions WHERE id = ANY($1::text[])"
_ADD_PG = f"INSERT INTO sessions ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"  # noqa: S608
_FORGET_PG = """
    DELETE FROM sessions WHERE id IN (
      SELECT id FROM sessions WHERE until <= $1 ORDER BY until LIMIT 10 FOR UPDATE SKIP LOCKED)"""
_MARK_PG = "UPDATE sessions SET seen_at = $2 WHERE id = $1"
_END_PG = "DELETE FROM sessions WHERE id = $1 OR person = $2 RETURNING 1"


class PostgresSessions:
    """What the store in PostgreSQL keeps of sessions."""

    _write: PostgresConnection

    async def add_session(self, row: SessionRow) -> None:
        async with self._write.in_time():
            await self._write.fetch(_ADD_PG, *session_values(row))
            await self._write.fetch(_FORGET_PG, to_micros(row.created_at))

    async def session(self, id: str) -> SessionRow | None:
        async with self._write.in_time():
            rows = await self._write.fetch(_ONE_PG, id)
        return session_row(*rows[0]) if rows else None

    async def sessions(self, person: str) -> list[SessionRow]:
        async with self._write.in_time():
            return [session_row(*row) for row in await self._write.fetch(_ALL_PG, person)]

    async def sessions_left(self, ids: Collection[str]) -> set[str]:
        async with self._write.in_time():
            return {id for (id,) in await self._write.fetch(_LEFT_PG, [*ids])}

    async def mark_session(self, id: str, seen_at: datetime) -> None:
        async with self._write.in_time():
            await self._write.fetch(_MARK_PG, id, to_micros(seen_at))

    async def end_sessions(self, *, id: str | None = None, person: str | None = None) -> int:
        async with self._write.in_time():
            return len(await self._write.fetch(_END_PG, id, person))
