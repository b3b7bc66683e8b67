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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import aiosqlite

from approvals_bot.errors import StoreUnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]
_Piece = tuple[Work, asyncio.Future[Any]]

MAX_SHARED = 200  # pieces of work in one commit: keeps the wait of the first one short

PATIENCE = 5.0
"""Seconds that a commit may take before those who wait are told that there is no answer. A person waits for six."""


class Shared(ABC):
    """A connection whose thread does in one go what has come in while it was busy."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._queue: deque[_Piece] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
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
                with self._in_time(shared):
                    results = await self._do([work for work, _ in shared])
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

    @contextmanager
    def _in_time(self, shared: list[_Piece]) -> Iterator[None]:
        """A disk that hangs hangs nobody else: whoever has waited for too long hears so, and so does the queue."""
        self._losing_patience(shared)
        try:
            yield
        finally:
            self._timer.cancel()

    def _losing_patience(self, shared: list[_Piece]) -> None:
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up, shared)

    def _give_up(self, shared: list[_Piece]) -> None:
        for _, future in (*shared, *self._queue):
            settle(future, StoreUnavailableError("The database's disk has not answered in time. Try again."))
        self._losing_patience(shared)

    @abstractmethod
    async def _do(self, shared: list[Work]) -> list[Any]:
        """Do all of it in one go. Gives each one's result, or the error that its caller gets."""


class Writer(Shared):
    """Commits what it does together: StoreUnavailableError says that it may or may not be on disk."""

    def __init__(self, connection: aiosqlite.Connection, path: str) -> None:
        super().__init__(connection)
        self._path = path
        self._file = _file_at(path)

    async def _do(self, shared: list[Work]) -> list[Any]:
        try:
            return await in_thread(self._connection, partial(self._commit, shared))
        except sqlite3.Error as error:
            return [_unavailable(error) for _ in shared]

    def _commit(self, shared: list[Work], raw: sqlite3.Connection) -> list[Any]:
        """A file that was deleted, or replaced by a backup, takes commits as before; but who starts next never sees
        them, so they are no commits to anybody.
        """
        if _file_at(self._path) != self._file:
            raise sqlite3.OperationalError(f"{self._path} was moved, deleted or replaced while it was in use")
        return _transact(raw, shared)

    async def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read something on this connection, between two commits."""
        try:
            return await in_thread(self._connection, work)
        except sqlite3.Error as error:
            raise _unavailable(error) from error


class ReadConnection(Shared):
    """Reads what is on disk, each piece of work in one consistent look."""

    async def _do(self, shared: list[Work]) -> list[Any]:
        try:
            return await in_thread(self._connection, lambda raw: _look(raw, shared))
        except sqlite3.Error as error:
            return [_unreadable(error) for _ in shared]


def _file_at(path: str) -> tuple[int, int] | None:
    """Which file it is that has this name now."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def in_thread(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run a whole transaction on the connection's thread: one hop instead of one for each statement."""
    if not connection._running or connection._connection is None:
        raise sqlite3.ProgrammingError("it is closed")
    result: T = await connection._execute(  # type: ignore[no-untyped-call]
        lambda: work(connection._conn)
    )
    return result


def _transact(raw: sqlite3.Connection, shared: list[Work]) -> list[Any]:
    """Do all pieces in one transaction; if one of them fails by its own fault, each in a transaction of its own.

    Nobody is answered before the COMMIT has returned: until then a crash undoes all pieces together. A piece that
    raises takes the transaction with it, so the others are done again, from the state before; the functions that do
    the work keep nothing outside the database. An error of the database itself is nobody's fault and repeats nothing:
    whether such a commit took place may be unknown.
    """
    try:
        return _in_one(raw, shared)
    except sqlite3.OperationalError:
        raise  # disk full, I/O error, locked: it is nobody's own fault
    except Exception as error:  # noqa: BLE001  # its own caller hears of it; the others go on
        if len(shared) == 1:
            return [error]
    return [result for work in shared for result in _transact(raw, [work])]


def _in_one(raw: sqlite3.Connection, shared: list[Work]) -> list[Any]:
    # IMMEDIATE takes the write lock before anything is read. A deferred transaction that reads, compares and then wants
    # to write may find that another process has written since: SQLite refuses it then, after the comparison.
    raw.execute("BEGIN IMMEDIATE")
    try:
        results = [work(raw) for work in shared]
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
    return results


def _look(raw: sqlite3.Connection, shared: list[Work]) -> list[Any]:
    raw.execute("BEGIN")
    try:
        return [_read(raw, work) for work in shared]
    finally:
        raw.execute("COMMIT")


def _read(raw: sqlite3.Connection, work: Work) -> Any:
    try:
        return work(raw)
    except sqlite3.Error as error:
        return _unreadable(error)
    except Exception as error:  # noqa: BLE001  # its own caller hears of it; the others go on
        return error


def _unreadable(error: sqlite3.Error) -> StoreUnavailableError:
    unavailable = StoreUnavailableError(f"The database can't be read right now ({error}). Try again.")
    unavailable.__cause__ = error
    return unavailable


def _unavailable(error: sqlite3.Error) -> StoreUnavailableError:
    unavailable = StoreUnavailableError(f"The database can't be written to right now ({error}). Try again.")
    unavailable.__cause__ = error
    return unavailable


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give its caller the result, or raise it there if it is an error; a caller who has gone is left in peace."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
