"""The store in PostgreSQL, for any number of replicas. It keeps the logs, hands out claims and fences off zombies.

A call is one round trip to functions in the database (`migrations/`). One statement executes a batch of a replica's
calls, which share its commit. So no lock is ever held while a replica computes or is stopped.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Self

from asyncpg import Connection

from approvals_bot.durable.core.events import Event, Log, NewEvent, from_micros, to_micros
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store import postgres_chain as chain
from approvals_bot.durable.store import postgres_encoding as encoding
from approvals_bot.durable.store.audit import ALL_LINES, AuditEntry, AuditFilter, AuditLine, NewLine, OwedLine, Owes
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.chain import ChainedEvent, ChainKey, RunHead
from approvals_bot.durable.store.documents import (
    PUT_PG,
    DocumentRow,
    PostgresDocuments,
    Refused,
    given_to_put,
    result_of_put,
)
from approvals_bot.durable.store.encoding import (
    as_given,
    cursor_after,
    state_row,
    storable,
)
from approvals_bot.durable.store.erasure import PostgresErasure
from approvals_bot.durable.store.files import PostgresFiles
from approvals_bot.durable.store.lists import POSTGRES, STATUSES_PRESENT, count_of, needs_statuses, page_of
from approvals_bot.durable.store.personal import PostgresPersonal
from approvals_bot.durable.store.postgres_connection import (
    LIST_SETTINGS,
    NO_LIMITS,
    BatchedConnection,
    Connect,
    Heard,
    Listening,
    PostgresConnection,
    Seen,
    connect_to,
)
from approvals_bot.durable.store.postgres_schema import (
    VERSION_AND_WRITABLE,
    installation_of,
    judge,
    migrate,
    migrations,
)
from approvals_bot.durable.store.protocol import (
    ENDED_HOOKS,
    MAX_UNREAD,
    Append,
    Appended,
    Claim,
    Claimed,
    Created,
    Fenced,
    Filter,
    Full,
    HookRow,
    Lease,
    NewRun,
    Received,
    Reset,
    RunRecord,
    Stale,
    StateRow,
    TokenTaken,
    WasReset,
)
from approvals_bot.durable.store.replicas import PostgresReplicas
from approvals_bot.durable.store.retention import PostgresRetention
from approvals_bot.durable.store.sessions import PostgresSessions

START = 5.0  # seconds that the first connection may take
_WRITES = "SELECT answer FROM execute_batch($1::jsonb, $2)"
_ANSWERS = "SELECT answer FROM answers($1::jsonb)"

LOOK = 1.0  # seconds between two checks for writes of other replicas while nothing notifies us of them


class PostgresStore(
    PostgresErasure,
    PostgresRetention,
    PostgresSessions,
    PostgresPersonal,
    PostgresDocuments,
    PostgresReplicas,
    PostgresFiles,
):
    """The `OpenStore` on PostgreSQL. Writing, reading, lists and LISTEN have a connection each."""

    is_shared = True

    def __init__(
        self,
        connect: Connect,
        myself: str,
        installation: str,
        first: Connection | None = None,
        connect_for_lists: Connect | None = None,
    ) -> None:
        """`myself` is unique to this replica, which recognizes its own notifications by it."""
        self.installation = installation
        self._write = PostgresConnection(connect, first)
        self.bearers = Bearers()
        self._writing = BatchedConnection(self._write, self.bearers, _WRITES, myself)
        self._reading = BatchedConnection(PostgresConnection(connect), self.bearers, _ANSWERS)
        # What people look at may take its time here. No click waits for it.
        self._lists = PostgresConnection(connect_for_lists or connect)
        self._listening = Listening(connect, myself)
        self._looked = 0.0

    @classmethod
    async def open(cls, url: str, *, upgrade: bool = True) -> Self:
        """Connect and bring the schema up to date. Raises StoreUnavailableError, with the reason, if that fails."""
        connection = await connect_to(url, seconds=START, settings=NO_LIMITS)
        try:
            await migrate(connection, url, upgrade=upgrade)
            installation = await installation_of(connection, url)
        finally:
            connection.terminate()
        first = await connect_to(url, seconds=START)
        for_lists = partial(connect_to, url, settings=LIST_SETTINGS)
        return cls(partial(connect_to, url), secrets.token_hex(8), installation, first, for_lists)

    @property
    def schema(self) -> int:
        return len(migrations())

    # ── writing ──

    async def create(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created:
        return encoding.created(run, at, then, await self._writing.call(encoding.create(run, at, lease, then)))

    async def create_with_hooks(
        self, run: NewRun, at: datetime, lease: Lease | None = None, then: Append | None = None
    ) -> Created | TokenTaken:
        answer = await self._writing.call(encoding.create_with_hooks(run, at, lease, then))
        return encoding.created_with_hooks(run, at, then, answer)

    async def append(self, batch: Append) -> Appended | Stale | Fenced:
        return encoding.appended(batch, await self._writing.call(encoding.append(batch)))

    async def record(self, run_id: str, facts: list[NewEvent], at: datetime, owes: Owes | None = None) -> list[Event]:
        answer = await self._writing.call(encoding.record(run_id, facts, at) | encoding.owing(owes))
        return [encoding.event(each) for each in (*answer["known"], *answer.get("added", ()))]

    async def receive(
        self,
        hook_id: str,
        resume_id: str,
        payload: Any,
        at: datetime,
        lease: Lease | None = None,
        then: Append | None = None,
        also: dict[str, Any] | None = None,
        owes: Owes | None = None,
        most: int = MAX_UNREAD,
    ) -> Received | Full | None:
        call = encoding.receive(hook_id, resume_id, payload, at, lease, then, also, most) | encoding.owing(owes)
        return encoding.received(then, most, await self._writing.call(call))

    async def reset(self, reset: Reset, at: datetime) -> WasReset | Stale | TokenTaken:
        return encoding.was_reset(await self._writing.call(encoding.reset(reset, at)))

    async def claim(self, lease: Lease, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        return encoding.claims(await self._writing.call(encoding.claim(lease, limit, run_id)))

    async def renew(self, claims: list[Claim], lease_until: datetime) -> None:
        await self._writing.call(encoding.renew(claims, lease_until))

    # ── reading ──

    async def read(self, run_id: str, after: int = 0, *, patient: bool = False) -> tuple[RunRecord, Log] | None:
        query = {"query": "read", "run": storable(run_id), "after": after}
        if patient:
            async with self._lists.in_time():
                ((text,),) = await self._lists.fetch(_ANSWERS, json.dumps([query]))
            answer = json.loads(self.bearers.signed(text or "null"))
        else:
            answer = await self._reading.call(query)
        return None if answer is None else encoding.run_and_log(answer)

    async def hook(self, *, token: str | None = None, hook_id: str | None = None) -> HookRow | None:
        if hook_id is not None:
            answer = await self._reading.call({"query": "hook", "hook": storable(hook_id)})
        else:
            answer = await self._reading.call({"query": "token", "token": storable(token or "")})
        return None if answer is None else encoding.hook_row(answer)

    async def look(
        self, most: int, *, token: str | None = None, hook_id: str | None = None, resume_id: str | None = None
    ) -> tuple[HookRow, RunRecord, Log | None] | None:
        which: dict[str, Any] = {"token": storable(token or "")} if hook_id is None else {"hook": storable(hook_id)}
        if resume_id is not None:
            which |= {"resume_id": storable(resume_id), "ended": ENDED_HOOKS}
        answer = await self._reading.call({"query": "look", "most": most} | which)
        if answer is None:
            return None
        hook, row, log = answer
        return encoding.hook_row(hook), encoding.run_row(row), None if log is None else encoding.log(log)

    async def taken(self, hook_id: str, resume_id: str) -> Received | None:
        given = {"hook": storable(hook_id), "resume_id": storable(resume_id)}
        answer = await self._reading.call({"query": "taken"} | given)
        return None if answer is None else Received(encoding.event(answer[1]), run_id=as_given(answer[0]))

    async def last(self, run_id: str) -> str:
        return as_given(str(await self._reading.call({"query": "last", "run": storable(run_id)})))

    async def next_wake(self, owner: str, at: datetime) -> datetime | None:
        answer = await self._reading.call({"query": "next_wake", "owner": storable(owner), "at": to_micros(at)})
        return None if answer is None else from_micros(answer)

    async def runs(self, which: Filter) -> tuple[list[RunRecord], str | None]:
        async with self._lists.in_time():
            sql, given = page_of(which, await self._statuses(which), "run_json(runs)", POSTGRES)
            found = await self._lists.fetch(sql, *self.bearers.compared(given))
        page = [encoding.run_row(json.loads(self.bearers.signed(row[0]))) for row in found[: which.limit]]
        if which.keys is not None:
            page = [record._replace(key=as_given(row[1])) for record, row in zip(page, found, strict=False)]
        return page, cursor_after(page[-1].id, found[which.limit - 1][1]) if len(found) > which.limit else None

    async def count(self, which: Filter, most: int) -> int:
        async with self._lists.in_time():
            sql, given = count_of(which, await self._statuses(which), most, POSTGRES)
            ((number,),) = await self._lists.fetch(sql, *self.bearers.compared(given))
        return int(number)

    async def _statuses(self, which: Filter) -> list[str]:
        return [row[0] for row in await self._lists.fetch(STATUSES_PRESENT)] if needs_statuses(which) else []

    async def audit(self, entry: AuditEntry, at: datetime, key: ChainKey | None = None) -> AuditLine:
        async with self._write.in_time():
            return await chain.add_to_audit(self._write, entry, at, key)

    async def put_document(self, row: DocumentRow, line: NewLine | None = None) -> int | Refused:
        async with self._write.in_time():
            return result_of_put(await chain.fetch_with_line(self._write, PUT_PG, given_to_put(row), line))

    async def owed_lines(self, most: int) -> list[OwedLine]:
        return await chain.owed_lines(self._lists, self.bearers, most)

    async def settle(self, owed: str, entries: Sequence[AuditEntry], at: datetime, key: ChainKey | None) -> bool:
        async with self._write.in_time():
            return await chain.settle(self._write, owed, entries, at, key)

    async def audit_lines(self, which: AuditFilter = ALL_LINES) -> list[AuditLine]:
        return await chain.audit_lines(self._lists, which)

    async def chained(self, run_id: str) -> list[ChainedEvent]:
        return await chain.chained(self._lists, run_id)

    async def seal_ended(self, at: datetime, key: ChainKey | None, most: int) -> int:
        async with self._write.in_time():
            return await chain.seal_ended(self._write, at, key, most)

    async def cut_audit(self, seq: int, entry: AuditEntry, at: datetime, key: ChainKey | None) -> AuditLine | None:
        async with self._write.in_time():
            return await chain.cut_audit(self._write, seq, entry, at, key)

    async def seal_open(self, at: datetime, key: ChainKey | None, most: int, after: str = "") -> list[RunHead]:
        async with self._write.in_time():
            return await chain.seal_open(self._write, at, key, most, after)

    async def schedules(self) -> list[StateRow]:
        async with self._lists.in_time():
            return [state_row(*row) for row in await self._lists.fetch(_SCHEDULES)]

    async def set_schedule(self, row: StateRow) -> bool:
        sql = _FIRST_STATE if row.version == 1 else _NEXT_STATE
        async with self._write.in_time():
            given = (storable(row.name), row.version, to_json(row.state, "state"))
            return bool(await self._write.fetch(sql, *given))

    async def counter(self, name: str) -> StateRow | None:
        async with self._write.in_time():
            rows = await self._write.fetch(_COUNTER, storable(name))
        return state_row(*rows[0]) if rows else None

    async def set_counter(self, row: StateRow, at: datetime, until: datetime) -> bool:
        sql = _FIRST_COUNT if row.version == 1 else _NEXT_COUNT
        given = (storable(row.name), row.version, to_json(row.state, "state"), to_micros(until))
        async with self._write.in_time():
            is_written = bool(await self._write.fetch(sql, *given))
            await self._write.fetch(_FORGET, to_micros(at))
        return is_written

    # ── other replicas ──

    async def begin_work(self) -> None:
        """Do nothing: other replicas may be working, and the leases of dead ones end on their own."""

    def listen(self, heard: Heard, seen: Seen | None = None) -> None:
        self._listening.start(heard, seen)

    async def changed(self) -> bool:
        now = asyncio.get_running_loop().time()
        if not self._listening.is_deaf or now < self._looked + LOOK:
            return False
        self._looked = now
        return True

    async def check(self) -> None:
        async with self._write.in_time():
            ((version, is_writable),) = await self._write.fetch(VERSION_AND_WRITABLE)
        judge(version, is_writable)

    async def close(self) -> None:
        await self._listening.close()
        await self._writing.close()
        await self._reading.close()
        await self._lists.close()


_SCHEDULES = "SELECT name, version, state FROM schedules ORDER BY name"
_FIRST_STATE = "INSERT INTO schedules VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING version"
_NEXT_STATE = "UPDATE schedules SET version = $2, state = $3 WHERE name = $1 AND version = $2 - 1 RETURNING version"
_COUNTER = "SELECT name, version, state FROM counters WHERE name = $1"
_FIRST_COUNT = "INSERT INTO counters VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING version"
_NEXT_COUNT = """
    UPDATE counters SET version = $2, state = $3, until = $4 WHERE name = $1 AND version = $2 - 1 RETURNING version"""
_FORGET = """
    DELETE FROM counters WHERE name IN (
      SELECT name FROM counters WHERE until <= $1 ORDER BY until LIMIT 10 FOR UPDATE SKIP LOCKED)"""
