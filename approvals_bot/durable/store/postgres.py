"""The store in PostgreSQL, for any number of replicas: it holds the log, hands out work and fences off zombies.

A call is one round trip. The work is done by functions in the database (`migrations/`), many calls of one replica in
one statement: so they share a commit, and no lock is ever held while a replica thinks, or has been stopped.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime
from functools import partial
from typing import Any, Self

from asyncpg import Connection

from approvals_bot.durable.core.events import Event, Log, NewEvent, from_micros, to_micros
from approvals_bot.durable.store import postgres_encoding as pieces
from approvals_bot.durable.store import postgres_lists as lists
from approvals_bot.durable.store.postgres_connection import BatchedConnection, Connect, PostgresConnection, connect_to
from approvals_bot.durable.store.postgres_listening import Heard, Listening
from approvals_bot.durable.store.postgres_schema import VERSION_AND_WRITABLE, judge, migrate
from approvals_bot.durable.store.protocol import (
    Append,
    Appended,
    AuditEntry,
    AuditLine,
    Claim,
    Claimed,
    Created,
    Fenced,
    Filter,
    HookRow,
    Lease,
    NewRun,
    Received,
    RunRow,
    Stale,
)
from approvals_bot.durable.store.texts import storable

START = 5.0  # seconds that the first connection may take
LOOK = 1.0  # seconds between two looks while nobody tells us what others have written


class PostgresStore:
    """Implements `OpenStore`. Four connections: for writing, reading, lists, and to hear what others write."""

    def __init__(self, connect: Connect, myself: str, first: Connection | None = None) -> None:
        """`myself` is nobody else's: by it replicas know what they have said themselves."""
        self._writing = BatchedConnection(
            PostgresConnection(connect, first), "SELECT answer FROM together($1::jsonb, $2)", myself
        )
        self._reading = BatchedConnection(PostgresConnection(connect), "SELECT answer FROM answers($1::jsonb)")
        self._lists = PostgresConnection(connect)
        self._listening = Listening(connect, myself)
        self._looked = 0.0

    @classmethod
    async def open(cls, url: str, *, upgrade: bool = True) -> Self:
        """Connect, and bring the schema up to date. StoreUnavailableError, with the reason, if that can't be done."""
        connection = await connect_to(url, seconds=START, patient=True)
        try:
            await migrate(connection, url, upgrade=upgrade)
        finally:
            connection.terminate()
        first = await connect_to(url, seconds=START)
        return cls(partial(connect_to, url), secrets.token_hex(8), first)

    # ── writing ──

    async def create(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created:
        return pieces.created(run, at, then, await self._writing.ask(pieces.create(run, at, lease, then)))

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        return pieces.appended(batch, await self._writing.ask(pieces.append(batch)))

    async def record(self, run_id: str, facts: list[NewEvent], at: datetime) -> list[Event]:
        answer = await self._writing.ask(pieces.record(run_id, facts, at))
        return [pieces.event(each) for each in (*answer["known"], *answer.get("added", ()))]

    async def receive(
        self,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
    ) -> Received | None:
        piece = pieces.receive(hook_id, resume_id, payload, at, lease, then)
        return pieces.received(then, await self._writing.ask(piece))

    async def claim(self, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        return pieces.claims(await self._writing.ask(pieces.claim(lease, limit, run_id)))

    async def renew(self, claims: list[Claim], lease_until: datetime) -> None:
        await self._writing.ask(pieces.renew(claims, lease_until))

    # ── reading ──

    async def read(self, run_id: str, after: int = 0) -> tuple[RunRow, Log] | None:
        answer = await self._reading.ask({"ask": "read", "run": storable(run_id), "after": after})
        return None if answer is None else pieces.run_and_log(answer)

    async def hook(self, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
        if hook_id is not None:
            answer = await self._reading.ask({"ask": "hook", "hook": storable(hook_id)})
        else:
            answer = await self._reading.ask({"ask": "token", "token": storable(token or "")})
        return None if answer is None else pieces.hook_row(answer)

    async def look(
        self, most: int, *, token: str | None = None, hook_id: str | None = None
    ) -> tuple[HookRow, RunRow, Log | None] | None:
        which = {"token": storable(token or "")} if hook_id is None else {"hook": storable(hook_id)}
        answer = await self._reading.ask({"ask": "look", "most": most} | which)
        if answer is None:
            return None
        hook, row, log = answer
        return pieces.hook_row(hook), pieces.run_row(row), None if log is None else pieces.log(log)

    async def next_wake(self, owner: str, at: datetime) -> datetime | None:
        answer = await self._reading.ask({"ask": "next_wake", "owner": storable(owner), "at": to_micros(at)})
        return None if answer is None else from_micros(answer)

    async def runs(self, which: Filter) -> tuple[list[RunRow], str | None]:
        async with self._lists.in_time():
            return await lists.runs(self._lists, which)

    async def audit(self, entry: AuditEntry | None, at: datetime) -> list[AuditLine]:
        if entry is None:
            return await lists.audit_lines(self._lists)
        async with self._lists.in_time():
            return [await lists.add_to_audit(self._lists, entry, to_micros(at))]

    # ── the others ──

    async def begin_work(self) -> None:
        """Other replicas may be working: the leases of the dead run out by themselves."""

    def listen(self, heard: Heard) -> None:
        self._listening.start(heard)

    async def changed(self) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._listening.is_deaf or now < self._looked + LOOK:
            return False
        self._looked = now
        return True

    async def check(self) -> None:
        async with self._lists.in_time():
            ((version, is_writable),) = await self._lists.fetch(VERSION_AND_WRITABLE)
        judge(version, is_writable)

    async def close(self) -> None:
        await self._listening.close()
        await self._writing.close()
        await self._reading.close()
        await self._lists.close()
