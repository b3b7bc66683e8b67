"""Promises of the PostgreSQL store alone."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from datetime import UTC, datetime

import asyncpg
import pytest
from asyncpg import Connection

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store import connect, postgres_schema
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.postgres_connection import PostgresConnection, connect_to
from approvals_bot.durable.store.postgres_schema import examine
from approvals_bot.durable.store.protocol import Claim, Filter, Received
from approvals_bot.errors import StoreUnavailableError
from tests.support.new_runs import new_run
from tests.support.postgres_server import PostgresServer
from tests.support.tcp_proxy import proxy

T0 = datetime(2026, 1, 1, tzinfo=UTC)
PASSWORD = "open sesame"


async def test_asynchronous_commit_is_refused_at_the_start(postgres: PostgresServer) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    name = url.rpartition("?")[0].rpartition("/")[2] or url.rpartition("/")[2]
    await asyncio.to_thread(postgres.execute, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with pytest.raises(StoreUnavailableError, match=r"synchronous_commit=off.*Set it to on"):
        await connect(url)


async def test_a_newer_schema_is_refused(postgres: PostgresServer, postgres_url: str) -> None:
    await asyncio.to_thread(postgres.execute, "INSERT INTO schema_versions VALUES (999, 'later')", postgres_url)
    with pytest.raises(StoreUnavailableError, match="newer program"):
        await connect(postgres_url)


async def test_a_migration_is_retried_after_a_deadlock(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "ALTER TABLE runs ADD COLUMN note TEXT; ALTER TABLE hooks ADD COLUMN note TEXT"
    known = postgres_schema.migrations()
    monkeypatch.setattr(postgres_schema, "migrations", lambda: [*known, ("9999_next.postgres.sql", script)])
    other, upgrading = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    watching = await asyncpg.connect(postgres_url)
    try:
        at_work = other.transaction()
        await at_work.start()
        await other.execute("SELECT FROM hooks")  # the schema needs this table second …
        task = asyncio.create_task(postgres_schema.migrate(upgrading, postgres_url))
        while not await watching.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await other.execute("SELECT FROM runs")  # … and has this one: the first waiter gets the deadlock error
        await at_work.rollback()
        await task
        assert await other.fetchval("SELECT count(note) FROM hooks") == 0
    finally:
        for connection in (other, upgrading, watching):
            await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{PASSWORD}@127.0.0.1:1/approvals",
        f"postgresql://ann:{PASSWORD}@127.0.0.1:not-a-port/approvals",
        f"postgresql://ann:{PASSWORD}@[::1/approvals",
        f"postgresql://127.0.0.1:1/approvals?user=ann&password={PASSWORD}",
    ],
)
async def test_no_error_and_no_log_has_the_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StoreUnavailableError) as caught:
        await connect(url)
    error: BaseException | None = caught.value
    assert PASSWORD not in str(error)
    assert error is not None
    assert error.__suppress_context__
    assert PASSWORD not in caplog.text


async def test_every_call_ends_in_time_when_the_server_goes_silent(postgres: PostgresServer, postgres_url: str) -> None:
    with proxy(postgres.dial) as network:
        store = await connect(postgres.url_by(network.port, postgres_url))
        await store.create(new_run("r", "w", "w", None, {}), T0)
        await store.read("r")
        await store.runs(Filter())
        network.silent = True
        began = time.monotonic()
        calls = (
            store.create(new_run("r2", "w", "w", None, {}), T0),
            store.read("r"),
            store.hook(token="t"),
            store.runs(Filter()),
            store.check(),
            store.audit(AuditEntry("refused"), T0),
            store.next_wake("me", T0),
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailableError) for answer in answers), answers
        assert time.monotonic() - began < 10, "two seconds, on an idle machine"
        network.silent = False
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await store.read("r") is not None
                    break
                except StoreUnavailableError:
                    continue
        await store.check()
        await store.close()


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_two_replicas_that_write_to_the_same_runs_never_deadlock(postgres_url: str) -> None:
    stores = [await connect(postgres_url), await connect(postgres_url)]
    runs = [f"r{n:02}" for n in range(12)]
    for run in runs:
        await stores[0].create(new_run(run, "w", "w", None, {}), T0)
    third = await asyncpg.connect(postgres_url)
    for attempt in range(4):
        holding = third.transaction()  # somebody has a run in the middle, so both have some when they begin to wait
        await holding.start()
        await third.execute("SELECT FROM runs WHERE id = 'r06' FOR UPDATE")
        writes: list[asyncio.Future[object]] = []
        for store, order in zip(stores, (runs, runs[::-1]), strict=True):
            fact = NewEvent("step_retrying", {"id": id(store), "attempt": attempt})
            writes += [asyncio.ensure_future(store.record(run, [fact], T0)) for run in order]
            writes.append(asyncio.ensure_future(store.renew([Claim(run, 1) for run in order], T0)))
        async with asyncio.timeout(10):
            while await third.fetchval(WAITING) < 2:
                await asyncio.sleep(0)
        await holding.commit()
        await asyncio.gather(*writes)  # of two that wait for each other PostgreSQL gives up one: StoreUnavailableError
    for closing in (*stores, third):
        await closing.close()


async def test_a_cancelled_connect_leaves_no_connection_open(postgres: PostgresServer, postgres_url: str) -> None:
    """Python warns when a leaked connection is collected, and then this test fails."""
    with proxy(postgres.dial) as network:
        network.delay = 0.02  # for each chunk in either direction
        url = postgres.url_by(network.port, postgres_url)
        is_connected = False
        moments = (0.01 * moment for moment in range(1, 100))
        while not is_connected:
            connecting = asyncio.create_task(connect_to(url))
            await asyncio.wait([connecting], timeout=next(moments))
            if is_connected := connecting.done():
                connecting.result().terminate()
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            del connecting
            gc.collect(1)  # a full collection looks at all that tests have imported, each time
        gc.collect()


async def test_a_connection_made_during_close_is_closed_too(postgres: PostgresServer) -> None:
    url = await asyncio.to_thread(postgres.new_database)
    made: list[Connection] = []

    async def connect_late() -> Connection:
        made.append(await connect_to(url))
        await line.close()
        return made[0]

    line = PostgresConnection(connect_late)
    with pytest.raises(StoreUnavailableError, match="has been closed"):
        await line.fetch("SELECT 1")
    assert made[0].is_closed()


async def test_a_closed_store_says_that_it_is_unavailable(postgres_url: str) -> None:
    store = await connect(postgres_url)
    await store.close()
    for call in (store.read("r"), store.create(new_run("r", "w", "w", None, {}), T0), store.check()):
        with pytest.raises(StoreUnavailableError):
            await call


async def test_examine_finds_settings_and_standbys(postgres: PostgresServer, postgres_url: str) -> None:
    found = await examine(postgres_url)
    assert found.hears
    assert found.version
    assert found.asynchronous_standbys == ()


async def test_a_pool_that_refuses_the_connection_is_named() -> None:
    """Refuse an unknown startup parameter with a protocol violation, as PgBouncer does."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (size := int.from_bytes(await reader.readexactly(4), "big")) == 8:
            await reader.readexactly(4)  # asks for TLS
            writer.write(b"N")
        await reader.readexactly(size - 4)
        fields = b"SERROR\0C08P01\0Munsupported startup parameter: jit\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as pool:
        port = pool.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailableError, match="This looks like PgBouncer"):
            await connect(f"postgresql://ann:secret@127.0.0.1:{port}/approvals")


async def test_a_payload_whose_hook_moves_meanwhile_is_written_to_its_new_run(postgres_url: str) -> None:
    """Another replica continues the hook's run while the payload waits for that run's lock."""
    store = await connect(postgres_url)
    mover, writer = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    watching = await asyncpg.connect(postgres_url)
    hook = {"id": -1, "hook_id": "h", "token": "t"}
    try:
        old = new_run("old", "w", "w", None, {"run_id": "old", "input": {}, "hooks": [hook]})
        await store.create_with_hooks(old, T0)
        await store.create(new_run("new", "w", "w", None, {"run_id": "new", "input": {}}), T0)
        moves, writes = mover.transaction(), writer.transaction()
        await moves.start()
        await mover.execute("SELECT FROM runs WHERE id = 'old' FOR UPDATE")
        await writes.start()
        await writer.execute("UPDATE runs SET seq = 2 WHERE id = 'new'")
        await writer.execute("INSERT INTO events VALUES ('new', 2, 'run_started', 0, 'run_started', '{}')")
        receiving = asyncio.create_task(store.receive("h", "1", "yes", T0))
        while not await watching.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await mover.execute("UPDATE hooks SET run_id = 'new' WHERE id = 'h'")
        await moves.commit()
        await asyncio.sleep(0.3)  # it waits for the lock of the new run by now
        await writes.commit()
        received = await receiving
        assert isinstance(received, Received)
        read = await store.read("new")
        assert read is not None
        assert read[1][-1] == received.event
        assert received.event.seq == 3
    finally:
        for connection in (mover, writer, watching):
            await connection.close()
        await store.close()
