"""The real PostgreSQL store in the simulation: a real server, its functions in SQL, and our lines to it with their time
limits, reconnections and batches. Only the network is not there.

A statement goes to the server and comes back while virtual time is stopped: so it is the seed that decides how long
each one takes, whose comes first, which answers are lost, and when a replica hears what others have written. All nodes'
statements are carried out by one session, one after the other; as each is a transaction, none could wait for another.
What a piece of work has changed, the server notes itself, in the same transaction.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import asyncpg

from approvals_bot.durable.core.events import Event, Log, from_micros
from approvals_bot.durable.store.postgres import PostgresStore
from approvals_bot.durable.store.postgres_connection import CHANNEL, NotConnectedError
from approvals_bot.durable.store.postgres_schema import migrate
from approvals_bot.durable.store.protocol import Append, Appended, Fenced, OpenStore, Stale
from tests.support.simulation.auditor import Auditor, Change
from tests.support.simulation.loop import virtual_loop
from tests.support.simulation.store import INSTALLATION, TABLES, Fate, Mishap

T = TypeVar("T")

WATCH = """
ALTER FUNCTION execute_call(jsonb) RENAME TO unwatched_call;
CREATE TABLE known_runs (run_id text PRIMARY KEY, seq bigint, epoch bigint);
CREATE TABLE notes (n bigserial, changes json);
CREATE FUNCTION execute_call(args jsonb) RETURNS outcome LANGUAGE plpgsql AS $$
DECLARE
  done outcome := unwatched_call(args);
BEGIN
  INSERT INTO notes (changes) SELECT coalesce(json_agg(json_build_array(runs.id, runs.epoch, (
      SELECT coalesce(json_agg(json_build_array(seq, type, at, data) ORDER BY seq), '[]'::json) FROM events
      WHERE run_id = runs.id AND seq > coalesce(known.seq, 0))) ORDER BY runs.id), '[]'::json)
    FROM runs LEFT JOIN known_runs AS known ON known.run_id = runs.id
    WHERE known.seq IS DISTINCT FROM runs.seq OR known.epoch IS DISTINCT FROM runs.epoch;
  INSERT INTO known_runs SELECT id, seq, epoch FROM runs
    ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch;
  RETURN done;
END $$;
"""

TAKEN = "WITH taken AS (DELETE FROM notes RETURNING n, changes) SELECT changes FROM taken ORDER BY n"


class PostgresDatabase:
    """One database on a server, and one session."""

    def __init__(self, url: str) -> None:
        """`url`: of an empty database of our own."""
        self._loop = asyncio.new_event_loop()
        self._connection = self.blocking(self._prepared(url))
        self._said: list[str] = []
        self._listening: list[SimulatedConnection] = []

    def clear(self) -> None:
        self._listening.clear()
        self.blocking(self._connection.execute(f"TRUNCATE {', '.join(TABLES)}, known_runs, notes RESTART IDENTITY"))

    def close(self) -> None:
        self.blocking(self._connection.close())
        self._loop.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.blocking(self._connection.fetch(sql))]

    def log(self, run_id: str) -> Log:
        lines = self.blocking(self._connection.fetchval("SELECT log_json($1, 0)", run_id))
        return [Event(seq, type, from_micros(at), json.loads(data)) for seq, type, at, data in json.loads(lines)]

    def store(self, node: int, fate: Fate, auditor: Auditor, holders: set[object]) -> OpenStore:
        return SimulatedPostgresStore(self, fate)

    def plant(self, function: str, right: str, wrong: str) -> None:
        """Plant a bug into one of the functions."""
        sql = self.rows(f"SELECT pg_get_functiondef('{function}'::regproc)")[0][0]
        assert right in sql, f"{function} has no {right!r}"
        self.blocking(self._connection.execute(sql.replace(right, wrong)))

    # ── for the nodes' connections ──

    def carry_out(self, sql: str, given: tuple[Any, ...]) -> tuple[list[Any], list[list[Change]]]:
        """Its rows, and what each call in it has changed. Listeners hear of it later."""
        return self.blocking(self._carry_out(sql, given))

    def listens(self, connection: SimulatedConnection) -> None:
        self._listening.append(connection)

    def spread(self) -> None:
        """What was said by statements of late is on its way to all who listen."""
        said, self._said = self._said, []
        self._listening = [each for each in self._listening if not (each.is_closed() or each.fate.process.is_dead)]
        for message in said:
            sender, *runs = message.split(" ")
            for listening in self._listening:
                for run in runs:  # one by one: the order in a set of several is another in another process
                    listening.fate.arrives(listening.message, f"{sender} {run}")

    def blocking(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on a loop of its own, while virtual time is stopped."""
        around = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(call)
        finally:
            asyncio._set_running_loop(around)

    async def _carry_out(self, sql: str, given: tuple[Any, ...]) -> tuple[list[Any], list[list[Change]]]:
        rows = list(await self._connection.fetch(sql, *given))
        if "execute_batch" not in sql:
            return rows, []
        notes = [json.loads(row[0]) for row in await self._connection.fetch(TAKEN)]
        return rows, [[Change(run_id, epoch, events) for run_id, epoch, events in note] for note in notes]

    async def _prepared(self, url: str) -> Any:
        connection = await asyncpg.connect(url)
        await migrate(connection, url)
        await connection.execute(WATCH)
        for table in (*TABLES, "known_runs", "notes"):  # nothing may happen that the seed doesn't say
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await connection.add_listener(CHANNEL, lambda *said: self._said.append(str(said[-1])))
        return connection


class SimulatedConnection:
    """A replacement for asyncpg's connection, without the network."""

    def __init__(self, database: PostgresDatabase, fate: Fate) -> None:
        self.fate = fate
        self._database = database
        self._is_closed = False
        self._heard: Callable[..., None] | None = None
        self._lost: list[Callable[[Any], None]] = []

    async def fetch(self, sql: str, *given: Any) -> list[Any]:
        """The line may give up meanwhile: that does not call a statement back which is on its way to the server."""
        writes = "execute_batch" in sql
        try:
            await self.fate.before(writes=writes)
            rows, notes = self._database.carry_out(sql, given)
            if notes:
                self.fate.committed(notes)
            self._database.spread()
            await self.fate.after(writes=writes)
        except Mishap as mishap:
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError(f"connection was closed ({mishap})") from None
        if self._is_closed:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return rows

    async def fetchval(self, sql: str) -> Any:
        return (await self.fetch(sql))[0][0]

    async def add_listener(self, channel: str, heard: Callable[..., None]) -> None:
        await self.fetch("SELECT 1")
        self._heard = heard
        self._database.listens(self)

    def add_termination_listener(self, lost: Callable[[Any], None]) -> None:
        self._lost.append(lost)

    def message(self, text: str) -> None:
        if self._heard is not None and not self._is_closed:
            self._heard(self, 0, CHANNEL, text)

    def is_closed(self) -> bool:
        return self._is_closed

    def terminate(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            for lost in self._lost:
                lost(self)

    async def close(self, timeout: float = 0.0) -> None:
        self.terminate()


class SimulatedPostgresStore(PostgresStore):
    """The store of one simulated process."""

    def __init__(self, database: PostgresDatabase, fate: Fate) -> None:
        async def connect() -> Any:
            try:
                await fate.before(writes=False)
            except Mishap as mishap:
                raise NotConnectedError(f"The database can't be reached: {mishap}") from None
            return SimulatedConnection(database, fate)

        super().__init__(connect, fate.process.name, INSTALLATION)
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
