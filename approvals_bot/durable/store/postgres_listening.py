"""Hearing from other replicas what they have written, by LISTEN; and knowing when we might not have heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import asyncpg
from asyncpg import Connection

from approvals_bot.durable.store.postgres_connection import CONNECT, Connect
from approvals_bot.errors import StoreUnavailableError

CHANNEL = "approvals_bot"
PROOF = 5.0  # seconds between two proofs that the connection lives: silence could also mean that it was cut
AGAIN = 1.0  # seconds before the next attempt to listen

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
            await asyncio.sleep(AGAIN)

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
