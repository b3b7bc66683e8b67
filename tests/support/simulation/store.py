"""The real SQLite store in the simulation: its SQL, its transactions, its sharing of commits. Only the thread is not
there: a connection does its work on the loop, after a while that the seed chooses, and the seed decides what goes
wrong on the way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import aiosqlite

from approvals_bot.durable.core.events import Log
from approvals_bot.durable.store import sqlite, sqlite_reading
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.group_commit import Writer
from approvals_bot.durable.store.main_file import MainFile
from approvals_bot.durable.store.protocol import Append, Appended, Fenced, OpenStore, Stale
from approvals_bot.durable.store.sqlite import SoleOwner, SqliteStore
from tests.support.simulation.auditor import Auditor
from tests.support.simulation.loop import Process, virtual_loop

T = TypeVar("T")

INSTALLATION = "simulated"
TABLES = (
    *("chain", "events", "hooks", "taken", "attributes", "runs", "schedules", "counters", "sessions", "replicas"),
    "audit",
)


class Mishap(Exception):
    """The seed's: the database has not carried it out, or its answer is lost."""


class Fate(Protocol):
    """What may happen to a process at its database."""

    process: Process

    async def before(self, *, writes: bool) -> None:
        """Takes its time. May raise Mishap, or never return."""

    async def after(self, *, writes: bool) -> None:
        """As `before`, when the work is done and its result is on the way."""

    def committed(self, notes: list[Any]) -> None:
        """This has become durable just now."""

    def arrives(self, deliver: Callable[[str], None], message: str) -> None:
        """Deliver another process's message after a while, or, now and then, not at all."""

    def judge(self, batch: Append, result: Appended | Stale | Fenced) -> None:
        """Look at what came of an append."""


class Database(Protocol):
    """What all nodes of a world share. It is emptied between seeds, not created again."""

    def clear(self) -> None: ...

    def close(self) -> None: ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...

    def log(self, run_id: str) -> Log: ...

    def store(self, node: int, fate: Fate, auditor: Auditor, holders: set[object]) -> OpenStore:
        """The store of one simulated process."""


class SqliteDatabase:
    """One database in memory, and a connection for each node. Statements stay prepared from seed to seed."""

    _numbers = count()

    def __init__(self, nodes: int) -> None:
        path = f"file:simulation-{next(self._numbers)}?mode=memory&cache=shared"
        self._connections = [
            sqlite3.connect(path, uri=True, isolation_level=None, cached_statements=256) for _ in range(nodes)
        ]
        self._bearers = [Bearers() for _ in self._connections]
        for connection, bearers in zip(self._connections, self._bearers, strict=True):
            bearers.register(connection)
        sqlite._migrate(self._connections[0])

    def clear(self) -> None:
        for table in TABLES:
            self._connections[0].execute(f"DELETE FROM {table}")  # noqa: S608  # our own names

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._connections[0].execute(sql).fetchall()

    def log(self, run_id: str) -> Log:
        found = sqlite_reading.run_and_log(self._connections[0], run_id, 0)
        assert found is not None
        return found[1]

    def store(self, node: int, fate: Fate, auditor: Auditor, holders: set[object]) -> OpenStore:
        lock = SharedLock(holders, lambda other: isinstance(other, Process) and not other.is_dead, fate.process)
        return SimulatedStore(self._connections[node], self._bearers[node], fate, auditor.look, lock)


class InlineConnection:
    """A replacement for aiosqlite's connection, without its thread."""

    def __init__(self, raw: sqlite3.Connection, fate: Fate, *, writes: bool) -> None:
        self._running = True
        self._connection = self._conn = raw
        self._fate = fate
        self._writes = writes
        self.notes: list[Any] = []

    async def _execute(self, work: Callable[[], T]) -> T:
        try:
            await self._fate.before(writes=self._writes)
            self.notes.clear()
            result = work()
            if self.notes:
                self._fate.committed(self.notes)
            await self._fate.after(writes=self._writes)
        except Mishap as mishap:
            raise sqlite3.OperationalError(f"disk I/O error ({mishap})") from None
        return result

    async def close(self) -> None:
        self._running = False


class WatchedWriter(Writer):
    """Notes what each piece of work has changed; the notes count once the commit is done."""

    def __init__(self, connection: InlineConnection, look: Callable[[sqlite3.Connection], Any]) -> None:
        raw = cast(aiosqlite.Connection, connection)  # it has all that is used of one
        super().__init__(raw, MainFile("simulated"), lambda: False)
        self._notes = connection.notes
        self._look = look

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        def watched(db: sqlite3.Connection) -> T:
            result = work(db)
            self._notes.append(self._look(db))
            return result

        return super().run(watched)


class SharedLock(SoleOwner):
    """The advisory lock of the processes that work on the database: gone when its holder dies."""

    def __init__(self, holders: set[object], is_alive: Callable[[object], bool], me: object) -> None:
        super().__init__(Path("simulated"))
        self._holders = holders
        self._is_alive = is_alive
        self._me = me

    def acquire(self) -> bool:
        alone = not any(self._is_alive(other) for other in self._holders)
        self._holders.add(self._me)
        return alone

    def share(self) -> None:
        """Nobody waits for it here."""

    def release(self) -> None:
        self._holders.discard(self._me)


class SimulatedStore(SqliteStore):
    """The store of one simulated process."""

    def __init__(
        self,
        raw: sqlite3.Connection,
        bearers: Bearers,
        fate: Fate,
        look: Callable[[sqlite3.Connection], Any],
        lock: SharedLock,
    ) -> None:
        writing, reading = InlineConnection(raw, fate, writes=True), InlineConnection(raw, fate, writes=False)
        reader = cast(aiosqlite.Connection, reading)
        super().__init__("simulated", INSTALLATION, bearers, cast(aiosqlite.Connection, writing), reader, reader)
        self._writer = WatchedWriter(writing, look)
        self._sole_owner = lock
        self._fate = fate
        self._loop = virtual_loop()

    async def close(self) -> None:
        """Close the store. Nothing, if its world is over and this process is thrown away wherever it waits."""
        if not self._loop.is_over:
            await super().close()

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        result = await super().append(batch)
        self._fate.judge(batch, result)
        return result


async def never() -> None:
    """What a dead process waits for."""
    await asyncio.get_running_loop().create_future()
