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

from approvals_bot.store import Append, Appended, Fenced, Stale, sqlite
from approvals_bot.store.group_commit import Writer
from approvals_bot.store.sole_owner import SoleOwner
from approvals_bot.store.sqlite import SqliteStore

T = TypeVar("T")

TABLES = ("events", "hooks", "runs", "audit")


class Database:
    """One database in memory, and a connection for each node. It is emptied between seeds, not made anew: statements
    stay prepared."""

    _numbers = count()

    def __init__(self, nodes: int) -> None:
        path = f"file:simulation-{next(self._numbers)}?mode=memory&cache=shared"
        self.connections = [
            sqlite3.connect(path, uri=True, isolation_level=None, cached_statements=256) for _ in range(nodes)
        ]
        sqlite._migrate(self.connections[0])

    def clear(self) -> None:
        for table in TABLES:
            self.connections[0].execute(f"DELETE FROM {table}")  # noqa: S608  # our own names

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


class Fate(Protocol):
    """What may happen to a process at its database."""

    async def before(self, *, writes: bool) -> None:
        """Takes its time. May raise sqlite3.OperationalError, or never return."""

    async def after(self, *, writes: bool) -> None:
        """As `before`, when the work is done and its result is on the way."""

    def committed(self, notes: list[Any]) -> None:
        """This has become durable just now."""


class InlineConnection:
    """Stands where aiosqlite's connection stands, without its thread."""

    def __init__(self, raw: sqlite3.Connection, fate: Fate, *, writes: bool) -> None:
        self._running = True
        self._connection = self._conn = raw
        self._fate = fate
        self._writes = writes
        self.notes: list[Any] = []

    async def _execute(self, work: Callable[[], T]) -> T:
        await self._fate.before(writes=self._writes)
        self.notes.clear()
        result = work()
        if self.notes:
            self._fate.committed(self.notes)
        await self._fate.after(writes=self._writes)
        return result

    async def close(self) -> None:
        self._running = False


class WatchedWriter(Writer):
    """Notes what each piece of work has changed; the notes count once the commit is done."""

    def __init__(self, connection: InlineConnection, look: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__(cast(aiosqlite.Connection, connection))  # it has all that is used of one
        self._notes = connection.notes
        self._look = look

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def watched(db: sqlite3.Connection) -> T:
            result = work(db)
            self._notes.append(self._look(db))
            return result

        return await super().run(watched)


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
        fate: Fate,
        look: Callable[[sqlite3.Connection], Any],
        lock: SharedLock,
        tell: Callable[[Append, Appended | Stale | Fenced], None],
    ) -> None:
        writing, reading = InlineConnection(raw, fate, writes=True), InlineConnection(raw, fate, writes=False)
        super().__init__("simulated", cast(aiosqlite.Connection, writing), cast(aiosqlite.Connection, reading))
        self._writer = WatchedWriter(writing, look)
        self._sole_owner = lock
        self._tell = tell

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        result = await super().append(batch)
        self._tell(batch, result)
        return result


async def never() -> None:
    """What a dead process waits for."""
    await asyncio.get_running_loop().create_future()
