"""Backups of both stores, and restoring them into both."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.core.events import NewEvent
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.backups import back_up, repeated_by, restore
from approvals_bot.durable.store.postgres_backups import Replacement
from approvals_bot.durable.store.protocol import Append, Filter, Lease, StateRow
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.errors import StoreCopyError, StoreUnavailableError
from tests.durable.store.test_copying import an_installation, quiet, seen
from tests.support.new_runs import new_run

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def url_of(store: str, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if store == "sqlite":
        return f"sqlite:///{tmp_path}/{name}.db"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgres"), ("postgres", "sqlite")])
async def test_a_backup_beside_the_service_restores_all_but_who_is_signed_in(
    source: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, file = url_of(source, "old", tmp_path, request), tmp_path / "backup.db"
    await an_installation(url)
    service = await connect(url)
    await service.begin_work()
    await service.add_session(SessionRow("s", "ann@acme.eu", "code", T0, T0, "Firefox", T0 + timedelta(days=1), True))
    await service.set_counter(StateRow("code 1", 1, {}), T0, T0 + timedelta(days=1))
    done = await back_up(url, file, quiet)
    assert (done.runs, done.events, done.seq) == (3, 10, 3)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if "backup" in each.name] == ["backup.db"], "nothing is left over"
    with pytest.raises(StoreCopyError, match="already exists"):
        await back_up(url, file, quiet)
    before, installation = await seen(url), service.installation
    await service.close()

    new = url_of(target, "new", tmp_path, request)
    counts, aside = await restore(file, new, quiet, at=T0)
    assert (counts["runs"], aside) == (3, None)
    restored = await connect(new)
    assert restored.installation == installation, "links that were sent work"
    assert await restored.sessions("ann@acme.eu") == []
    assert await restored.counter("code 1") is None
    await restored.close()
    assert await seen(new) == before

    with pytest.raises(StoreCopyError, match="isn't empty"):
        await restore(file, new, quiet, at=T0)
    holds = await connect(new)
    await holds.begin_work()
    await holds.create(new_run("later", "w", "w", None, {}), T0)
    with pytest.raises(StoreCopyError, match="A service is using"):
        await restore(file, new, quiet, at=T0, replace=True)
    assert await holds.read("later") is not None
    await holds.close()
    _, aside = await restore(file, new, quiet, at=T0, replace=True, as_new=True)
    assert aside is not None
    other = await connect(new)
    assert await other.read("later") is None
    assert other.installation != installation
    await other.close()


@pytest.mark.parametrize("source", ["sqlite", "postgres"])
async def test_a_backup_under_load_has_all_that_was_acknowledged_before(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, file, new = url_of(source, "old", tmp_path, request), tmp_path / "backup.db", f"sqlite:///{tmp_path}/new.db"
    service = await connect(url)
    await service.begin_work()
    acknowledged: list[str] = []

    async def start_runs() -> None:
        while True:
            id = f"r{len(acknowledged):05d}"
            await service.create(new_run(id, "w", "w", None, {}), T0)
            acknowledged.append(id)

    starting = asyncio.create_task(start_runs())
    while len(acknowledged) < 50:
        await asyncio.sleep(0.01)
    before = list(acknowledged)
    done = await asyncio.to_thread(lambda: asyncio.run(back_up(url, file, quiet)))
    during = len(acknowledged) - len(before)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await service.close()
    assert during > 0, "it held nobody up"
    assert done.runs == done.events >= len(before)
    await restore(file, new, quiet, at=T0)
    restored = await connect(new)
    for id in before:
        assert await restored.read(id) is not None
    await restored.close()


async def test_a_failed_restore_leaves_all_as_it_was(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "backup.db"
    await an_installation(f"sqlite:///{tmp_path}/old.db")
    await back_up(f"sqlite:///{tmp_path}/old.db", file, quiet)
    raw = bytearray(file.read_bytes())
    raw[5_000:20_000] = os.urandom(15_000)
    (tmp_path / "torn.db").write_bytes(raw)
    await an_installation(postgres_url)
    for url in (f"sqlite:///{tmp_path}/old.db", postgres_url):
        before = await seen(url)
        for name, version in (("older.db", 0), ("newer.db", 99)):
            shutil.copyfile(file, tmp_path / name)
            with closing(sqlite3.connect(tmp_path / name)) as db:
                db.execute(f"PRAGMA user_version = {version}")
        (tmp_path / "empty.db").write_bytes(b"")
        names = ("torn.db", "missing.db", "notes.txt", "older.db", "newer.db", "empty.db")
        for bad in (tmp_path / name for name in names):
            (tmp_path / "notes.txt").write_text("no database at all" * 99)
            with pytest.raises((StoreCopyError, StoreUnavailableError)):
                await restore(bad, url, quiet, at=T0, replace=True)
        assert await seen(url) == before
    assert not (tmp_path / "missing.db").exists()


async def test_runs_that_may_repeat_themselves_are_named(tmp_path: Path) -> None:
    url, file = f"sqlite:///{tmp_path}/runs.db", tmp_path / "backup.db"
    store = await connect(url)
    lease = Lease("somebody", T0, T0 + timedelta(days=1))
    steps: Sequence[tuple[str, list[NewEvent]]] = (
        ("sends", [NewEvent("step_created", {"id": 1, "name": "send_mail"})]),
        ("sent", [NewEvent("step_completed", {"id": 1, "name": "send_mail", "result": None})]),
    )
    for id, events in steps:
        created = await store.create(new_run(id, "w", "w", None, {}), T0, lease)
        assert created.claimed is not None
        await store.append(Append(id, created.claimed.claim.epoch, 1, events, T0, release=True))
    await back_up(url, file, quiet)
    await store.close()
    assert [(each.run_id, each.steps) for each in repeated_by(file, T0)] == [("sends", ("send_mail",))]


@pytest.mark.parametrize("old", ["open", "damaged"])
async def test_a_restore_that_is_killed_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str
) -> None:
    """What is on the disk before and after each name changes is what a kill in between leaves."""
    file, folder = tmp_path / "backup.db", tmp_path / "live"
    folder.mkdir()
    await an_installation(f"sqlite:///{tmp_path}/source.db")
    await back_up(f"sqlite:///{tmp_path}/source.db", file, quiet)
    store = await connect(f"sqlite:///{tmp_path}/was.db")
    await store.create(new_run("before", "w", "w", None, {}), T0)
    for name in ("was.db", "was.db-wal"):  # as a killed process leaves them: the run is in the -wal alone
        shutil.copyfile(tmp_path / name, folder / name.replace("was", "runs"))
    await store.close()
    if old == "damaged":
        for name in ("runs.db", "runs.db-wal"):
            (folder / name).write_bytes(b"no database" * 999)
    snapshots: list[Path] = []

    def snapped(does: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            for then in (False, True):
                result = does(*given, **named) if then else None
                if (folder / "runs.db").exists():
                    snapshots.append(shutil.copytree(folder, tmp_path / f"snapshot-{len(snapshots)}"))
            return result

        return call

    for where, name in ((os, "link"), (os, "replace"), (Path, "unlink")):
        monkeypatch.setattr(where, name, snapped(getattr(where, name)))
    _, aside = await restore(file, f"sqlite:///{folder}/runs.db", quiet, at=T0, replace=True)
    monkeypatch.undo()
    assert len(snapshots) > 8
    states = []
    for each in [*snapshots, folder]:
        shutil.copyfile(file, each / "copy.db")
        try:
            at = await connect(f"sqlite:///{each}/runs.db")
        except StoreUnavailableError:
            states.append("damaged")
            continue
        runs, _ = await at.runs(Filter())
        states.append("open" if [run.id for run in runs] == ["before"] else "new")
        await at.close()
    assert (states[0], states[-1], states) == (old, "new", sorted(states, key=["damaged", "open", "new"].index))
    if old == "open":
        kept = await connect(f"sqlite:///{aside}")
        assert await kept.read("before") is not None
        await kept.close()


async def test_a_killed_restore_into_postgres_changes_nothing(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "backup.db"
    await an_installation(f"sqlite:///{tmp_path}/source.db")
    await back_up(f"sqlite:///{tmp_path}/source.db", file, quiet)
    await an_installation(postgres_url)
    service = await connect(postgres_url)
    await service.create(new_run("old", "w", "w", None, {}), T0)
    await service.close()
    before = await seen(postgres_url)
    prepared = await Replacement.prepare(postgres_url, T0, replace=True)
    await (await connect(prepared.url)).close()  # … and is killed
    assert await seen(postgres_url) == before
    _, aside = await restore(file, postgres_url, quiet, at=T0, replace=True)
    assert aside is not None
    new = await connect(postgres_url)
    assert await new.read("old") is None
    await new.create(new_run("new", "w", "w", None, {}), T0)
    await new.close()
