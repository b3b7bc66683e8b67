"""Group commit for SQLite: calls that arrive while a commit is in progress share the next one.

A commit at `synchronous=FULL` waits for the disk. Twenty callers that each wait for a commit of their own get a
twentieth of the speed; twenty that share one don't notice each other. Each call is still all or nothing on its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

import aiosqlite

from approvals_bot.durable.store.main_file import MainFile
from approvals_bot.errors import StoreReadOnlyError, StoreUnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
_Call = tuple[Work[Any], asyncio.Future[Any]]

PATIENCE = 5.0
"""Seconds that a commit may take before its callers get an error. The web waits for six."""


class SharedConnection(ABC):
    """A connection whose thread executes all calls that came while it was busy as one batch."""

    _USED: ClassVar[str]  # how the error sentence says what isn't possible
    _MAX_BATCH: ClassVar[int] = 200  # calls in one batch: keeps the wait of the first one short

    def __init__(self, connection: aiosqlite.Connection, file: MainFile) -> None:
        self._connection = connection
        self._file = file
        self._queue: deque[_Call] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._running: list[_Call] = []
        self._timer: asyncio.TimerHandle

    def run(self, work: Work[T]) -> asyncio.Future[T]:
        """Do the work in its turn. The future has its result, or its error."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="store: batches")
        return future

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing
        await self._connection.close()

    async def _flush(self) -> None:
        try:
            while batch := self._next():
                self._give_up_later(batch)
                works = [work for work, _ in batch]
                self._running = batch
                try:
                    results = await in_thread(self._connection, partial(self._execute_batch, works))
                except (sqlite3.Error, StoreUnavailableError) as error:
                    results = [self._unavailable(error) for _ in batch]
                finally:
                    self._timer.cancel()
                    self._running = []
                for (_, future), result in zip(batch, results, strict=True):
                    settle(future, self._unavailable(result) if isinstance(result, sqlite3.Error) else result)
        finally:
            self._flushing = None

    def _next(self) -> list[_Call]:
        """Return the next batch. Calls whose callers have gone are left out."""
        batch: list[_Call] = []
        while self._queue and len(batch) < self._MAX_BATCH:
            call = self._queue.popleft()
            if not call[1].done():
                batch.append(call)
        return batch

    def _give_up_later(self, batch: list[_Call]) -> None:
        """Set a timer that fails all waiting calls: a disk that hangs mustn't hang callers."""

        def give_up() -> None:
            for _, future in (*batch, *self._queue):
                settle(future, StoreUnavailableError("The database's disk has not answered in time. Try again."))
            self._give_up_later(batch)

        self._timer = asyncio.get_running_loop().call_later(PATIENCE, give_up)

    @abstractmethod
    def _execute_batch(self, works: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        """Do all of the work, in the connection's thread. Returns each call's result, or the error for its caller."""

    def _unavailable(self, error: sqlite3.Error | StoreUnavailableError) -> StoreUnavailableError:
        if isinstance(error, StoreUnavailableError):
            return error
        is_read_only = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY
        kind = StoreReadOnlyError if is_read_only else StoreUnavailableError
        unavailable = kind(f"The database can't be {self._USED} right now ({error}). Try again.")
        unavailable.__cause__ = error
        return unavailable


class Writer(SharedConnection):
    """The connection that writes, one commit per batch. After a StoreUnavailableError a call may be on disk or not."""

    _USED = "written to"

    def __init__(self, connection: aiosqlite.Connection, file: MainFile, may_checkpoint: Callable[[], bool]) -> None:
        super().__init__(connection, file)
        self._may_checkpoint = may_checkpoint

    async def look(self, work: Work[T]) -> T:
        """Read something on this connection, between two commits, and look at the file."""

        def watched(raw: sqlite3.Connection) -> T:
            self._file.look()
            return work(raw)

        try:
            return await in_thread(self._connection, watched)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _execute_batch(self, works: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        if self._file.is_replaced:
            self._file.look()  # it may have been moved back
        self._file.stamp(raw)
        results = _transact(raw, works)
        # SQLite goes on committing to a file that was deleted or replaced by a backup. The next process that starts
        # never sees those commits, so they mustn't be acknowledged.
        self._file.look()
        if self._file.is_due() and self._may_checkpoint():
            self._file.checkpoint(raw)
        return results


class ReadConnection(SharedConnection):
    """The connection that reads what is on disk, each batch from one consistent snapshot."""

    _USED = "read"

    def _execute_batch(self, works: list[Work[Any]], raw: sqlite3.Connection) -> list[Any]:
        self._file.refuse()
        results: list[Any] = []
        raw.execute("BEGIN")
        try:
            for work in works:
                try:
                    results.append(work(raw))
                except sqlite3.Error as error:
                    results.append(self._unavailable(error))
                except Exception as error:  # noqa: BLE001  # its own caller gets it; the others aren't affected
                    results.append(error)
        finally:
            raw.execute("COMMIT")
        return results


class ListConnection(ReadConnection):
    """The connection that reads what people look at: lists, and logs. No click waits for it.

    Each call has a snapshot of its own: a long one would keep the WAL from being reused. A call whose caller has gone
    is interrupted.
    """

    _MAX_BATCH = 1

    def run(self, work: Work[T]) -> asyncio.Future[T]:
        future = super().run(work)
        future.add_done_callback(self._interrupt_if_gone)
        return future

    def _interrupt_if_gone(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() and self._running and self._running[0][1] is future:
            self._connection._conn.interrupt()


async def in_thread(connection: aiosqlite.Connection, work: Work[T]) -> T:
    """Run a whole transaction on the connection's thread: one hop, not one per statement."""
    if not connection._running or connection._connection is None:
        raise sqlite3.ProgrammingError("it is closed")
    result: T = await connection._execute(partial(work, connection._conn))  # type: ignore[no-untyped-call]
    return result


_OF_THE_DATABASE = (sqlite3.OperationalError, sqlite3.DatabaseError)


def _transact(raw: sqlite3.Connection, works: list[Work[Any]]) -> list[Any]:
    """Execute a batch in one transaction. If one of its calls fails, execute each in a transaction of its own.

    No caller gets an answer before COMMIT has returned: until then, a crash undoes the whole batch. A call that raises
    rolls back the transaction, so the others are executed again; that is safe because they change nothing outside the
    database. After an error of the database itself nothing is repeated: it may be unknown whether the commit took
    place.
    """
    try:
        # IMMEDIATE takes the write lock before anything is read. A deferred transaction reads and compares first. If
        # another process writes before it does, SQLite refuses its write, after the comparison.
        raw.execute("BEGIN IMMEDIATE")
        results = [work(raw) for work in works]
        raw.execute("COMMIT")
    except BaseException as error:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        if type(error) in _OF_THE_DATABASE or not isinstance(error, Exception):
            raise  # disk full, I/O error, locked, malformed: no single call is to blame
        if len(works) == 1:
            return [error]  # its own caller gets it; the others aren't affected
    else:
        return results
    return [result for work in works for result in _transact(raw, [work])]


def settle(future: asyncio.Future[Any], result: Any) -> None:
    """Give a caller its result, or raise it there if it is an error. Does nothing if the caller has gone."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
