"""Files, on both stores."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.copying import copy
from approvals_bot.durable.store.files import FileRow
from approvals_bot.durable.store.protocol import OpenStore
from tests.durable.store.conftest import Connect
from tests.support.new_runs import T0

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
PLAN = FileRow("file_1", "app:ci", T0, T0 + HOUR)
DESCRIBED = '{"name": "pl\\u00e4n.txt"}'


async def keep(store: OpenStore, row: FileRow = PLAN, *parts: bytes) -> None:
    await store.begin_file(row)
    for number, part in enumerate(parts):
        await store.add_file_part(row.id, number, part)
    await store.finish_file(row.id, DESCRIBED)


async def test_a_file_is_read_as_it_was_written(store: OpenStore) -> None:
    await store.begin_file(PLAN)
    await store.begin_file(PLAN._replace(owner="app:eve"))  # the same id twice: the first stays
    assert await store.file("file_1") == PLAN
    assert not PLAN.is_there(T0)
    for number, part in enumerate((bytes(range(256)), b"\0end", b"\0end")):
        await store.add_file_part("file_1", number, part)
    await store.add_file_part("file_1", 1, b"a repeat")
    await store.finish_file("file_1", DESCRIBED)
    row = await store.file("file_1")
    assert row == PLAN._replace(described=DESCRIBED)
    assert row is not None
    assert (row.is_there(T0 + HOUR - SECOND), row.is_there(T0 + HOUR)) == (True, False)
    assert [await store.file_part("file_1", number) for number in range(4)] == [
        bytes(range(256)),
        b"\0end",
        b"\0end",
        None,
    ]
    assert (await store.file("file_2"), await store.file_part("file_2", 0)) == (None, None)


async def test_a_claimed_file_stays_and_others_are_forgotten(store: OpenStore) -> None:
    await keep(store, PLAN, b"plan")
    await keep(store, PLAN._replace(id="file_2", until=T0 + SECOND), b"lost")
    await store.begin_file(PLAN._replace(id="file_3"))
    assert await store.unclaimed_files("app:ci", T0) == 3
    assert await store.unclaimed_files("app:ci", T0 + SECOND) == 2
    assert await store.unclaimed_files("app:desk", T0) == 0
    assert not await store.claim_file("file_3", T0)  # it isn't whole
    assert not await store.claim_file("file_2", T0 + SECOND)  # its time is over
    assert [await store.claim_file("file_1", T0 + n * HOUR) for n in (0, 2)] == [True, True]
    assert [await store.forget_file(T0 + HOUR) for _ in range(3)] == [True, True, False]
    assert not await store.forget_file(T0 + HOUR, "file_1")
    assert [await store.file_part(f"file_{n}", 0) for n in (1, 2)] == [b"plan", None]
    assert await store.file("file_1") == PLAN._replace(until=None, described=DESCRIBED)


async def test_a_file_that_is_given_up_leaves_nothing(store: OpenStore) -> None:
    await store.begin_file(PLAN)
    await store.add_file_part("file_1", 0, b"part")
    assert await store.forget_file(T0, "file_1")
    assert (await store.file("file_1"), await store.file_part("file_1", 0)) == (None, None)


async def test_a_claim_and_the_cleaning_never_both_win(connected: Connect) -> None:
    here, there = await connected(), await connected()
    for number in range(20):
        id = f"file_{number}"
        await keep(here, PLAN._replace(id=id), b"x")
        claimed, gone = await asyncio.gather(here.claim_file(id, T0), there.forget_file(T0, id))
        assert claimed != gone
        assert (await here.file_part(id, 0) is None) == gone


async def test_a_copy_has_the_files(store: OpenStore, connected: Connect, tmp_path: Path) -> None:
    await keep(store, PLAN, b"\0" * 100_000, b"end")
    await store.claim_file("file_1", T0)
    await store.audit(AuditEntry("started"), T0)
    await store.close()
    source = f"sqlite:///{tmp_path}/runs.db"
    if not (tmp_path / "runs.db").exists():
        return  # PostgreSQL is copied in test_copying
    counts = await copy(source, f"sqlite:///{tmp_path}/copy.db", lambda line: None)
    assert (counts["files"], counts["file_parts"]) == (1, 2)
    copied = await connect(f"sqlite:///{tmp_path}/copy.db")
    assert await copied.file("file_1") == PLAN._replace(until=None, described=DESCRIBED)
    assert await copied.file_part("file_1", 1) == b"end"
    await copied.close()
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
