"""Whether this process is the only one that works on a SQLite file: an advisory lock that dies with its holder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO


class SoleOwner:
    """Held by the first engine on a file. The operating system lets go of it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """True: nobody else has it. Where there are no such locks: False, and leases run out by themselves."""
        if sys.platform == "win32":
            return False
        import fcntl

        file = self._path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
