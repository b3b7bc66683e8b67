"""The main file of a SQLite database, which only our own checkpoints write to.

Between two checkpoints, all commits are in the -wal beside it. So if its inode, size or time changes in between,
somebody has put another file there, such as a backup: what is committed from then on is lost, or destroys that file.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from approvals_bot.durable.core.private_files import create_private
from approvals_bot.errors import FileReplacedError

logger = logging.getLogger("approvals_bot.durable.store")

FULL_WAL = 1_000  # frames in the WAL from which on it is checkpointed; SQLite's own default
OTHERS_CHECKPOINT = 2.0  # seconds that another process may take from writing the file to saying so
_EVERY = 0.02  # seconds between two looks in that time

_HEAD = 32  # bytes before the first frame of a WAL: the page size is at 8, the salts at 16
_INDEX_HEAD = 136  # bytes of its index: without them, it is made again from the WAL
_FRAME = 24  # bytes before each page: its number is at 0, the salts at 8


FileState = tuple[int, int, int, int]
"""The device, inode, size and time of a file: one changes if anybody writes it, or puts another in its place."""


def _state_of(path: str) -> FileState | None:
    """Look at the file that has this name now. None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class MainFile:
    """The main file as it was after the last checkpoint. Its methods are called in the writing connection's thread.

    Several processes may have the file open. One that has checkpointed it writes the file's new state into the lock
    file, where the others find it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_replaced = False
        self._lock = path + ".lock"
        self._known = _state_of(path)
        self._wal: int | None = None  # the file descriptor, once it has been needed
        self.needs_stamp = False

    def look(self) -> None:
        """Raise FileReplacedError if anybody else has written the file since the last checkpoint, or replaced it."""
        found = _state_of(self.path)
        if found != self._known and (self.is_replaced or not self._is_checkpoint_of_others(found)):
            if not self.is_replaced:
                logger.error(
                    "%s was moved, deleted or replaced while it was in use: nothing is accepted until the service has "
                    "been restarted",
                    self.path,
                    extra={"event": "file_replaced"},
                )
            self.is_replaced = True
            raise FileReplacedError(self.path)
        self.is_replaced = False

    def refuse(self) -> None:
        """Raise FileReplacedError if the last look has found another file."""
        if self.is_replaced:
            raise FileReplacedError(self.path)

    def _is_checkpoint_of_others(self, found: FileState | None) -> bool:
        until = time.monotonic() + OTHERS_CHECKPOINT
        while found is not None and self._known is not None and found[:2] == self._known[:2]:
            if self._said() == found:
                self._known = found
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_EVERY)
            found = _state_of(self.path)
        return False

    def _said(self) -> FileState | None:
        try:
            with open(self._lock, encoding="ascii") as file:
                device, inode, size, at = map(int, file.read().split())
        except (OSError, ValueError):
            return None
        return device, inode, size, at

    # ── checkpoints ──

    def is_due(self) -> bool:
        """Return whether the WAL has so many frames that it should be checkpointed."""
        if self._wal is None:
            try:
                self._wal = os.open(self.path + "-wal", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
        # The WAL is written from its beginning again after a checkpoint, with other salts. It doesn't become shorter.
        head = os.pread(self._wal, _HEAD, 0)
        if len(head) < _HEAD:
            return False
        size = _FRAME + int.from_bytes(head[8:12])
        return os.pread(self._wal, 8, _HEAD + (FULL_WAL - 1) * size + 8) == head[16:24]

    def checkpoint(self, db: sqlite3.Connection) -> None:
        """Copy what the WAL holds into the file, as far as no reader needs it there. Call it right after a look."""
        before = self._known
        try:
            busy, frames, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self.needs_stamp |= not busy and frames == done
        except sqlite3.OperationalError as error:  # a full disk, say: the commits are in the WAL
            logger.warning("the WAL of %s could not be checkpointed: %s", self.path, error)
        self._known = _state_of(self.path)
        if before is None or self._known is None or before[:2] != self._known[:2]:
            self._known = before
            self.look()
        else:
            with suppress(OSError), open(self._lock, "r+", encoding="ascii") as file:
                file.write(" ".join(f"{number:020d}" for number in self._known))

    # ── to which main file a WAL belongs ──

    def stamp(self, db: sqlite3.Connection) -> None:
        """Write a new stamp, as the first commit of a WAL.

        The WAL then says which stamp the main file has as long as none of it is there, and which it has afterwards. It
        belongs to no file with another stamp (`has_others_wal`).
        """
        if self.needs_stamp and self._known is not None:
            db.execute(_STAMP, (secrets.token_hex(16),))
            self.needs_stamp = False

    def close(self) -> None:
        if self._wal is not None:
            os.close(self._wal)
            self._wal = None


_STAMP = "UPDATE file_stamp SET stamp = 'main file ' || ? || ' after ' || substr(stamp, 11, 32)"
_STAMPED = re.compile(rb"main file ([0-9a-f]{32}) after ([0-9a-f]{32})")
_OWN = "SELECT stamp, (SELECT rootpage FROM sqlite_schema WHERE name = 'file_stamp') FROM file_stamp"
_LEAF = b"\x0d"  # of a table, in a page's first byte; the number of its rows is at 3


def has_only_wal(path: str) -> bool:
    """Return whether there are changes for this file, but nothing in it: it was emptied, moved or deleted.

    SQLite would delete them. No crash leaves that, since a file has its first page before it has a WAL.
    """
    file, wal = Path(path), Path(path + "-wal")
    return wal.exists() and wal.stat().st_size > _HEAD and not (file.exists() and file.stat().st_size)


def has_others_wal(path: str) -> bool:
    """Return whether the WAL beside this file belongs to another one, whose place it has taken. Writes nothing.

    SQLite would apply it to any file.
    """
    wal = Path(path + "-wal")
    with suppress(OSError, sqlite3.Error):  # a new file has no stamp, and a damaged one is found when it is opened
        if wal.stat().st_size <= _HEAD:
            return False
        # `immutable` reads the main file as it is, without the WAL.
        with closing(sqlite3.connect(f"file:{quote(path)}?immutable=1", uri=True)) as db:
            own, page = db.execute(_OWN).fetchone() or (None, 0)
        return isinstance(own, str) and not _belongs(wal, own[10:42].encode(), page)
    return False


def _belongs(wal: Path, own: bytes, page: int) -> bool:
    """Return whether a WAL was begun on a file with this stamp, which is on this page."""
    stamps = set[bytes]()
    has_stamps = False
    with wal.open("rb") as file:
        head = file.read(_HEAD)
        size = int.from_bytes(head[8:12])
        while len(frame := file.read(_FRAME + size)) == _FRAME + size and frame[8:16] == head[16:24]:
            found = _STAMPED.search(frame) if frame[_FRAME : _FRAME + 1] == _LEAF else None
            if found is not None and frame[_FRAME + 3 : _FRAME + 5] == b"\x00\x01":
                has_stamps = True
                if int.from_bytes(frame[:4]) == page:
                    stamps.update(found.groups())
    return own in stamps or not has_stamps


def put_wal_aside(path: str) -> Path | None:
    """Move the WAL of a file that is gone, so that it is applied to no other. None of us may have it open.

    Another program may, such as the shell of SQLite: so both files are emptied, which it notices. Returns where the WAL
    is kept. None if there is no WAL.
    """
    wal, index = Path(path + "-wal"), Path(path + "-shm")
    try:
        at = datetime.fromtimestamp(wal.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    kept = Path(f"{wal}.{at:%Y%m%dT%H%M%S.%fZ}")
    create_private(kept)
    with wal.open("r+b") as source, kept.open("wb") as target:
        shutil.copyfileobj(source, target)
        os.fsync(target.fileno())
        with suppress(FileNotFoundError), index.open("r+b") as shared:
            shared.write(bytes(min(_INDEX_HEAD, index.stat().st_size)))
        source.truncate(0)
    logger.error(
        "%s was replaced. Its -wal had changes that belong to the file that was there before; they are kept in %s",
        path,
        kept,
        extra={"event": "file_replaced"},
    )
    return kept
