"""The processes that serve an installation, in both databases: a row for each.

The rows say which signing keys each process accepts. They decide nothing about runs: that is up to leases and epochs.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection

FORGOTTEN = timedelta(hours=1)
"""A row that hasn't been written for this long is deleted by the next process that writes its own."""


class ReplicaRow(NamedTuple):
    """A process that serves the installation.

    `key_ids` are those of the signing keys that it accepts, in its order; `signs_with` is one of them. All texts are
    printable, so either database takes them as they are.
    """

    id: str
    version: str
    since: datetime
    seen_at: datetime
    schema: int
    key_ids: tuple[str, ...]
    signs_with: str
    config_digest: str


class StoreLoad(NamedTuple):
    """How large a store is, in bytes, and how many runs each owner works on at this moment."""

    size: int
    leases: dict[str, int]


class ReplicaStore(Protocol):
    """What a store keeps of the processes that serve it."""

    async def load(self) -> StoreLoad:
        """Return the store's size and the leases that are given. Reads an index, not the runs."""

    async def announce(self, row: ReplicaRow) -> list[ReplicaRow]:
        """Write a process's row, and return those of all the others, the oldest first.

        Of two processes that announce themselves at once, at least one sees the other. Rows that are long silent are
        deleted.
        """

    async def replicas(self) -> list[ReplicaRow]:
        """Return the rows of all processes, the oldest first. Some may have died."""

    async def leave(self, id: str) -> None:
        """Delete the row of a process that ends."""


def _values(row: ReplicaRow) -> tuple[str, str, int, int, int, str, str, str]:
    """Return the row's columns."""
    since, seen_at = to_micros(row.since), to_micros(row.seen_at)
    return row.id, row.version, since, seen_at, row.schema, json.dumps(row.key_ids), row.signs_with, row.config_digest


def _row(
    id: str, version: str, since: int, seen_at: int, schema: int, key_ids: str, signs_with: str, config_digest: str
) -> ReplicaRow:
    """Return the row with these columns."""
    times = (from_micros(since), from_micros(seen_at))
    return ReplicaRow(id, version, *times, schema, tuple(json.loads(key_ids)), signs_with, config_digest)


_COLUMNS = "id, version, since, seen_at, schema, key_ids, signs_with, config_digest"
_ALL = f"SELECT {_COLUMNS} FROM replicas ORDER BY since, id"  # noqa: S608  # our own names, here and below
_SAID = """ON CONFLICT (id) DO UPDATE SET version = excluded.version, since = excluded.since,
      seen_at = excluded.seen_at, schema = excluded.schema, key_ids = excluded.key_ids,
      signs_with = excluded.signs_with, config_digest = excluded.config_digest"""

_LEASES = "SELECT owner, count(*) FROM runs WHERE owner IS NOT NULL GROUP BY owner ORDER BY owner"

# ── SQLite ──

_ANNOUNCE = f"INSERT INTO replicas ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) {_SAID}"  # noqa: S608
_FORGET = "DELETE FROM replicas WHERE seen_at < ?"


def announce(db: sqlite3.Connection, row: ReplicaRow) -> list[ReplicaRow]:
    db.execute(_ANNOUNCE, _values(row))
    db.execute(_FORGET, (to_micros(row.seen_at - FORGOTTEN),))
    return [each for each in list_replicas(db) if each.id != row.id]


def list_replicas(db: sqlite3.Connection) -> list[ReplicaRow]:
    return [_row(*each) for each in db.execute(_ALL).fetchall()]


def load(db: sqlite3.Connection) -> StoreLoad:
    (pages,), (size,) = (db.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size"))
    return StoreLoad(pages * size, dict(db.execute(_LEASES).fetchall()))


def leave(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM replicas WHERE id = ?", (id,))


# ── PostgreSQL ──

_ANNOUNCE_PG = f"INSERT INTO replicas ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) {_SAID}"  # noqa: S608
_FORGET_PG = "DELETE FROM replicas WHERE seen_at < $1"


class PostgresReplicas:
    """What the store in PostgreSQL keeps of the processes that serve it."""

    _write: PostgresConnection

    async def announce(self, row: ReplicaRow) -> list[ReplicaRow]:
        async with self._write.in_time():
            # The row is committed before the others are read: so of two at once, at least one sees the other.
            await self._write.fetch(_ANNOUNCE_PG, *_values(row))
            rows = await self._write.fetch(_ALL)
            if any(each[3] < to_micros(row.seen_at - FORGOTTEN) for each in rows):
                await self._write.fetch(_FORGET_PG, to_micros(row.seen_at - FORGOTTEN))
        return [_row(*each) for each in rows if each[0] != row.id]

    async def replicas(self) -> list[ReplicaRow]:
        async with self._write.in_time():
            return [_row(*each) for each in await self._write.fetch(_ALL)]

    async def load(self) -> StoreLoad:
        async with self._write.in_time():
            ((size,),) = await self._write.fetch("SELECT pg_database_size(current_database())")
            rows = await self._write.fetch(_LEASES)
        return StoreLoad(size, {row[0]: row[1] for row in rows})

    async def leave(self, id: str) -> None:
        async with self._write.in_time():
            await self._write.fetch("DELETE FROM replicas WHERE id = $1", id)
