"""A PostgreSQL database as the source or the target of a copy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
from asyncpg import Connection

from approvals_bot.errors import StoreCopyError, StoreUnavailableError
from approvals_bot.store.postgres_line import connect_to, place
from approvals_bot.store.postgres_pieces import labels, waiting_for
from approvals_bot.store.tables import ROWS_AT_ONCE, Row, Table

_BOOLEANS = {"is_webhook", "has_schema", "is_live"}  # numbers in SQLite
_SERVICES = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'approvals-bot' AND datname = current_database() AND pid <> pg_backend_pid()"""
_START = 5.0  # seconds


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[_PostgresTables]:
    """In one transaction, which is committed at the end of the block. StoreCopyError if a service is connected."""
    connection = await connect_to(url, seconds=_START, patient=True)
    try:
        if await connection.fetchval(_SERVICES):
            raise StoreCopyError(
                f"A service works on the database {place(url)}. Stop it first: what it writes now would be missing."
            )
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("LOCK TABLE runs, events, hooks, audit IN EXCLUSIVE MODE")
            yield _PostgresTables(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} could not be copied: {error}") from None
    finally:
        await connection.close()


class _PostgresTables:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, table: Table) -> AsyncIterator[Sequence[Row]]:
        columns = ", ".join(f"{name}::int" if name in _BOOLEANS else name for name in table.columns)
        key = ", ".join(
            f'{name} COLLATE "C"' if name != "seq" else name for name in table.key
        )  # as SQLite orders texts
        found = await self._connection.cursor(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608
        while rows := await found.fetch(ROWS_AT_ONCE):
            yield [tuple(row) for row in rows]

    async def is_empty(self) -> bool:
        count = await self._connection.fetchval("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM audit)")
        return bool(count == 0)

    async def add(self, table: Table, rows: Sequence[Row]) -> None:
        columns = table.columns + (("labels", "waiting_for") if table.name == "runs" else ())
        records = [self._record(table, row) for row in rows]
        await self._connection.copy_records_to_table(table.name, records=records, columns=columns)

    def _record(self, table: Table, row: Row) -> Row:
        given = dict(zip(table.columns, row, strict=True))
        given |= {name: bool(value) for name, value in given.items() if name in _BOOLEANS}
        if table.name == "runs":
            view = None if given["view"] is None else json.loads(given["view"])
            given |= {"labels": labels(json.loads(given["attributes"])), "waiting_for": waiting_for(view)}
        return tuple(given.values())
