"""One SQLite connection that writes for everybody: whoever comes while a commit is under way shares the next one.

A commit at `synchronous=FULL` waits for the disk. Twenty callers that each wait for their own get a twentieth of the
speed; twenty that share one don't notice each other. Each piece of work still is all or nothing by itself.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

import aiosqlite

from approvals_bot.errors import StoreUnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_Piece = tuple[Work[Any], asyncio.Future[Any]]

MAX_SHARED = 200  # pieces of work in one commit: keeps the wait of the first one short

PATIENCE = 5.0
"""Seconds that a commit may take before those who wait are told that there is no answer. A person waits for six."""


class Shared(ABC):
    """A connection whose thread does in one go what has come in while it was busy."""

    _USED: ClassVar[str]  # what can't be done with the database while it is unavailable

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._queue: deque[_Piece] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle

    def run(self, work: Work[T]) -> asyncio.Future[T]:
        """Do the work in its turn."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="store: shared work")
        return future

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing
        await self._connection.close()

    async def _flush(self) -> None:
        try:
            while shared := self._next():
                self._lose_patience_later(shared)
                works = [work for work, _ in shared]
                try:
                    results = await in_thread(self._connection, partial(self._do, works))
                except sqlite3.Error as error:
                    results = [self._unavailable(error) for _ in shared]
                finally:
                    self._timer.cancel()
                for (_, future), result in zip(shared, results, strict=True):
                    settle(future, result)
        finally:
            self._flushing = None

    def _next(self) -> list[_Piece]:
        """What is done together. What nobody waits for any more is not done."""
        taken: list[_Piece] = []
        while self._queue and len(taken) < MAX_SHARED:
            piece = self._queue.popleft()
            if not piece[1].done():
                taken.append(piece)
        return taken

    def _lose_patience_later(self, shared: list[_Piece]) -> None:
        """A disk that hangs hangs nobody else: who has waited for too long hears so, and so does the queue."""

        def give_up() -> None:
            for _, future in (*shared, *self._queue):
                settle(future, StoreUnavailableError("The database's disk has not answered in time. Try again."))
            self._lose_patience_later(shared)

        self._timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)

    @abstractmethod
    def _do(self, shared: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        """Do all of it in one go, in the thread. Gives each one's result, or the error that its caller gets."""

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailableError:
        unavailable = StoreUnavailableError(f"The database can't be {self._USED} right now ({error}). Try again.")
        unavailable.__cause__ = error
        return unavailable


class Writer(Shared):
    """Commits what it does together: StoreUnavailableError says that it may or may not be on disk."""

    _USED = "written to"

    def __init__(self, connection: aiosqlite.Connection, path: str) -> None:
        super().__init__(connection)
        self._path = path
        self._file = _file_at(path)

    async def look(self, work: Work[T]) -> T:
        """Read something on this connection, between two commits."""
        try:
            return await in_thread(self._connection, work)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _do(self, shared: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        """A file that was deleted, or replaced by a backup, takes commits as before. But a process that starts next
        never sees them, so they are no commits to anybody.
        """
        if _file_at(self._path) != self._file:
            raise sqlite3.OperationalError(f"{self._path} was moved, deleted or replaced while it was in use")
        return _transact(raw, shared)


class ReadConnection(Shared):
    """Reads what is on disk, each piece of work in one consistent look."""

    _USED = "read"

    def _do(self, shared: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        results: list[Any] = []
        raw.execute("BEGIN")
        try:
            for work in shared:
                try:
                    results.append(work(raw))
                except sqlite3.Error as error:
                    results.append(self._unavailable(error))
                except Exception as error:  # noqa: BLE001  # its own caller hears of it; the others go on
                    results.append(error)
        finally:
            raw.execute("COMMIT")
        return results


def _file_at(path: str) -> tuple[int, int] | None:
    """Which file it is that has this name now."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def in_thread(connection: aiosqlite.Connection, work: Work[T]) -> T:
    """Run a whole transaction on the connection's thread: one hop instead of one for each statement."""
    if not connection._running or connection._connection is None:
        raise sqlite3.ProgrammingError("it is closed")
    result: T = await connection._execute(partial(work, connection._conn))  # type: ignore[no-untyped-call]
    return result


def _transact(raw: sqlite3.Connection, shared: list[Work[Any]]) -> list[Any]:
    """Do all pieces in one transaction; if one of them fails by its own fault, each in a transaction of its own.

    Nobody is answered before the COMMIT has returned: until then a crash undoes all pieces together. A piece that
    raises takes the transaction with it, so the others are done again; they keep nothing outside the database. An error
    of the database itself repeats nothing: whether such a commit took place may be unknown.
    """
    try:
        # IMMEDIATE takes the write lock before anything is read. A deferred transaction that reads, compares and then
        # wants to write may find that another process has written since: SQLite refuses it then, after the comparison.
        raw.execute("BEGIN IMMEDIATE")
        results = [work(raw) for work in shared]
        raw.execute("COMMIT")
    except BaseException as error:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) or not isinstance(error, Exception):
            raise  # disk full, I/O error, locked: it is nobody's own fault
        if len(shared) == 1:
            return [error]  # its own caller hears of it; the others go on
    else:
        return results
    return [result for work in shared for result in _transact(raw, [work])]


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give its caller the result, or raise it there if it is an error; a caller who has gone is left in peace."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
