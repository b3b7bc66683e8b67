"""Work that goes on beside a workflow's body, such as a question to people that keeps its cards true.

The run ends only when its body and all of its companions have. Once the body has ended, however it did, each companion
is asked to come to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from approvals_bot.core.loop import ReplayInterrupted

T = TypeVar("T")


class Companions:
    """The companions of one run."""

    def __init__(self) -> None:
        self._all: list[tuple[asyncio.Task[None], Callable[[], None]]] = []

    def add(self, task: asyncio.Task[None], leave: Callable[[], None]) -> None:
        """`leave` is called when the body has ended; the run then waits for the task."""
        self._all.append((task, leave))

    async def see_off(self) -> None:
        """Ask every companion to end, and wait until all have. The first failure among them is raised."""
        seen_off = 0
        while seen_off < len(self._all):
            going = self._all[seen_off:]
            seen_off = len(self._all)
            for _, leave in going:
                leave()
            for task, _ in going:
                await task

    async def around(self, body: Awaitable[T], is_closing: Callable[[], bool]) -> T:
        """The body, and after it the end of its companions. `is_closing`: the replay is being thrown away."""
        try:
            result = await body
        except ReplayInterrupted:
            raise
        except BaseException:
            if self._all and not is_closing():
                await self.see_off()
            raise
        if self._all:
            await self.see_off()
        return result
