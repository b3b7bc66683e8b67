"""Copying an installation from SQLite to PostgreSQL and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditEntry, Owes
from approvals_bot.durable.store.copying import copy
from approvals_bot.durable.store.documents import DocumentRow
from approvals_bot.durable.store.files import FileRow
from approvals_bot.durable.store.personal import PersonalRow
from approvals_bot.durable.store.protocol import Append, Filter, Lease, StateRow
from approvals_bot.durable.store.retention import Stub
from approvals_bot.errors import StoreCopyError
from tests.support.new_runs import new_run
from tests.support.postgres_server import PostgresServer

T0 = datetime(2026, 1, 1, tzinfo=UTC)
ODD = "a\x00b \ud800 \\u0000 💥"


def quiet(text: str) -> None:
    """Ignore lines on the progress."""


async def an_installation(url: str) -> None:
    """Write a finished run, a waiting run, a claimed run and an audit, with text that is hard to store."""
    store = await connect(url)
    lease = Lease("somebody", T0, T0 + timedelta(days=1))
    for n in range(3):
        new = new_run(f"r{n}", "w", "w", None, {"text": ODD}, f"key {n} {ODD}", {"name": ODD}, "request")
        created = await store.create(new, T0 + timedelta(seconds=n), lease)
        assert created.claimed is not None
        hook = NewEvent("hook_created", {"id": 1, "hook_id": f"h{n}", "token": f"{ODD} {n}", "answer": None})
        view = {"title": ODD}
        batch = Append(
            f"r{n}",
            created.claimed.claim.epoch,
            1,
            [hook],
            T0,
            view=view,
            parts=[{"title": ODD}],
            attributes={"$waiting_for": ["ann@acme.eu"]},
            release=n != 2,
            wake_at=T0,
        )
        await store.append(batch)
        await store.receive(f"h{n}", ODD, {"text": ODD}, T0, owes=Owes(f"o{n}", {"who": ODD}))
    await store.record("r0", [NewEvent("run_cancelled", {"reason": ODD})], T0)
    for n in range(3):
        await store.audit(AuditEntry(f"refused {n}", ODD, None, {"text": ODD}), T0)
        await store.set_schedule(StateRow(f"w/{ODD} {n}", 1, {"why": ODD}))
        await store.set_counter(StateRow(f"c/{ODD} {n}", 1, {"why": ODD}), T0, T0 + timedelta(days=1))
    await store.set_personal(PersonalRow("ann@acme.eu", {"zone": ODD}, T0))
    assert await store.put_document(DocumentRow("User", "1", "ann", {"name": ODD}, 0)) == 1
    await store.begin_file(FileRow("file", "app:ci", T0, T0 + timedelta(hours=1)))
    for n in range(2):
        await store.add_file_part("file", n, bytes(range(256)) * (n + 1))
    await store.finish_file("file", '{"name": "a"}')
    assert await store.claim_file("file", T0)
    await store.create(new_run("gone", "w", "w", None, {"workflow": "w", "input": {}}), T0)
    assert await store.delete_runs([(Stub("gone", "w", "request", "approved", T0, 1, "head"), ["hook-gone"])], []) == 1
    await store.close()


async def seen(url: str) -> list[object]:
    store = await connect(url)
    rows, _ = await store.runs(Filter(attributes={"$waiting_for": "ann@acme.eu", "name": ODD}, is_open=True))
    found: list[object] = [row.id for row in rows]
    found += [await store.read(f"r{n}") for n in range(3)]
    found += [await store.hook(token=f"{ODD} {n}") for n in range(3)]
    found += [await store.audit_lines(), await store.owed_lines(9), sorted(await store.schedules())]
    found += [await store.documents(0), await store.file("file"), *[await store.file_part("file", n) for n in range(3)]]
    found.append(await store.stub(hook_id="hook-gone"))
    await store.close()
    return found


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    return lambda name: f"sqlite:///{tmp_path}/{name}.db"


async def test_an_installation_copied_to_postgresql_and_back_is_the_same(
    postgres_url: str, file: Callable[[str], str]
) -> None:
    await an_installation(file("old"))
    before = await seen(file("old"))
    counts = await copy(file("old"), postgres_url, quiet)
    assert counts == {
        "runs": 3,
        "attributes": 6,
        "events": 10,
        "chain": 10,
        "hooks": 3,
        "taken": 0,
        "owed_lines": 3,
        "stubs": 1,
        "stub_hooks": 1,
        "schedules": 3,
        "counters": 3,
        "personal": 1,
        "documents": 1,
        "files": 1,
        "file_parts": 2,
        "audit": 3,
    }
    assert await seen(postgres_url) == before
    store = await connect(postgres_url)
    again = await store.create(new_run("new", "w", "w", None, {}, f"key 1 {ODD}"), T0)
    assert again.run_id == "r1"
    assert {c.claim.run_id for c in await store.claim(Lease("me", T0, T0 + timedelta(seconds=15)), 9)} == {"r1", "r2"}
    await store.audit(AuditEntry("one more"), T0)
    await store.close()
    await copy(postgres_url, file("new"), quiet)
    assert await seen(file("new")) == await seen(postgres_url)


@pytest.mark.parametrize("as_new", [False, True])
async def test_a_copy_is_the_same_installation_unless_as_new(
    postgres_url: str, file: Callable[[str], str], *, as_new: bool
) -> None:
    await an_installation(file("old"))
    await copy(file("old"), postgres_url, quiet, as_new=as_new)
    await copy(postgres_url, file("back"), quiet, as_new=as_new)
    found = []
    for url in (file("old"), postgres_url, file("back")):
        store = await connect(url)
        found.append(store.installation)
        await store.close()
    assert all(found)
    assert len(set(found)) == (3 if as_new else 1)


async def test_a_target_that_is_not_empty_is_refused(postgres_url: str, file: Callable[[str], str]) -> None:
    await an_installation(file("old"))
    await copy(file("old"), postgres_url, quiet)
    before = await seen(postgres_url)
    with pytest.raises(StoreCopyError, match="isn't empty"):
        await copy(file("old"), postgres_url, quiet)
    assert await seen(postgres_url) == before


async def test_a_source_in_use_by_a_service_is_refused(postgres_url: str, file: Callable[[str], str]) -> None:
    await an_installation(file("old"))
    service = await connect(file("old"))
    await service.begin_work()
    with pytest.raises(StoreCopyError, match="Stop it first"):
        await copy(file("old"), postgres_url, quiet)
    await service.close()
    await copy(file("old"), postgres_url, quiet)
    replica = await connect(postgres_url)
    with pytest.raises(StoreCopyError, match="Stop it first"):
        await copy(postgres_url, file("new"), quiet)
    await replica.close()


async def test_a_broken_audit_is_not_copied(
    postgres_url: str, file: Callable[[str], str], postgres: PostgresServer
) -> None:
    await an_installation(file("old"))
    db = sqlite3.connect(file("old").removeprefix("sqlite:///"))
    db.execute("UPDATE audit SET what = 'nothing happened' WHERE seq = 2")
    db.commit()
    db.close()
    with pytest.raises(StoreCopyError, match="Line 2"):
        await copy(file("old"), postgres_url, quiet)
    store = await connect(postgres_url)
    assert await store.runs(Filter()) == ([], None), "nothing was kept"
    await store.close()
