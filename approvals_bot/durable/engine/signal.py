"""A signal for one who waits, set until it is cleared.

asyncio.Event is for any number, and costs several times as much: every step, and everybody who waits for a run, waits
on one of these.
"""

from __future__ import annotations

import asyncio


class Signal:
    """Not for threads."""

    __slots__ = ("_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        self.is_set = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def clear(self) -> None:
        self.is_set = False

    def wait(self) -> asyncio.Future[None]:
        """Done when it is set. One waits at a time."""
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        if self.is_set:
            waiting.set_result(None)
        return waiting
