"""Restoring into PostgreSQL: what was there before is kept in a schema of another name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
from asyncpg import Connection

from approvals_bot.durable.store.postgres_connection import NO_LIMITS, connect_to, place
from approvals_bot.durable.store.postgres_tables import SERVICES
from approvals_bot.errors import StoreCopyError, StoreUnavailableError

_START = 5.0  # seconds
_COUNT = "SELECT (SELECT count(*) FROM (SELECT 1 FROM runs LIMIT 1) AS one) + (SELECT count(*) FROM audit)"
_NEW = "{schema}_being_restored"


@dataclass(frozen=True, slots=True)
class Replacement:
    """Where a backup is restored to: our schema, if it is empty, else another one that takes its place in the end.

    The schemas change their names in one transaction. However the process dies, ours is the old one or the new one.
    """

    url: str  # of the schema to write into
    schema: str
    _of: str  # the URL of our schema
    _at: datetime
    _replaces: bool

    @classmethod
    async def prepare(cls, url: str, at: datetime, *, replace: bool) -> Replacement:
        """Raise StoreCopyError if a service is connected, or if the database isn't empty and `replace` isn't set."""
        async with _connected(url) as connection, connection.transaction():
            await _refuse_services(connection, url)
            schema, is_empty = await _look_at(connection)
            if is_empty:
                return cls(url, schema, url, at, False)
            if not replace:
                raise StoreCopyError(
                    f"The database {place(url)} isn't empty, so nothing was restored. `--replace` moves what is there "
                    "into another schema; nothing of it is deleted."
                )
            new = _NEW.format(schema=schema)
            await connection.execute(f'DROP SCHEMA IF EXISTS "{new}" CASCADE')  # of a restore whose process died
            await connection.execute(f'CREATE SCHEMA "{new}"')
            return cls(_within(url, new), schema, url, at, True)

    async def put_in_place(self) -> str | None:
        """Let the new schema be ours. Returns the name that the old one has now; None if ours was empty."""
        if not self._replaces:
            return None
        aside = f"{self.schema}_before_{self._at:%Y%m%dt%H%M%Sz}"
        async with _connected(self._of) as connection, connection.transaction():
            await _refuse_services(connection, self._of)
            await connection.execute(f'ALTER SCHEMA "{self.schema}" RENAME TO "{aside}"')
            await connection.execute(f'ALTER SCHEMA "{_NEW.format(schema=self.schema)}" RENAME TO "{self.schema}"')
        return aside

    async def give_up(self) -> None:
        """Delete what was restored. Our schema is as it was."""
        if self._replaces:
            async with _connected(self._of) as connection:
                await connection.execute(f'DROP SCHEMA IF EXISTS "{_NEW.format(schema=self.schema)}" CASCADE')


def _within(url: str, schema: str) -> str:
    """Return the URL of a database, for this schema of it."""
    parts = urlsplit(url)
    given = [(name, value) for name, value in parse_qsl(parts.query) if name != "search_path"]
    return urlunsplit(parts._replace(query=urlencode([*given, ("search_path", f'"{schema}"')])))


async def _refuse_services(connection: Connection, url: str) -> None:
    if await connection.fetchval(SERVICES):
        raise StoreCopyError(f"A service is using the database {place(url)}. Stop it first. Nothing was touched.")


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
