"""A line to PostgreSQL: one connection that is made anew when it is lost, and never waited for longer than a person is.

The server may be stopped, be failing over, or have gone silent without a word; none of it may hang a click. So every
call has its own time limit on this side, whatever the network does, and the server has one of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from asyncpg import Connection
from pydantic_core import to_json

from approvals_bot.durable.store.group_commit import settle
from approvals_bot.errors import StoreUnavailableError

CALL = 2.0
"""Seconds that a call may take in all. Slack drops a click after 3."""

STATEMENT = 1.8
"""Seconds that the server may take for one statement."""

CONNECT = 1.0
"""Seconds that a connection may take to be made, while callers wait for it."""

AGAIN = 0.1
"""Seconds before a server that can't be reached is tried again, as long as somebody waits."""

MAX_SHARED, MAX_SHARED_CHARACTERS = 200, 4_000_000
"""Pieces in one statement, and their size together: keeps the wait of the first one short."""

TOGETHER = 25
"""So many pieces go in one statement in any case, and of more, half. If all went at once, the server would be idle
while this process goes on with all the answers, and this process while the server works on all."""

_SETTINGS = {
    "application_name": "approvals-bot",
    "statement_timeout": "1900ms",
    "lock_timeout": "1500ms",
    "idle_in_transaction_session_timeout": "10s",  # whoever is stopped in mid-transaction must not stop the others
    "jit": "off",  # our statements are short
    "enable_seqscan": "off",  # every look-up has its index; a plan made while tables were small must not outlive that
}

# Not the statement's own fault: the server is going down, out of room, in recovery, or two waited for each other.
_UNAVAILABLE = ("08", "25006", "40", "53", "55", "57", "58")
_LOST = ("08", "25006", "57P")

_POOLING = (
    "08P01",  # protocol_violation: a pool takes no startup parameters of ours
    "26000",  # invalid_sql_statement_name: a statement that was prepared on another server connection
    "42P05",  # duplicate_prepared_statement: one of another client's
)
_POOLED = "This looks like PgBouncer. Approvals Bot needs the server itself, or a pool in session mode."

Connect = Callable[[], Awaitable[Connection]]


class NotConnectedError(StoreUnavailableError):
    """The database can't be reached. Nothing was sent."""


async def connect_to(url: str, *, seconds: float = CONNECT, patient: bool = False) -> Connection:
    """Connect, and make sure that what is acknowledged is on disk. NotConnectedError says why not, without the
    password. `patient`: for work that may take long, as migrations."""
    settings = _SETTINGS | ({"statement_timeout": "0", "lock_timeout": "0"} if patient else {})
    try:
        connection: Connection = await asyncpg.connect(url, timeout=seconds, server_settings=settings)
    except (asyncpg.PostgresError, OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise NotConnectedError(f"The database {place(url)} can't be reached: {_reason(error)}") from None
    except ValueError:
        raise NotConnectedError("The database's URL can't be read; it looks like postgresql://user@host/name") from None
    try:
        async with asyncio.timeout(seconds):
            commit = await connection.fetchval("SELECT current_setting('synchronous_commit')")
        if commit == "off":
            raise NotConnectedError(
                f"The database {place(url)} has synchronous_commit=off: it would lose decisions that people were told "
                "are taken. Set it to on, for the server, the database or the role."
            )
    except (asyncpg.PostgresError, OSError, TimeoutError, asyncpg.InterfaceError) as error:
        connection.terminate()
        raise NotConnectedError(f"The database {place(url)} can't be reached: {_reason(error)}") from None
    except BaseException:  # whoever is cancelled here would leave it open: nobody else knows of it yet
        connection.terminate()
        raise
    return connection


def place(url: str) -> str:
    """Host, port and name of a database: what may be shown of its URL."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return f"{host}{parts.path}" if host else parts.path.lstrip("/") or "of the URL"
    except ValueError:
        return "of the URL"


class PostgresConnection:
    """One connection, used by one at a time."""

    def __init__(self, connect: Connect, first: Connection | None = None) -> None:
        self._connect = connect
        self._connection = first
        self._turn = asyncio.Lock()
        self.trouble = "it is busy"  # why the last call failed
        self.is_closed = False

    async def fetch(self, sql: str, *given: Any) -> list[Any]:
        """StoreUnavailableError: it may or may not have been carried out. NotConnectedError: it was not."""
        async with self._turn:
            connection = await self._connected()
            asking = asyncio.ensure_future(connection.fetch(sql, *given))
            try:
                await asyncio.wait([asking], timeout=STATEMENT)
            finally:
                if not asking.done():  # cut it off: to cancel it politely would need an answer from the server
                    self._drop()
                    asking.add_done_callback(_forget)
            try:
                return list(await asking)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                raise self._judged(error) from None

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """StoreUnavailableError for what takes longer than a call may."""
        try:
            async with asyncio.timeout(CALL):
                yield
        except TimeoutError:
            raise self.late() from None

    def late(self) -> StoreUnavailableError:
        """For what has taken longer than a call may."""
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
                self._refuse_when_closed()  # meanwhile
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
    """Whoever comes while a statement is under way shares the next one: one round trip, one commit, one look.

    Each piece is JSON; `sql` takes them as an array, and gives a row of JSON for each.
    """

    def __init__(self, line: PostgresConnection, sql: str, *given: str) -> None:
        self._line = line
        self._sql = sql
        self._given = given
        self._queue: deque[tuple[str, asyncio.Future[Any]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def ask(self, piece: dict[str, Any]) -> Any:
        """Do this piece in its turn, and give its answer; StoreUnavailableError within two seconds if there is none."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((to_json(piece).decode(), future))  # four times as fast as json's
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="store: shared statement")
        limit = loop.call_later(CALL, self._is_late, future)
        try:
            return await future
        finally:
            limit.cancel()

    def _is_late(self, future: asyncio.Future[Any]) -> None:
        settle(future, self._line.late())

    async def close(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=CALL)
        await self._line.close()

    async def _flush(self) -> None:
        try:
            while pieces := self._next():
                await self._do(pieces)
        finally:
            self._flushing = None

    def _next(self) -> list[tuple[str, asyncio.Future[Any]]]:
        """What goes together. Those whose callers have gone are left out."""
        taken: list[tuple[str, asyncio.Future[Any]]] = []
        most, size = min(max(TOGETHER, len(self._queue) // 2), MAX_SHARED), 0
        while self._queue and len(taken) < most and size < MAX_SHARED_CHARACTERS:
            piece, future = self._queue.popleft()
            if not future.done():
                taken.append((piece, future))
                size += len(piece)
        return taken

    async def _do(self, pieces: list[tuple[str, asyncio.Future[Any]]]) -> None:
        try:
            rows = await self._line.fetch(self._sql, "[" + ",".join(piece for piece, _ in pieces) + "]", *self._given)
        except NotConnectedError:
            self._queue.extendleft(reversed(pieces))  # nothing was sent, and those who wait may still be served
            await asyncio.sleep(AGAIN)
        except StoreUnavailableError as error:
            for _, future in pieces:
                settle(future, StoreUnavailableError(str(error)))
        except Exception as error:  # noqa: BLE001  # its own caller hears of it; the others go on
            if len(pieces) == 1:
                settle(pieces[0][1], error)
                return
            for piece in pieces:
                await self._do([piece])
        else:
            answers = json.loads(f"[{','.join(row[0] or 'null' for row in rows)}]")
            for (_, future), answer in zip(pieces, answers, strict=True):
                settle(future, answer)


def _forget(asking: asyncio.Future[Any]) -> None:
    if not asking.cancelled():
        asking.exception()


def _reason(error: Exception) -> str:
    """What the server or the network said. Neither ever names the password."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    text = str(error) or type(error).__name__
    return f"{text}. {_POOLED}" if getattr(error, "sqlstate", None) in _POOLING else text


# ── Hearing from other replicas what they have written, by LISTEN; and knowing when we might not have heard. ──

CHANNEL = "approvals_bot"
PROOF = 5.0  # seconds between two proofs that the connection lives: silence could also mean that it was cut
LISTEN_AGAIN = 1.0  # seconds before the next attempt to listen

Heard = Callable[[frozenset[str] | None], None]
"""Told the runs that another replica has written to; None: it may be any."""


class Listening:
    """Keeps a connection that listens. `is_deaf` while there is none: then one has to look."""

    def __init__(self, connect: Connect, myself: str) -> None:
        self._connect = connect
        self._myself = myself
        self._heard: Heard = lambda runs: None
        self._task: asyncio.Task[None] | None = None
        self.is_deaf = True

    def start(self, heard: Heard) -> None:
        self._heard = heard
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
            self._heard(None)  # whatever was said before
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(PROOF):
                        await lost.wait()
                if not lost.is_set():
                    await _prove(connection)
        finally:
            connection.terminate()

    def _message(self, _connection: object, _pid: int, _channel: str, message: object) -> None:
        sender, *runs = str(message).split(" ")
        if sender != self._myself:
            self._heard(None if runs == ["*"] else frozenset(runs))


async def _prove(connection: Connection) -> None:
    """TimeoutError if it doesn't live."""
    asking = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    await asyncio.wait([asking], timeout=CONNECT)
    if not asking.done():
        connection.terminate()
    await asking
