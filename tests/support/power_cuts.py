"""What a disk may hold after the power went: everything that was synced, and of the rest whatever the disk liked.

    python power_cuts.py FOLDER FULL|NORMAL

A real process on the real driver does a job, and writes to FOLDER/recording what SQLite did to its files, in order,
with what was acknowledged in between. `images` makes disks of that.
"""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from approvals_bot import Engine, create_hook, workflow
from approvals_bot.durable.store import main_file, sqlite
from tests.support.dying_process import job
from tests.support.watched_sqlite import Operation, watch

SECTOR = 512  # bytes that a disk writes as a whole
CLICKS = 120

Recording = list[Operation | str]  # a text: this was acknowledged now


@workflow(name="clicks counted under a failing power supply")
async def count(clicks: int) -> int:
    hook = create_hook(token="clicks")
    for _ in range(clicks):
        await hook
    return clicks


# ── recording ─────────────────────────────────────────────────────────────────────────────────────────────────────


def record(folder: Path, synchronous: str) -> None:
    recording: Recording = []
    watch(recording.append)
    _set_up(synchronous)
    asyncio.run(_work(folder / "runs.db", recording))
    (folder / "recording").write_bytes(pickle.dumps(recording))


def _set_up(synchronous: str) -> None:
    """Checkpoints come often, so that power fails in their midst, too. (The store refuses to start with NORMAL.)"""
    real = sqlite._set_up

    def set_up(db: sqlite3.Connection) -> None:
        real(db)
        db.execute(f"PRAGMA synchronous = {synchronous}")

    sqlite._set_up = set_up
    main_file.FULL_WAL = 60


async def _work(database: Path, recording: Recording) -> None:
    async with Engine.open(f"sqlite:///{database}", signing_keys=["k" * 40], base_url="https://example.test") as engine:
        counting = await engine.start(count, CLICKS)
        recording.append(f"run {counting.id}")
        while len(await engine.events(counting.id)) < 3:
            await asyncio.sleep(0.002)
        for number in range(CLICKS):
            await engine.resume_hook("clicks", number, resume_id=f"click {number}")
            recording.append(f"click {number}")
            if number % 10 == 0:
                await engine.audit(f"looked {number}", actor={"kind": "rule"})
                recording.append(f"audit looked {number}")
                other = await engine.start(job, attributes={"number": str(number)})
                recording.append(f"run {other.id}")
                await engine.settle()
                await other.cancel()
        assert await asyncio.wait_for(counting.return_value(), 30) == CLICKS
        recording.append(f"end {counting.id}")


# ── disks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _File:
    """None: it isn't there."""

    durable: bytearray | None = None
    pending: list[Operation] = field(default_factory=list)


@dataclass(frozen=True)
class Image:
    """A disk at the moment after `cut` operations, and what had been acknowledged by then."""

    cut: int
    files: dict[str, bytes]
    acknowledged: list[str]

    def write(self, folder: Path) -> Path:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / "runs.db"


def images(recording: Recording, number: int, seed: int) -> Iterator[Image]:
    """Power cuts spread over the whole recording, each with another fate of what was not synced."""
    chance = Random(seed)  # noqa: S311  # the same disks each time
    cuts = sorted(chance.randrange(1, len(recording) + 1) for _ in range(number))
    files: dict[str, _File] = {}
    acknowledged: list[str] = []
    done = 0
    for cut in cuts:
        for each in recording[done:cut]:
            if isinstance(each, str):
                acknowledged.append(each)
            else:
                _do(each, files)
        done = cut
        fates = {name: _after_the_cut(file, chance) for name, file in files.items()}
        yield Image(cut, {name: bytes(left) for name, left in fates.items() if left is not None}, [*acknowledged])


def _do(operation: Operation, files: dict[str, _File]) -> None:
    name = Path(operation.path).name
    file = files.setdefault(name, _File())
    file.pending.append(operation)
    if operation.kind == "sync":
        # With a new journal or log SQLite syncs the folder, too, and that makes earlier deletions durable.
        is_new = file.durable is None and name.endswith(("-journal", "-wal"))
        _settle(file)
        for each in files.values() if is_new else ():
            if any(pending.kind == "delete" for pending in each.pending):
                _settle(each)
    elif operation.kind == "delete" and operation.offset:
        _settle(file)


def _settle(file: _File) -> None:
    """What is pending is durable now."""
    for each in file.pending:
        file.durable = _apply(each, file.durable)
    file.pending.clear()


def _after_the_cut(file: _File, chance: Random) -> bytearray | None:
    content = None if file.durable is None else bytearray(file.durable)
    kept = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))  # of what was not synced
    for operation in file.pending:
        if chance.random() < kept:
            content = _apply(_perhaps_torn(operation, chance), content)
    return content


def _perhaps_torn(operation: Operation, chance: Random) -> Operation:
    """Of a write only the first sectors, at times."""
    if operation.kind != "write" or chance.random() < 0.5:
        return operation
    sectors = chance.randrange(len(operation.data) // SECTOR + 1)
    return Operation("write", operation.path, operation.offset, operation.data[: sectors * SECTOR])


def _apply(operation: Operation, content: bytearray | None) -> bytearray | None:
    match operation.kind:
        case "delete":
            return None
        case "truncate":
            content = bytearray() if content is None else content
            del content[operation.offset :]
            return content
        case "write":
            content = bytearray() if content is None else content
            content.extend(bytes(max(0, operation.offset + len(operation.data) - len(content))))
            content[operation.offset : operation.offset + len(operation.data)] = operation.data
            return content
        case "sync":
            return bytearray() if content is None else content


def lost(database: Path, acknowledged: list[str]) -> list[str]:
    """What was acknowledged and is not there; or that the database is not whole."""
    with closing(sqlite3.connect(database)) as db:
        integrity = db.execute("PRAGMA integrity_check").fetchone()[0]
        if integrity != "ok":
            return [f"integrity: {integrity}"]
        try:
            events = db.execute("SELECT run_id, type, json_extract(data, '$.resume_id') FROM events").fetchall()
            audit = db.execute("SELECT what FROM audit").fetchall()
        except sqlite3.OperationalError:  # no table yet
            events, audit = [], []
    there = {f"audit {what}" for (what,) in audit}
    for run_id, type_, resume_id in events:
        there |= {f"run {run_id}"} | ({f"end {run_id}"} if type_ == "run_completed" else set())
        there |= {str(resume_id)} if type_ == "hook_received" else set()
    return [what for what in acknowledged if what not in there]


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
