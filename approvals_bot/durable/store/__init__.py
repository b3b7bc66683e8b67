"""The store of runs: its protocol, and its implementations on SQLite and PostgreSQL."""

from __future__ import annotations

from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.errors import StoreUnavailableError


async def connect(url: str, *, upgrade: bool = True, to_read: bool = False) -> OpenStore:
    """Open the store at a URL, creating or migrating its schema.

    The URL is `sqlite:///runs.db` (relative), `sqlite:////var/lib/runs.db` (absolute) or `postgresql://…`. Without
    `upgrade`, a missing or older schema is refused (StoreUnavailableError) and left as it is. A store that is opened
    `to_read` refuses to write, too, and leaves no file behind. Raises ValueError for other URLs.
    """
    if url.startswith("sqlite:///"):
        from approvals_bot.durable.store.sqlite import SqliteStore

        return await SqliteStore.open(url.removeprefix("sqlite:///"), upgrade=upgrade, to_read=to_read)
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from approvals_bot.durable.store.postgres import PostgresStore
        except ModuleNotFoundError as error:
            if error.name != "asyncpg":
                raise
            raise StoreUnavailableError(
                "PostgreSQL needs one more package: pip install 'approvals-bot[postgres]'"
            ) from None
        return await PostgresStore.open(url, upgrade=upgrade and not to_read)
    raise ValueError(f"a database URL starts with sqlite:/// or postgresql://, not with {url.split(':', 1)[0]}:")
