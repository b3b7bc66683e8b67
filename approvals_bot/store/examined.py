"""What `doctor` wants to know of a PostgreSQL server."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

import asyncpg

from approvals_bot.errors import StoreUnavailableError
from approvals_bot.store.postgres_line import connect_to, place

_START = 5.0  # seconds that the connection may take
_HEARD = 1.0  # seconds that a NOTIFY may take; it takes a millisecond


@dataclass(frozen=True, slots=True)
class Examined:
    """`hears`: a NOTIFY arrives. Standbys are those that are connected now."""

    version: str
    fsync: bool
    synchronous_standbys: tuple[str, ...]
    asynchronous_standbys: tuple[str, ...]
    hears: bool


async def examine(url: str) -> Examined:
    """StoreUnavailableError if it can't be asked. Writes nothing."""
    connection = await connect_to(url, seconds=_START)
    try:
        version, fsync = await connection.fetchrow(
            "SELECT current_setting('server_version'), current_setting('fsync') <> 'off'"
        )
        standbys = await connection.fetch("SELECT application_name, sync_state FROM pg_stat_replication")
        return Examined(
            str(version),
            bool(fsync),
            tuple(name for name, state in standbys if state in ("sync", "quorum")),
            tuple(name for name, state in standbys if state in ("async", "potential")),
            await _hears(connection, url),
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StoreUnavailableError(f"The database {place(url)} can't be asked: {error}") from None
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
