"""Restoring into PostgreSQL: what was there before is kept in a schema of another name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
from asyncpg import Connection

from approvals_bot.durable.store.postgres_connection import NO_LIMITS, connect_to, place
from approvals_bot.durable.store.postgres_tables import SERVICES
from approvals_bot.errors import StoreCopyError, StoreUnavailableError

_START = 5.0  # seconds
_COUNT = "SELECT (SELECT count(*) FROM (SELECT 1 FROM runs LIMIT 1) AS one) + (SELECT count(*) FROM audit)"


@asynccontextmanager
async def moved_aside(url: str, at: datetime, *, replace: bool) -> AsyncIterator[str | None]:
    """Have an empty schema for the block. Yields the name of the schema that has what was there; None if nothing was.

    If the block fails, all is as before. Raises StoreCopyError if a service is connected, or if the database isn't
    empty and `replace` isn't set.
    """
    schema, aside = await _prepare(url, at, replace=replace)
    try:
        yield aside
    except BaseException:
        if aside is not None:
            async with _connected(url) as connection, connection.transaction():
                await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
                await connection.execute(f'ALTER SCHEMA "{aside}" RENAME TO "{schema}"')
        raise


async def _prepare(url: str, at: datetime, *, replace: bool) -> tuple[str, str | None]:
    """Return the name of our schema, which is empty now, and of the one that has what was there."""
    async with _connected(url) as connection, connection.transaction():
        if await connection.fetchval(SERVICES):
            raise StoreCopyError(f"A service is using the database {place(url)}. Stop it first. Nothing was touched.")
        schema, is_empty = await _look_at(connection)
        if is_empty:
            return schema, None
        if not replace:
            raise StoreCopyError(
                f"The database {place(url)} isn't empty, so nothing was restored. `--replace` moves what is there "
                "into another schema; nothing of it is deleted."
            )
        aside = f"{schema}_before_{at:%Y%m%dt%H%M%Sz}"
        await connection.execute(f'ALTER SCHEMA "{schema}" RENAME TO "{aside}"')
        await connection.execute(f'CREATE SCHEMA "{schema}"')
        return schema, aside


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Connection]:
    connection = await connect_to(url, seconds=_START, settings=NO_LIMITS)
    try:
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be prepared for this: {error}") from None
    finally:
        await connection.close()


async def _look_at(connection: Connection) -> tuple[str, bool]:
    """Return the name of our schema, and whether it has no runs and no audit."""
    schema, is_there = await connection.fetchrow("SELECT current_schema(), to_regclass('runs') IS NOT NULL")
    return str(schema), not is_there or not await connection.fetchval(_COUNT)
