"""Backups: a whole store in one SQLite file, written beside the running service and read back before it has its name.

A backup is a copy like any other (store/copying.py), of one snapshot. Restoring is a copy, too, into an empty store.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.private_files import create_private, sync_folder
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.copying import copied_tables, copy_rows, opened, read_back, read_beside
from approvals_bot.durable.store.copying_tables import INSTALLATION
from approvals_bot.durable.store.main_file import has_others_wal
from approvals_bot.durable.store.sqlite import SoleOwner, check_schema, read_only_uri
from approvals_bot.errors import StoreCopyError

SQLITE = "sqlite:///"
ASIDE = "{name}.before-{at:%Y%m%dT%H%M%SZ}"
MOST_NAMED = 10_000  # runs that are named


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup holds. `seq` is the last line of the audit in it."""

    runs: int
    events: int
    seq: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """A run whose deliveries or calls may be repeated after a restore, and the steps that the backup has no end of."""

    run_id: str
    workflow: str
    steps: tuple[str, ...]


async def back_up(url: str, file: Path, say: Callable[[str], None]) -> BackedUp:
    """Write a backup of a store, which may be in use. `say` is called with lines on the progress.

    The file is for its owner alone, and has its name once it is whole. Raises StoreCopyError; then there is no file.
    """
    if file.exists():  # noqa: ASYNC240  # a command does nothing beside it
        raise StoreCopyError(f"{file} already exists. Nothing was written. Choose another name.")
    part = file.with_name(f".{file.name}.part")
    try:
        with _new_database(part):
            found = await _write(url, part, say)
            os.link(part, file)  # unlike a rename, it never takes the place of another file
            sync_folder(file)
    except FileExistsError:
        raise StoreCopyError(f"{file} was created by somebody else meanwhile. Nothing was changed.") from None
    return found


@contextmanager
def _new_database(part: Path) -> Iterator[None]:
    """Have an empty file for the block, and nothing beside it afterwards."""
    beside = [part, *(part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal", ".lock"))]
    for each in beside:
        each.unlink(missing_ok=True)
    create_private(part)
    try:
        yield
    finally:
        for each in beside:
            each.unlink(missing_ok=True)


async def _write(url: str, part: Path, say: Callable[[str], None]) -> BackedUp:
    await (await connect(f"{SQLITE}{part}")).close()
    async with read_beside(url) as source, opened(f"{SQLITE}{part}") as target:
        await target.forget_installation()
        tables = copied_tables(as_new=False)
        counts, digest = await copy_rows(source, target, tables, say, is_backup=True)
        say("Reading it back …")
        if await read_back(target, tables) != (counts, digest):
            raise StoreCopyError("The backup doesn't read back as it was written. It was deleted.")
    with closing(sqlite3.connect(part, isolation_level=None)) as db:
        _check_integrity(db, part)
        (seq,) = db.execute("SELECT coalesce(max(seq), 0) FROM audit").fetchone()
        db.execute("PRAGMA journal_mode = DELETE")  # one file, also for other tools
    with part.open("rb") as written:
        os.fsync(written.fileno())
    return BackedUp(counts["runs"], counts["events"], seq)


def _check_integrity(db: sqlite3.Connection, file: Path) -> None:
    """Raise StoreCopyError unless SQLite finds nothing wrong with a file."""
    try:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise StoreCopyError(f"{file} is damaged: {found}")


# ── restoring ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def restore(
    file: Path, url: str, say: Callable[[str], None], *, at: datetime, replace: bool = False, as_new: bool = False
) -> tuple[dict[str, int], str | None]:
    """Copy a backup into an empty store. With `replace`, what was there before is moved aside.

    `as_new` makes it another installation, where no link that was sent before works. Nobody is signed in, and no code
    that was sent counts. Returns the number of rows of each table, and where the old store is now. Raises
    StoreCopyError; the store is then as it was.
    """
    _look_at(file)
    source = f"{SQLITE}{file}"
    if url.startswith(SQLITE):
        return await _into_file(source, Path(url.removeprefix(SQLITE)), say, at=at, replace=replace, as_new=as_new)
    from approvals_bot.durable.store.postgres_backups import Replacement

    replacement = await Replacement.prepare(url, at, replace=replace)
    try:
        await (await connect(replacement.url)).close()
        counts = await _copy(source, replacement.url, say, as_new=as_new)
        aside = await replacement.put_in_place()
    except BaseException:
        await replacement.give_up()
        raise
    return counts, aside


async def _into_file(
    source: str, target: Path, say: Callable[[str], None], *, at: datetime, replace: bool, as_new: bool
) -> tuple[dict[str, int], str | None]:
    target.absolute().parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # noqa: ASYNC240  # a command
    with _held(target):
        if not replace and not _is_empty(target):
            raise StoreCopyError(
                f"{target} isn't empty, so nothing was restored. `--replace` moves it aside; nothing of it is deleted."
            )
        part = target.with_name(f".{target.name}.part")
        with _new_database(part):
            await (await connect(f"{SQLITE}{part}")).close()
            counts = await _copy(source, f"{SQLITE}{part}", say, as_new=as_new)
            aside = _put_in_place(part, target, at)
    return counts, None if aside is None else str(aside)


async def _copy(source: str, target_url: str, say: Callable[[str], None], *, as_new: bool) -> dict[str, int]:
    tables = copied_tables(as_new=as_new)
    async with read_beside(source) as backup, opened(target_url) as target:
        if not await target.is_empty():
            raise StoreCopyError("The database isn't empty, so nothing was restored. `--replace` moves it aside.")
        if not as_new:
            await target.forget_installation()
        counts, digest = await copy_rows(backup, target, tables, say, is_backup=True)
        say("Reading it back …")
        if await read_back(target, tables) != (counts, digest):
            raise StoreCopyError("What was restored doesn't read back as it is in the backup. Nothing was kept.")
        await target.forget_codes()
    return {name: count for name, count in counts.items() if name != INSTALLATION.name}


def _look_at(file: Path) -> None:
    """Raise StoreCopyError unless this is a whole backup."""
    if not file.is_file():
        raise StoreCopyError(f"There is no file {file.absolute()}. Nothing was touched.")
    try:
        with closing(sqlite3.connect(read_only_uri(str(file)), uri=True)) as db:
            _check_integrity(db, file)
            check_schema(db)
    except sqlite3.Error as error:
        raise StoreCopyError(f"{file} is no backup: {error}. Nothing was touched.") from None


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Keep services away from a file. Raises StoreCopyError if one holds it."""
    lock = target.with_name(target.name + ".lock")
    was_there = lock.exists()
    owner = SoleOwner(lock)
    try:
        if not owner.acquire():
            raise StoreCopyError(f"A service is using {target}. Stop it first. Nothing was touched.")
        yield
    finally:
        owner.release()
        if not was_there and not target.exists():
            lock.unlink(missing_ok=True)


def _is_empty(target: Path) -> bool:
    if not target.exists() or not target.stat().st_size:
        return True
    try:
        with closing(sqlite3.connect(read_only_uri(str(target)), uri=True)) as db:
            (count,) = db.execute("SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM audit)").fetchone()
            return bool(count == 0)
    except sqlite3.Error:  # another program's, or damaged
        return False


def _put_in_place(part: Path, target: Path, at: datetime) -> Path | None:
    """Give the new database its name, and the one that had it another. Returns that name; None if there was none.

    The name is taken over in one step: however the process dies, it has the old database or the new one. No -wal of the
    old one may be there by then, since SQLite would apply it to the new one.
    """
    if not target.exists():
        os.link(part, target)
        sync_folder(target)
        return None
    aside = target.with_name(ASIDE.format(name=target.name, at=at))
    if aside.exists():
        raise StoreCopyError(f"{aside} already exists. Try again in a second. Nothing was touched.")
    wal = target.with_name(target.name + "-wal")
    if not _has_settled(target) and wal.exists():  # nobody can read both, so the old one is what its main file holds
        os.link(wal, aside.with_name(aside.name + "-wal"))
        wal.unlink()
    os.link(target, aside)
    sync_folder(target)
    os.replace(part, target)
    sync_folder(target)
    target.with_name(target.name + "-shm").unlink(missing_ok=True)
    return aside


def _has_settled(target: Path) -> bool:
    """Copy what the -wal of a database holds into its main file. Returns whether that was possible."""
    if has_others_wal(str(target)):
        return False
    try:
        with closing(sqlite3.connect(target, isolation_level=None)) as db:
            busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:  # it is damaged
        return False
    if busy:
        raise StoreCopyError(f"Another program has {target} open. Close it first. Nothing was touched.")
    return True


_UNFINISHED = """
    SELECT runs.id, workflow, coalesce(json_extract(data, '$.name'), '') FROM runs LEFT JOIN events ON
      events.run_id = runs.id AND type = 'step_created' AND NOT EXISTS (
        SELECT 1 FROM events AS done
        WHERE done.run_id = runs.id AND done.key = json_extract(events.data, '$.id') || '.done')
    WHERE ended_at IS NULL AND (type IS NOT NULL OR wake_at <= ?) ORDER BY runs.id LIMIT ?"""


def repeated_by(file: Path, now: datetime) -> Sequence[Repeated]:
    """Return the open runs of a backup that do something at once: they may have done it after the backup, too."""
    found = dict[str, Repeated]()
    with closing(sqlite3.connect(read_only_uri(str(file)), uri=True)) as db:
        for run_id, workflow, step in db.execute(_UNFINISHED, (to_micros(now), MOST_NAMED)):
            before = found[run_id].steps if run_id in found else ()
            found[run_id] = Repeated(run_id, workflow, (*before, step) if step else before)
    return list(found.values())
