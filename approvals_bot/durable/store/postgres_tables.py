"""The tables that a copy takes along, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from asyncpg import Connection

from approvals_bot.durable.store.copying_tables import CODES, TABLES, CopiedTable, Row
from approvals_bot.durable.store.postgres_connection import NO_LIMITS, connect_to, place
from approvals_bot.errors import StoreCopyError, StoreUnavailableError

_BOOLEANS = {"is_webhook", "has_schema", "is_live"}  # numbers in SQLite
_NUMBERS = {"seq", "one", "number"}  # of the keys
SERVICES = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'approvals-bot' AND datname = current_database() AND pid <> pg_backend_pid()"""
_START = 5.0  # seconds


@asynccontextmanager
async def opened_postgres(url: str) -> AsyncIterator[PostgresTables]:
    """Open a database's tables in one transaction, which commits when the block ends.

    Raises StoreCopyError if a service is connected.
    """
    connection = await connect_to(url, seconds=_START, settings=NO_LIMITS)
    try:
        if await connection.fetchval(SERVICES):
            raise StoreCopyError(
                f"A service is using the database {place(url)}. Stop it first: the copy would miss what it writes now."
            )
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("SET LOCAL approvals_bot.copying = 'on'")
            tables = ", ".join(table.name for table in TABLES)
            await connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
            yield PostgresTables(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} could not be copied: {error}") from None
    finally:
        await connection.close()


@asynccontextmanager
async def postgres_beside(url: str) -> AsyncIterator[PostgresTables]:
    """Open a database's tables in one snapshot, beside the service. Nothing is written."""
    connection = await connect_to(url, seconds=_START, settings=NO_LIMITS)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield PostgresTables(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be read: {error}") from None
    finally:
        await connection.close()


class PostgresTables:
    """A database's tables, as the protocol `Copyable` says."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def rows(self, table: CopiedTable) -> AsyncIterator[Sequence[Row]]:
        columns = ", ".join(f"{name}::int" if name in _BOOLEANS else name for name in table.columns)
        key = ", ".join(
            name if name in _NUMBERS else f'{name} COLLATE "C"' for name in table.key
        )  # as SQLite orders texts
        found = await self._connection.cursor(f"SELECT {columns} FROM {table.name} ORDER BY {key}")  # noqa: S608
        while rows := await found.fetch(table.at_once):
            yield [tuple(row) for row in rows]

    async def is_empty(self) -> bool:
        count = await self._connection.fetchval("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM audit)")
        return bool(count == 0)

    async def forget_installation(self) -> None:
        await self._connection.execute("DELETE FROM installation")

    async def forget_codes(self) -> None:
        await self._connection.execute(CODES)

    async def integrity(self) -> list[str]:
        return []

    async def rebuild(
        self,
        run_id: str,
        row: Mapping[str, Any],
        hooks: Sequence[Mapping[str, Any]] | None,
        attributes: Sequence[Mapping[str, Any]] | None,
    ) -> None:
        for name, rows in (("hooks", hooks), ("attributes", attributes)):
            if rows is not None:
                await self._connection.execute(f"DELETE FROM {name} WHERE run_id = $1", run_id)  # noqa: S608
                for each in rows:
                    if name == "hooks":
                        await self._connection.execute("DELETE FROM hooks WHERE id = $1", each["id"])
                    await self.add(CopiedTable(name, tuple(each), ()), [tuple(each.values())])
        if row:
            columns = ", ".join(f"{name} = ${number}" for number, name in enumerate(row, 2))
            await self._connection.execute(f"UPDATE runs SET {columns} WHERE id = $1", run_id, *row.values())  # noqa: S608

    async def add(self, table: CopiedTable, rows: Sequence[Row]) -> None:
        records = [self._record(table, row) for row in rows]
        await self._connection.copy_records_to_table(table.name, records=records, columns=table.columns)

    def _record(self, table: CopiedTable, row: Row) -> Row:
        given = zip(table.columns, row, strict=True)
        return tuple(bool(value) if name in _BOOLEANS else value for name, value in given)
