"""The tables that a copy takes along, and those of SQLite. Those of PostgreSQL need a driver, which is an extra."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from approvals_bot.durable.store.retention import NAMES
from approvals_bot.durable.store.sqlite import SoleOwner, read_only_uri
from approvals_bot.errors import StoreCopyError, StoreUnavailableError

Row = tuple[Any, ...]

ROWS_AT_ONCE = 2_000  # limits memory: the data of one event can have a megabyte
PARTS_AT_ONCE = 32  # of files, which are full


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """The columns to copy of a table, and its key. Leases aren't copied: nobody works on a copy yet."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    at_once: int = ROWS_AT_ONCE


INSTALLATION = CopiedTable("installation", ("one", "id"), ("one",))
"""Which installation the database belongs to. The target was given an ID of its own when it was made."""

TABLES = (
    CopiedTable(
        "runs",
        ("id", "workflow", "code", "version", "kind", "status", "created_at", "ended_at", "idempotency_key",
         "attributes", "seq", "view", "parts", "indexed", "stalled", "next_run", "parent",
         "parent_number", "on_parent_close", "wake_at", "epoch", "unread", "received", "sealed"),
        ("id",),
    ),
    CopiedTable(
        "attributes",
        ("run_id", "name", "value", "workflow", "status", "created_at"),
        ("run_id", "name", "value"),
    ),
    CopiedTable("events", ("run_id", "seq", "type", "at", "key", "data"), ("run_id", "seq")),
    CopiedTable("chain", ("run_id", "seq", "salt", "hash"), ("run_id", "seq")),
    CopiedTable(
        "hooks",
        ("id", "run_id", "number", "token", "is_webhook", "has_schema", "answer", "metadata", "created_at",
         "generation", "is_live"),
        ("id",),
    ),
    CopiedTable("taken", ("hook_id", "resume_id", "run_id", "seq"), ("hook_id", "resume_id")),
    CopiedTable("owed_lines", ("id", "run_id", "seq", "at", "about"), ("id",)),
    CopiedTable("stubs", NAMES, ("run_id",)),
    CopiedTable("stub_hooks", ("hook_id", "run_id"), ("hook_id",)),
    CopiedTable("schedules", ("name", "version", "state"), ("name",)),
    CopiedTable("counters", ("name", "version", "state", "until"), ("name",)),
    CopiedTable("personal", ("person", "settings", "changed_at"), ("person",)),
    CopiedTable("documents", ("kind", "id", "name", "document", "change"), ("kind", "id")),
    CopiedTable("files", ("id", "owner", "created_at", "until", "described"), ("id",)),
    CopiedTable("file_parts", ("file_id", "number", "content"), ("file_id", "number"), PARTS_AT_ONCE),
    CopiedTable("audit", ("seq", "at", "what", "who", "run_id", "data", "hash"), ("seq",)),
)  # fmt: skip


class Copyable(Protocol):
    """A store's tables, in one transaction, while no other process works on them."""

    def rows(self, table: CopiedTable) -> AsyncIterator[Sequence[Row]]:
        """Yield all rows of a table in the order of its key, in chunks."""

    async def is_empty(self) -> bool: ...
    async def forget_installation(self) -> None: ...
    async def forget_codes(self) -> None: ...

    async def integrity(self) -> list[str]:
        """Return what the database itself finds wrong with its files. PostgreSQL doesn't look."""

    async def rebuild(
        self,
        run_id: str,
        row: Mapping[str, Any],
        hooks: Sequence[Mapping[str, Any]] | None,
        attributes: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        """Write these columns of a run's row, and its hooks and attributes in the place of those there are."""

    async def add(self, table: CopiedTable, rows: Sequence[Row]) -> None: ...


CODES = "DELETE FROM counters WHERE name LIKE 'code %'"
"""Sign-in codes that were sent. A code counts once, and a restored store doesn't know which have counted."""


# ── SQLite ──


@asynccontextmanager
async def sqlite_beside(path: str) -> AsyncIterator[_SqliteTables]:
    """Open a file's tables in one snapshot, beside the service. Nothing is written."""
    db = sqlite3.connect(read_only_uri(path), uri=True, isolation_level=None)
    try:
        db.execute("BEGIN")
        yield _SqliteTables(db)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"The database file {path} can't be read: {error}") from error
    finally:
        db.close()


@asynccontextmanager
async def opened_sqlite(path: str) -> AsyncIterator[_SqliteTables]:
    """Open a file's tables in one transaction, which commits when the block ends.

    Raises StoreCopyError if a service is using the file.
    """
    owner = SoleOwner(Path(path + ".lock"))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        if not owner.acquire():
            raise StoreCopyError(f"A service is using {path}. Stop it first: the copy would miss what it writes now.")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        yield _SqliteTables(db)
        db.execute("COMMIT")
    finally:
        db.close()  # without a COMMIT: nothing was written
        owner.release()


class _SqliteTables:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def rows(self, table: CopiedTable) -> AsyncIterator[Sequence[Row]]:
        columns, key = ", ".join(table.columns), ", ".join(table.key)
        found = self._db.execute(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608  # our own names
        while rows := found.fetchmany(table.at_once):
            yield rows

    async def is_empty(self) -> bool:
        (count,) = self._db.execute("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM audit)").fetchone()
        return bool(count == 0)

    async def forget_installation(self) -> None:
        self._db.execute("DELETE FROM installation")

    async def forget_codes(self) -> None:
        self._db.execute(CODES)

    async def integrity(self) -> list[str]:
        found = [str(what) for (what,) in self._db.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    async def rebuild(
        self,
        run_id: str,
        row: Mapping[str, Any],
        hooks: Sequence[Mapping[str, Any]] | None,
        attributes: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        for name, rows in (("hooks", hooks), ("attributes", attributes)):
            if rows is not None:
                self._db.execute(f"DELETE FROM {name} WHERE run_id = ?", (run_id,))  # noqa: S608  # our own names
                for each in rows:
                    table = CopiedTable(name, tuple(each), ())
                    if name == "hooks":
                        self._db.execute("DELETE FROM hooks WHERE id = ?", (each["id"],))
                    await self.add(table, [tuple(each.values())])
        if row:
            columns = ", ".join(f"{name} = ?" for name in row)
            self._db.execute(f"UPDATE runs SET {columns} WHERE id = ?", (*row.values(), run_id))  # noqa: S608

    async def add(self, table: CopiedTable, rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(table.columns))
        columns = ", ".join(table.columns)
        self._db.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", rows)  # noqa: S608
