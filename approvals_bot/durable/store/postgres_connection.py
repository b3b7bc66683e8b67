"""Connections to PostgreSQL that reconnect, and never keep a caller waiting for long.

The server may be stopped, fail over, or go silent; none of that may hang a click. So every call has a time limit on
this side, whatever the network does, and another one on the server.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from asyncpg import Connection
from pydantic_core import to_json

from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.group_commit import settle
from approvals_bot.errors import StoreUnavailableError

CALL = 2.0
"""Seconds that a call may take in all. Slack gives up on a click after 3."""

STATEMENT = 1.8
"""Seconds that the server may take for one statement."""

CONNECT = 1.0
"""Seconds that connecting may take while callers wait."""

AGAIN = 0.1
"""Seconds before the next attempt to reach the server, as long as a caller waits."""

MAX_BATCH, MAX_BATCH_CHARACTERS = 200, 4_000_000
"""Calls in one batch, and characters of them all. They keep the wait of the first call short."""

MIN_BATCH = 25
"""Up to this many waiting calls go into one batch; of more, half do. If all did, the server would be idle while this
process handles the answers, and this process while the server executes the batch."""

_SETTINGS = {
    "application_name": "approvals-bot",
    "statement_timeout": "1900ms",
    "lock_timeout": "1500ms",
    "idle_in_transaction_session_timeout": "10s",  # a replica stopped in mid-transaction mustn't block the others
    "jit": "off",  # our statements are short
    "enable_seqscan": "off",  # every query has its index; a plan made for small tables mustn't be kept for large ones
}

NO_LIMITS = {"statement_timeout": "0", "lock_timeout": "0"}
"""Settings for long work, such as migrations."""

LIST_SETTINGS = dict.fromkeys(
    ("enable_sort", "enable_incremental_sort", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"), "off"
)
"""Settings for lists. Each has an index in its order, and reads a page of it. Where statistics are missing or old, the
server would expect few rows, and read and sort all that match."""

# Not the statement's fault: the server is shutting down, out of space or in recovery, or there was a deadlock.
_UNAVAILABLE = ("08", "25006", "40", "53", "55", "57", "58")
_LOST = ("08", "25006", "57P")

_POOLING = (
    "08P01",  # protocol_violation: the pool refuses our startup parameters
    "26000",  # invalid_sql_statement_name: the statement was prepared on another server connection
    "42P05",  # duplicate_prepared_statement: another client has prepared it
)
_POOLED = "This looks like PgBouncer. Approvals Bot needs the server itself, or a pool in session mode."

Connect = Callable[[], Awaitable[Connection]]


class NotConnectedError(StoreUnavailableError):
    """The database can't be reached. Nothing was sent; try again."""


async def connect_to(url: str, *, seconds: float = CONNECT, settings: Mapping[str, str] | None = None) -> Connection:
    """Connect, and check that acknowledged commits are on disk.

    `settings` come on top of ours. Raises NotConnectedError with the reason, which never includes the password.
    """
    given = {**_SETTINGS, **(settings or {})}
    try:
        connection: Connection = await asyncpg.connect(url, timeout=seconds, server_settings=given)
    except (asyncpg.PostgresError, OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise NotConnectedError(f"The database {place(url)} can't be reached: {_reason(error)}") from None
    except ValueError:
        raise NotConnectedError("The database's URL can't be read; it looks like postgresql://user@host/name") from None
    try:
        async with asyncio.timeout(seconds):
            commit = await connection.fetchval("SELECT current_setting('synchronous_commit')")
        if commit == "off":
            raise NotConnectedError(
                f"The database {place(url)} has synchronous_commit=off, so a crash could lose acknowledged decisions. "
                "Set it to on for the server, the database or the role."
            )
    except (asyncpg.PostgresError, OSError, TimeoutError, asyncpg.InterfaceError) as error:
        connection.terminate()
        raise NotConnectedError(f"The database {place(url)} can't be reached: {_reason(error)}") from None
    except BaseException:  # a cancelled caller would leave the connection open: nobody else has it yet
        connection.terminate()
        raise
    return connection


def place(url: str) -> str:
    """Return the host, port and name of a database: the part of its URL that may be shown."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return f"{host}{parts.path}" if host else parts.path.lstrip("/") or "of the URL"
    except ValueError:
        return "of the URL"


class PostgresConnection:
    """A connection that one call uses at a time, and that reconnects when it is lost."""

    def __init__(self, connect: Connect, first: Connection | None = None) -> None:
        self._connect = connect
        self._connection = first
        self._turn = asyncio.Lock()
        self.trouble = "it is busy"  # why the last call failed
        self.is_closed = False

    async def fetch(self, sql: str, *given: Any) -> list[Any]:
        """Execute a statement and return its rows.

        Raises NotConnectedError if it wasn't sent, StoreUnavailableError if it may or may not have been carried out.
        """
        async with self._turn:
            connection = await self._connected()
            running = asyncio.ensure_future(connection.fetch(sql, *given))
            try:
                await asyncio.wait([running], timeout=STATEMENT)
            finally:
                if not running.done():  # drop the connection: cancelling the statement would need the server's answer
                    self._drop()
                    running.add_done_callback(_ignore_outcome)
            try:
                return list(await running)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise self._judged(error) from None

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Raise StoreUnavailableError if the block takes longer than a call may."""
        try:
            async with asyncio.timeout(CALL):
                yield
        except TimeoutError:
            raise self.late() from None

    def late(self) -> StoreUnavailableError:
        """Return the error for a call that has taken too long."""
        return StoreUnavailableError(f"The database has not answered in time ({self.trouble}). Try again.")

    async def close(self) -> None:
        self.is_closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.close(timeout=1.0)

    async def _connected(self) -> Connection:
        self._refuse_when_closed()
        if self._connection is None or self._connection.is_closed():
            try:
                connection = await self._connect()
            except NotConnectedError as error:
                self.trouble = str(error)
                raise
            try:
                self._refuse_when_closed()  # it may have been closed in the meantime
            except StoreUnavailableError:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def _refuse_when_closed(self) -> None:
        if self.is_closed:
            raise StoreUnavailableError("The database has been closed.")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _judged(self, error: Exception) -> Exception:
        state: str = getattr(error, "sqlstate", None) or ""
        is_its_own_fault: bool = isinstance(error, asyncpg.PostgresError) and not state.startswith(_UNAVAILABLE)
        if is_its_own_fault:
            return error
        if not state or state.startswith(_LOST):
            self._drop()
        self.trouble = _reason(error)
        return StoreUnavailableError(f"The database can't be used right now ({self.trouble}). Try again.")


class BatchedConnection:
    """A connection that sends calls in batches: those that arrive during a statement share the next one.

    A batch is one round trip, one commit and one snapshot. Each call is JSON. `sql` takes an array of them, and returns
    a row of JSON for each.
    """

    def __init__(self, connection: PostgresConnection, bearers: Bearers, sql: str, *given: str) -> None:
        self._connection = connection
        self._bearers = bearers
        self._sql = sql
        self._given = given
        self._queue: deque[tuple[str, asyncio.Future[Any]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def call(self, call: dict[str, Any]) -> Any:
        """Execute this call in its turn and return its answer.

        Raises StoreUnavailableError if there is none within two seconds.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        text = to_json(call).decode()  # four times as fast as json's
        self._queue.append((self._bearers.without(text), future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="store: batches")
        limit = loop.call_later(CALL, self._is_late, future)
        try:
            return await future
        finally:
            limit.cancel()

    def _is_late(self, future: asyncio.Future[Any]) -> None:
        settle(future, self._connection.late())

    async def close(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=CALL)
        await self._connection.close()

    async def _flush(self) -> None:
        try:
            while batch := self._next():
                await self._execute_batch(batch)
        finally:
            self._flushing = None

    def _next(self) -> list[tuple[str, asyncio.Future[Any]]]:
        """Return the next batch. Calls whose callers have gone are left out."""
        batch: list[tuple[str, asyncio.Future[Any]]] = []
        most, size = min(max(MIN_BATCH, len(self._queue) // 2), MAX_BATCH), 0
        while self._queue and len(batch) < most and size < MAX_BATCH_CHARACTERS:
            call, future = self._queue.popleft()
            if not future.done():
                batch.append((call, future))
                size += len(call)
        return batch

    async def _execute_batch(self, batch: list[tuple[str, asyncio.Future[Any]]]) -> None:
        """Execute a batch in one statement, and answer its callers.

        Callers get their answers only after the commit. If nothing was sent, the calls go back to the front of the
        queue. If the answer was lost, all callers get an error, and nothing is repeated here: the batch may have been
        committed. If a call makes the statement fail, nothing was committed, and each call is executed on its own.
        """
        try:
            rows = await self._connection.fetch(self._sql, f"[{','.join(call for call, _ in batch)}]", *self._given)
        except NotConnectedError:
            self._queue.extendleft(reversed(batch))  # nothing was sent, and there may still be time
            await asyncio.sleep(AGAIN)
        except StoreUnavailableError as error:
            for _, future in batch:
                settle(future, StoreUnavailableError(str(error)))
        except Exception as error:  # noqa: BLE001  # its own caller gets it; the others aren't affected
            if len(batch) == 1:
                settle(batch[0][1], error)
                return
            for call in batch:
                await self._execute_batch([call])
        else:
            answers = json.loads(self._bearers.signed(f"[{','.join(row[0] or 'null' for row in rows)}]"))
            for (_, future), answer in zip(batch, answers, strict=True):
                settle(future, answer)


def _ignore_outcome(running: asyncio.Future[Any]) -> None:
    if not running.cancelled():
        running.exception()


def _reason(error: Exception) -> str:
    """Return the message of the server or the network. Neither ever includes the password."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    text = str(error) or type(error).__name__
    return f"{text}. {_POOLED}" if getattr(error, "sqlstate", None) in _POOLING else text


# ── LISTEN: what other replicas have written, and whether we would know ──

CHANNEL = "approvals_bot"
SHOWN = "~"  # before a run's id: only what it shows has changed, so there's nothing to claim
PROOF = 5.0  # seconds between two checks that the connection is alive: silence could mean that it was cut
LISTEN_AGAIN = 1.0  # seconds before the next attempt to listen

Heard = Callable[[frozenset[str] | None], None]
"""A callback that gets the runs that another replica has written to. None: it may be any run."""

Seen = Callable[[frozenset[str]], None]
"""A callback that gets the runs in which only what they show has changed."""


class Listening:
    """The connection that listens for other replicas' writes. While there is none (`is_deaf`), check for them."""

    def __init__(self, connect: Connect, myself: str) -> None:
        self._connect = connect
        self._myself = myself
        self._heard: Heard = lambda runs: None
        self._seen: Seen | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_deaf = True

    def start(self, heard: Heard, seen: Seen | None) -> None:
        self._heard, self._seen = heard, seen
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="store: listen")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            with suppress(StoreUnavailableError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self._listen_once()
            self.is_deaf = True
            await asyncio.sleep(LISTEN_AGAIN)

    async def _listen_once(self) -> None:
        connection = await self._connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            async with asyncio.timeout(CONNECT):
                await connection.add_listener(CHANNEL, self._message)
            self.is_deaf = False
            self._heard(None)  # there may have been notifications before
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROOF):
                        await lost.wait()
                if not lost.is_set():
                    await _check_alive(connection)
        finally:
            connection.terminate()

    def _message(self, _connection: object, _pid: int, _channel: str, message: object) -> None:
        sender, *runs = str(message).split(" ")
        if sender == self._myself:
            return
        work = [run for run in runs if not run.startswith(SHOWN)]
        if work:
            self._heard(None if work == ["*"] else frozenset(work))
        if self._seen is not None and len(work) < len(runs):
            self._seen(frozenset(run.removeprefix(SHOWN) for run in runs if run.startswith(SHOWN)))


async def _check_alive(connection: Connection) -> None:
    """Raise an error if the server doesn't answer in time."""
    running = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    await asyncio.wait([running], timeout=CONNECT)
    if not running.done():
        connection.terminate()
    await running
