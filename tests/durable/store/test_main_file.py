"""The main file of a SQLite database is replaced, as by an operator who copies a backup over it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from approvals_bot.durable.store.main_file import FULL_WAL
from approvals_bot.durable.store.sqlite import SqliteStore
from approvals_bot.errors import FileReplacedError, StoreUnavailableError
from tests.support.new_runs import new_run

T0 = datetime(2026, 1, 1, tzinfo=UTC)


async def working(file: Path) -> SqliteStore:
    store = await SqliteStore.open(str(file))
    await store.begin_work()
    return store


async def add(store: SqliteStore, *ids: str) -> None:
    for id in ids:
        await store.create(new_run(id, "w", "w", None, {}), T0)


async def ids_in(file: Path) -> list[str]:
    store = await SqliteStore.open(str(file))
    found = await store._lists.run(lambda db: db.execute("SELECT id FROM runs ORDER BY id").fetchall())
    await store.close()
    return [id for (id,) in found]


def back_up(file: Path, to: Path) -> bytes:
    with closing(sqlite3.connect(file)) as db:
        db.execute("VACUUM INTO ?", (str(to),))
    return to.read_bytes()


def kept_wals(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}-wal.*"))


async def test_a_file_written_over_in_place_is_noticed_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "runs.db"
    store = await working(file)
    await add(store, "a")
    backup = back_up(file, tmp_path / "backup.db")
    await add(store, "b")
    with file.open("r+b") as written:  # the same inode
        written.write(backup)
        written.truncate()
    with pytest.raises(FileReplacedError):
        await add(store, "c")
    for call in (store.read("a"), store.audit_lines(), store.changed(), store.check()):
        with pytest.raises(FileReplacedError):
            await call
    await store.close()
    assert file.read_bytes() == backup, "nothing of the WAL came into it"
    assert [record.__dict__["event"] for record in caplog.records] == ["file_replaced"] * 2, "once, and when put aside"
    assert len(kept_wals(file)) == 1
    assert await ids_in(file) == ["a"]


async def test_a_wal_is_never_applied_to_another_file(tmp_path: Path) -> None:
    file, crashed = tmp_path / "runs.db", tmp_path / "crashed" / "runs.db"
    store = await working(file)
    await add(store, "a")
    backup = back_up(file, tmp_path / "backup.db")
    await add(store, "b")
    crashed.parent.mkdir()

    def crash() -> None:
        """Leave the files as `kill -9` does."""
        for end in ("", "-wal"):
            shutil.copyfile(f"{file}{end}", f"{crashed}{end}")

    crash()
    assert await ids_in(crashed) == ["a", "b"], "its own is applied"
    crash()
    crashed.write_bytes(backup)
    with pytest.raises(StoreUnavailableError, match="it was replaced"):
        await SqliteStore.open(str(crashed), upgrade=False)
    assert crashed.read_bytes() == backup
    assert not kept_wals(crashed), "a process that only reads puts nothing aside"
    assert await ids_in(crashed) == ["a"]
    assert [wal.stat().st_size > 0 for wal in kept_wals(crashed)] == [True]
    await store.close()


@pytest.mark.parametrize("how", ["emptied", "moved"])
async def test_changes_without_their_file_are_left_alone(tmp_path: Path, how: str) -> None:
    """SQLite deletes them: what was acknowledged last would be gone, and nobody would hear of it."""
    file, wal = tmp_path / "runs.db", tmp_path / "runs.db-wal"
    store = await working(file)
    await add(store, "a")
    kept, changes = file.read_bytes(), wal.read_bytes()
    await store.close()
    wal.write_bytes(changes)  # as a killed process leaves it
    file.write_bytes(b"") if how == "emptied" else file.unlink()
    with pytest.raises(StoreUnavailableError, match=r"emptied, moved or deleted, and .*-wal still holds changes"):
        await SqliteStore.open(str(file))
    assert wal.read_bytes() == changes
    file.write_bytes(kept)
    assert await ids_in(file) == ["a"]


async def test_checkpoints_keep_the_wal_short_and_are_our_own(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    first, second = await working(file), await working(file)
    await add(first, "0")
    await add(second, "1")
    before = file.stat().st_size
    for _ in range(4):
        for each in (first, second):
            await each._writer.run(lambda db: db.execute(_FILL.format(most=FULL_WAL // 3)))
    await add(first, "2")
    await add(second, "3")
    assert file.stat().st_size > before
    assert Path(f"{file}-wal").stat().st_size < 2 * FULL_WAL * 4_120
    shutil.copyfile(file, tmp_path / "crashed.db")
    shutil.copyfile(f"{file}-wal", tmp_path / "crashed.db-wal")
    assert await ids_in(tmp_path / "crashed.db") == ["0", "1", "2", "3"], "whichever of its stamps the file has"
    assert not kept_wals(tmp_path / "crashed.db")
    await first.close()
    await second.close()


_FILL = """
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {most})
    INSERT INTO file_parts SELECT hex(randomblob(16)), n, zeroblob(4000) FROM n"""


async def test_a_malformed_database_is_unavailable_for_everybody(tmp_path: Path) -> None:
    store = await working(tmp_path / "runs.db")

    def fails(db: sqlite3.Connection) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    for connection in (store._writer, store._reader, store._lists):
        with pytest.raises(StoreUnavailableError, match="malformed"):
            await connection.run(fails)
    await store.close()
