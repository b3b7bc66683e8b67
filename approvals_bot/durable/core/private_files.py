"""Files that only their owner may read, whatever the umask: databases, exports, secrets."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

OWNER = 0o600
OTHERS = 0o007
"""What people who are neither the owner nor in the file's group may do. A group may have its access on purpose."""


def create_private(path: str | Path) -> None:
    """Create an empty file for its owner alone, if there is none. What prevents that shows when the file is opened."""
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER))


def sync_folder(path: Path) -> None:
    """Have the names in the folder of this file survive a power cut."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock(file: IO[bytes]) -> None:
    """Wait until no other process has locked this file, and lock it until it is closed, or the process dies."""
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)


def is_open_to_others(path: Path) -> bool:
    """Return whether other users of the machine may read or write a file. False if it can't be looked at."""
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False
