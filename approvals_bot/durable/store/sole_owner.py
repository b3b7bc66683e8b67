"""Whether a process is the only one that works on a SQLite file: an advisory lock that dies with its holder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO


class SoleOwner:
    """All that work on the file share the lock; who gets it for himself alone was the only one at that moment.
    The operating system lets go of it when a process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Join. True: nobody else is there. Where there are no such locks: False, and leases run out by themselves."""
        if sys.platform == "win32":
            return False
        import fcntl

        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False
        return True

    def share(self) -> None:
        """Let others join."""
        if self._file is not None and sys.platform != "win32":
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_SH)

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
