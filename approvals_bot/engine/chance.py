"""Random bytes for ids and tokens."""

from __future__ import annotations

import os

SIZE = 32  # bytes a draw: as many as SHA-256 has
SUPPLY = 128  # draws that one system call brings; it costs 0.1 ms, however few bytes it is asked for


class Random:
    """The system's own random bytes, fetched in larger pieces; each is given out once."""

    def __init__(self) -> None:
        self._left = b""

    def draw(self) -> bytes:
        if not self._left:
            self._left = os.urandom(SIZE * SUPPLY)
        drawn, self._left = self._left[:SIZE], self._left[SIZE:]
        return drawn
