"""The schema of a PostgreSQL database: numbered files, each applied once, by the first replica that starts."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources

import asyncpg
from asyncpg import Connection

from approvals_bot.durable.store.postgres_connection import connect_to, place
from approvals_bot.durable.store.protocol import SCHEMA_IS_OLDER
from approvals_bot.errors import StoreMissingError, StoreUnavailableError

_TURN = 7_165_904_210_112_233  # our advisory lock: any number that nobody else uses in this database
TRIES = 10  # while others hold locks, a second apart (deadlock_timeout): even busy replicas let one through
_VERSION = "SELECT coalesce(max(version), 0) FROM schema_versions"


@cache
def migrations() -> list[tuple[str, str]]:
    """Return the name and text of each file, in order. A file's number is the schema's version after it."""
    folder = resources.files("approvals_bot.durable.store") / "migrations"
    files = sorted((f.name, f) for f in folder.iterdir() if f.name.endswith(".postgres.sql"))
    return [(name, file.read_text(encoding="utf-8")) for name, file in files]


async def migrate(connection: Connection, url: str, *, upgrade: bool = True) -> None:
    """Apply the missing files in one transaction. Of replicas that start at once, one does so and the others wait.

    Raises StoreUnavailableError if the schema is newer than this program or can't be changed. Without `upgrade`, also
    if it is older or there is none.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            await _apply(connection, url, upgrade=upgrade)
            return
        except asyncpg.DeadlockDetectedError as error:
            # Replicas at work lock the tables in an order of their own, which isn't that of this file. Nothing was
            # applied, and the transaction in the way is over by the next try.
            if not tries_left:
                raise StoreUnavailableError(f"The database {place(url)} can't be brought up to date: {error}") from None


async def _apply(connection: Connection, url: str, *, upgrade: bool) -> None:
    """Apply the missing files, in one try. A deadlock is raised as it is, so the caller can try again."""
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _TURN)
            if upgrade:
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, file TEXT)"
                )
            elif not await connection.fetchval("SELECT to_regclass('schema_versions')::text"):
                raise StoreMissingError(place(url))
            version = await connection.fetchval(_VERSION)
            if version > len(migrations()):
                raise StoreUnavailableError(
                    f"The database {place(url)} has schema {version}, but this program knows only {len(migrations())}; "
                    "run the newer program."
                )
            if version < len(migrations()) and not upgrade:
                older = SCHEMA_IS_OLDER.format(version=version, current=len(migrations()))
                raise StoreUnavailableError(f"The database {place(url)} can't be used: {older}.")
            for number, (name, script) in enumerate(migrations()[version:], version + 1):
                await connection.execute(script)
                await connection.execute("INSERT INTO schema_versions VALUES ($1, $2)", number, name)
    except asyncpg.DeadlockDetectedError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be brought up to date: {error}") from None


async def installation_of(connection: Connection, url: str) -> str:
    """Return the ID of the installation that a migrated database belongs to. Raises StoreUnavailableError."""
    try:
        found = await connection.fetchval("SELECT id FROM installation")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be read: {error}") from None
    if not found:
        raise StoreUnavailableError(f"The database {place(url)} doesn't say which installation it belongs to.")
    return str(found)


VERSION_AND_WRITABLE = f"SELECT ({_VERSION}), NOT current_setting('transaction_read_only')::boolean"


def judge(version: int, is_writable: bool) -> None:
    """Raise StoreUnavailableError unless this schema and this server can take writes.

    A schema that a newer replica has applied is fine for the replicas that are running: each schema also works for the
    program before it.
    """
    if version < len(migrations()):
        raise StoreUnavailableError(f"The database has schema {version}, this program needs {len(migrations())}.")
    if not is_writable:
        raise StoreUnavailableError("The database takes no writes: it is a standby, or in recovery.")


_START = 5.0  # seconds that the connection may take
_HEARD = 1.0  # seconds that a NOTIFY may take; it takes a millisecond


@dataclass(frozen=True, slots=True)
class Examined:
    """What `examine` found. `hears` is whether a NOTIFY arrives; the standbys are those connected now.

    `ahead`: seconds by which the server's clock is ahead of ours.
    """

    version: str
    fsync: bool
    synchronous_standbys: tuple[str, ...]
    asynchronous_standbys: tuple[str, ...]
    hears: bool
    ahead: float


async def examine(url: str) -> Examined:
    """Examine a server's settings and standbys, for `doctor`. Writes nothing. Raises StoreUnavailableError."""
    connection = await connect_to(url, seconds=_START)
    try:
        version, fsync, now = await connection.fetchrow(
            "SELECT current_setting('server_version'), current_setting('fsync') <> 'off', clock_timestamp()"
        )
        standbys = await connection.fetch("SELECT application_name, sync_state FROM pg_stat_replication")
        return Examined(
            str(version),
            bool(fsync),
            tuple(name for name, state in standbys if state in ("sync", "quorum")),
            tuple(name for name, state in standbys if state in ("async", "potential")),
            await _hears(connection, url),
            (now - datetime.now(UTC)).total_seconds(),
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be examined: {error}") from None
    finally:
        await connection.close()


async def _hears(listening: asyncpg.Connection, url: str) -> bool:
    heard = asyncio.Event()
    channel = f"approvals_bot_{secrets.token_hex(4)}"
    await listening.add_listener(channel, lambda *_: heard.set())
    other = await connect_to(url, seconds=_START)
    try:
        await other.execute(f"NOTIFY {channel}")
        async with asyncio.timeout(_HEARD):
            await heard.wait()
    except TimeoutError:
        return False
    finally:
        await other.close()
        await listening.reset()
    return True
