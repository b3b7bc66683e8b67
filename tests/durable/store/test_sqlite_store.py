"""Promises of the SQLite store alone."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from approvals_bot.cli.commands import error_text
from approvals_bot.durable.store import connect, sqlite
from approvals_bot.durable.store.group_commit import in_thread
from approvals_bot.durable.store.protocol import Filter, Lease, OpenStore
from approvals_bot.durable.store.sqlite import SqliteStore
from approvals_bot.errors import StoreReadOnlyError, StoreUnavailableError
from tests.support.faulty_house import NOBODY, as_nobody
from tests.support.new_runs import new_run

T0 = datetime(2026, 1, 1, tzinfo=UTC)


async def test_sqlite_runs_with_wal_and_synchronous_full(tmp_path: Path) -> None:
    store = await SqliteStore.open(f"{tmp_path}/runs.db")
    for connection in (store._writer._connection, store._reader._connection, store._lists._connection):
        settings = await in_thread(
            connection, lambda db: [db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")]
        )
        assert settings == ["wal", 2]
    await store.close()


async def test_a_file_that_cannot_have_a_wal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="journal_mode=wal"):
        await connect("sqlite:///:memory:")


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Give a folder to a user who, unlike root, needs rights to write, and be that user for the block."""
    is_root = bool(as_nobody(folder))
    try:
        if is_root:
            os.seteuid(NOBODY)
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("closed", "path"),
    [
        ("data/runs.db", "data/runs.db"),
        ("data/runs.db.lock", "data/runs.db"),
        ("data", "data/runs.db"),
        ("data", "data/new/other.db"),
    ],
)
async def test_a_file_that_cannot_be_written_is_refused(closed: str, path: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # which others may enter, unlike pytest's
        folder = Path(name)
        (folder / "data").mkdir()
        await (await connect(f"sqlite:///{folder}/data/runs.db")).close()
        (folder / "data/runs.db.lock").touch()
        before = sorted(folder.rglob("*"))
        (folder / closed).chmod(0o500)
        with unprivileged(folder), pytest.raises(StoreReadOnlyError) as refused:
            await connect(f"sqlite:///{folder}/{path}")
        said = error_text(refused.value)
        assert said == (
            f"The database {folder}/{path} can't be used: {folder}/{closed} can't be written to by this user. "
            "Let the service's user write to the database's file and its folder; run commands as that user."
        )
        with unprivileged(folder):
            reading = await connect(f"sqlite:///{folder}/data/runs.db", to_read=True)
        await reading.close()
        assert sorted(folder.rglob("*")) == before


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = await connect(f"sqlite:///{tmp_path}/runs.db")
    await store.close()
    db = sqlite3.connect(f"{tmp_path}/runs.db")
    db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreUnavailableError, match="newer"):
        await connect(f"sqlite:///{tmp_path}/runs.db")


NEXT = ("0002_next.sqlite.sql", "ALTER TABLE runs ADD COLUMN note TEXT;\nCREATE INDEX noted ON runs (note);")


async def test_a_migration_is_applied_once_and_older_programs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    store = await connect(url)
    await store.create(new_run("r", "w", "w", None, {}), T0)
    known = sqlite._migrations()
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "_migrations", lambda: [*known, NEXT])
        with pytest.raises(StoreUnavailableError, match=r"has schema 1, but this program works with 2.*migrate"):
            await connect(url, upgrade=False)
        upgraded = await asyncio.gather(connect(url), connect(url))
        for each in upgraded:
            assert await each.read("r") == await store.read("r"), "both go on, the one before as well"
            await each.check()
            await each.close()
    with pytest.raises(StoreUnavailableError, match="this program needs 1"):
        await store.check()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
        assert db.execute("SELECT note FROM runs").fetchall() == [(None,)]
    with pytest.raises(StoreUnavailableError, match="has schema 2, but this program knows only 1"):
        await connect(url)


@pytest.mark.parametrize("version", [0, 1])
async def test_another_programs_database_is_refused_and_unchanged(tmp_path: Path, version: int) -> None:
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as db, db:
        db.execute("CREATE TABLE songs (title TEXT)")
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreUnavailableError, match="another program"):
        await connect(f"sqlite:///{tmp_path}/theirs.db")
    with closing(sqlite3.connect(tmp_path / "theirs.db")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


async def test_opening_an_up_to_date_database_waits_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    store = await SqliteStore.open(str(file))
    await store.create(new_run("r", "w", "w", None, {}), T0)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = other.execute("PRAGMA data_version").fetchone()
        beside = await SqliteStore.open(str(file), upgrade=False)
        assert await beside.read("r") is not None
        await beside.close()
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA data_version").fetchone() == before
    await store.close()


async def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailableError, match=r"runs\.db"):
        await connect(f"sqlite:///{tmp_path}/runs.db")


async def test_only_the_sole_process_frees_the_leases_of_dead_ones(tmp_path: Path) -> None:
    async def work() -> OpenStore:
        store = await connect(f"sqlite:///{tmp_path}/runs.db")
        await store.begin_work()
        return store

    lease = Lease("somebody", T0, T0 + timedelta(days=1))
    first = await work()
    await first.create(new_run("r", "w", "w", None, {}), T0, lease)
    second = await work()
    assert await second.claim(lease) == []
    await first.close()
    third = await work()
    assert await third.claim(lease) == []  # the second is still there, and may hold the lease
    await second.close()
    await third.close()
    looking = await connect(f"sqlite:///{tmp_path}/runs.db")
    alone = await work()
    assert len(await alone.claim(lease)) == 1
    await alone.close()
    await looking.close()


@pytest.mark.parametrize("by", ["nothing", "a backup"])
async def test_writes_to_a_replaced_file_are_not_acknowledged(tmp_path: Path, by: str) -> None:
    file = tmp_path / "runs.db"
    store = await SqliteStore.open(str(file))
    await store.create(new_run("r", "w", "w", None, {}), T0)
    with closing(sqlite3.connect(file)) as db:
        db.execute("VACUUM INTO ?", (f"{tmp_path}/backup.db",))
    file.rename(tmp_path / "away.db")
    if by == "a backup":
        (tmp_path / "backup.db").rename(file)
    with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
        await store.create(new_run("s", "w", "w", None, {}), T0)
    with pytest.raises(StoreUnavailableError, match="moved, deleted or replaced"):
        await store.check()
    (tmp_path / "away.db").replace(file)
    await store.create(new_run("s", "w", "w", None, {}), T0)
    await store.close()


async def test_a_closed_store_says_that_it_is_unavailable(tmp_path: Path) -> None:
    store = await connect(f"sqlite:///{tmp_path}/runs.db")
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.create(new_run("r", "w", "w", None, {}), T0)
    with pytest.raises(StoreUnavailableError):
        await store.read("r")


async def test_other_urls_are_refused() -> None:
    with pytest.raises(ValueError, match="sqlite:///"):
        await connect("mysql://root:secret@localhost/db")


SLOW = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {most}) SELECT count(*) FROM n"


async def test_a_slow_list_delays_no_click_and_ends_with_its_caller(tmp_path: Path) -> None:
    store = await SqliteStore.open(f"{tmp_path}/runs.db")
    await store.create(new_run("r", "w", "w", None, {}), T0)
    slow = store._lists.run(lambda db: db.execute(SLOW.format(most=10**9)).fetchone())
    await asyncio.sleep(0.1)
    async with asyncio.timeout(20):
        assert await store.read("r") is not None
        assert await store.look(0, token="t") is None
        assert await store.next_wake("me", T0) == T0
        await store.create(new_run("r2", "w", "w", None, {}), T0)
        assert not slow.done()
        slow.cancel()
        assert [run.id for run in (await store.runs(Filter()))[0]] == ["r2", "r"]
    await store.close()


async def test_each_list_has_a_snapshot_of_its_own(tmp_path: Path) -> None:
    """One snapshot for many lists would keep the WAL from being reused."""
    store = await SqliteStore.open(f"{tmp_path}/runs.db")
    begun, may_end = threading.Event(), threading.Event()

    def reads_slowly(db: sqlite3.Connection) -> None:
        db.execute("SELECT count(*) FROM runs").fetchone()
        begun.set()
        assert may_end.wait(60)

    slow = store._lists.run(reads_slowly)
    later = asyncio.create_task(store.runs(Filter()))
    await asyncio.to_thread(begun.wait, 60)
    await store.create(new_run("r", "w", "w", None, {}), T0)
    may_end.set()
    await slow
    assert [run.id for run in (await later)[0]] == ["r"]
    await store.close()
