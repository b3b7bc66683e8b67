"""A process that deletes what ended long ago, and dies at its k-th write, for each k; and one that goes on after it.

    python -m tests.support.dying_retention FOLDER FIRST STEP [early]

A real process deletes on the real driver, and is killed by SIGKILL just before its k-th write to the database or its
k-th piece of the archive. One line of JSON for each death: what was lost by then, and what a second process found.
`early` plants a bug: runs are deleted before their archive is on the disk.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from approvals_bot import Engine, create_hook, workflow
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.engine.fsck import FsckCounts, examine
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.store.copying import read_beside
from approvals_bot.service import retention
from approvals_bot.service.audit import derive_key, write_export
from approvals_bot.service.audit_verify import Keys, verify_lines
from approvals_bot.service.erasure import archived_lines
from approvals_bot.testing import FakeClock
from tests.support.dying_process import in_a_fork
from tests.support.watched_sqlite import watch

RUNS, OPEN = 5, 1
BEGIN, DAYS = datetime(2026, 1, 1, 9, tzinfo=UTC), timedelta(days=400)
KEY = "a key of the tests, 32 bytes and longer"
retention.AT_ONCE, retention.IN_ONE = 3, 2  # so that a few runs are several pages, and several transactions


@workflow(name="job of a dying retention")
async def job(number: int) -> int:
    return number if number < RUNS else int(await create_hook(token="open"))


async def prepare(database: Path) -> None:
    """Make a database with runs that ended long ago, and one that is open."""
    async with Engine.open(f"sqlite:///{database}", clock=FakeClock(BEGIN), signing_keys=[KEY]) as engine:
        for number in range(RUNS + OPEN):
            await engine.start(job, number, idempotency_key=f"key {number}")
        await engine.settle()
        while await engine.store.seal_ended(engine.now(), None, 50):
            pass


async def delete(folder: Path) -> int:
    """Delete what may be deleted."""
    clock = FakeClock(BEGIN + DAYS + timedelta(days=1))
    async with Engine.open(f"sqlite:///{folder}/runs.db", clock=clock, signing_keys=[KEY]) as engine:
        rules = retention.RetentionRules(others=DAYS)
        return (await retention.delete_ended(engine, rules, folder / "archive", rest=0)).runs


def live_until(k: int, early: bool, folder: Path) -> None:
    """In a process of its own."""
    seen = 0

    def see(_: object = None) -> None:
        nonlocal seen
        seen += 1
        if seen == k:
            os.kill(os.getpid(), signal.SIGKILL)

    class Watched(gzip.GzipFile):
        def write(self, data: Any) -> int:
            see()
            return super().write(data)

        def flush(self, *mode: Any) -> None:
            see()
            super().flush(*mode)

    if early:
        retention.Archive.flush = lambda self: None  # type: ignore[method-assign]
    watch(see)
    gzip.GzipFile = Watched  # type: ignore[misc]
    asyncio.run(delete(folder))


def left(folder: Path) -> dict[str, Any]:
    """Return what is there of each run: its row, its stub, and the hashes of its lines in archives."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "archive").glob("runs-*")):
        for line in archived_lines(path):
            found.setdefault(line["run_id"], []).append(line["events"][-1]["hash"])
    with closing(sqlite3.connect(folder / "runs.db")) as db:
        rows, stubs = (
            [id for (id,) in db.execute(f"SELECT {name} FROM {table} ORDER BY 1")]  # noqa: S608
            for name, table in (("id", "runs"), ("run_id", "stubs"))
        )
    return {"rows": rows, "stubs": stubs, "archived": found}


async def finish(folder: Path) -> dict[str, Any]:
    """Let another process go on, and check everything."""
    deleted = await delete(folder)
    url = f"sqlite:///{folder}/runs.db"
    async with read_beside(url) as tables:
        pages = examine(tables, Replayer(lambda hook: ""), registry, None, FsckCounts())
        faults = [fault.what async for faults, _ in pages for fault in faults]
    out = io.BytesIO()
    async with Engine.open(url, clock=FakeClock(BEGIN + 2 * DAYS), signing_keys=[KEY]) as engine:
        await write_export(engine, derive_key(KEY), out)
    is_sound = verify_lines(io.BytesIO(out.getvalue()), Keys(derived=(derive_key(KEY),))).is_sound
    return {"deleted": deleted, "faults": faults, "is_sound": is_sound, "then": left(folder)}


def die_at(k: int, early: bool, base: Path, folder: Path) -> dict[str, Any]:
    """Let a process die at its k-th write, and report what it left, and what another one made of that."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(base, folder / "runs.db")
    report = folder / "report.json"
    found: dict[str, Any] = {"k": k, "ended": in_a_fork(lambda: live_until(k, early, folder))}
    # SQLite is never used in this process: what it remembers would be inherited by those that are forked from here.
    for work in (lambda: left(folder), lambda: asyncio.run(finish(folder))):
        done = in_a_fork(lambda work=work: report.write_text(json.dumps(work())))  # type: ignore[misc]
        found |= json.loads(report.read_text()) if done == 0 else {"failed": done}
    return found


def main(folder: Path, first: int, step: int, how: str = "") -> None:
    base = folder / "base.db"
    assert in_a_fork(lambda: asyncio.run(prepare(base))) == 0
    for k in itertools.count(first, step):
        found = die_at(k, how == "early", base, folder / "house")
        sys.stdout.write(json.dumps(found) + "\n")
        if found["ended"] != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
