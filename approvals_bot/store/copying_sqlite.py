"""A SQLite file as the source or the target of a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from approvals_bot.errors import StoreCopyError
from approvals_bot.store.sole_owner import SoleOwner
from approvals_bot.store.tables import ROWS_AT_ONCE, Row, Table


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[_SqliteTables]:
    """In one transaction, which is committed at the end of the block. StoreCopyError if a service works on the file."""
    owner = SoleOwner(Path(path + ".lock"))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        if not owner.acquire():
            raise StoreCopyError(f"A service is working on {path}. Stop it first: what it writes now would be missing.")
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

    async def rows(self, table: Table) -> AsyncIterator[Sequence[Row]]:
        columns, key = ", ".join(table.columns), ", ".join(table.key)
        found = self._db.execute(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608  # our own names
        while rows := found.fetchmany(ROWS_AT_ONCE):
            yield rows

    async def is_empty(self) -> bool:
        (count,) = self._db.execute("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM audit)").fetchone()
        return bool(count == 0)

    async def add(self, table: Table, rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(table.columns))
        columns = ", ".join(table.columns)
        self._db.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", rows)  # noqa: S608
