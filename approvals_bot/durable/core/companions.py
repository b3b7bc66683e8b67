"""Companions: tasks alongside a run's body, such as one that keeps a request's cards up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from approvals_bot.durable.core.loop import ReplayInterrupted

T = TypeVar("T")


class Companions:
    """The companions of one run. They end before the run does."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []  # of those that failed, in that order
        self._all: list[tuple[asyncio.Task[None], Callable[[], None]]] = []
        self._stays: list[Callable[[], str | None]] = []

    def add(
        self, task: asyncio.Task[None], leave: Callable[[], None], stays: Callable[[], str | None] | None = None
    ) -> None:
        """Add a task. After the body's end, `leave` is called and the run waits for it. `stays`: see `accompany`."""
        self._all.append((task, leave))
        self._stays += [] if stays is None else [stays]
        task.add_done_callback(self._keep_error)

    def staying(self) -> list[str]:
        """Return the names of what can't move to another run."""
        return [name for stays in self._stays if (name := stays()) is not None]

    def _keep_error(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def finish(self) -> None:
        """Ask every companion to end, and wait until all have. Raises the first error among them.

        If the run is cancelled meanwhile, they still finish, within the time that it has for that.
        """
        finished, interrupted = 0, None
        while finished < len(self._all):
            going = self._all[finished:]
            finished = len(self._all)
            for _, leave in going:
                leave()
            for task, _ in going:
                try:
                    await asyncio.shield(task)
                except asyncio.CancelledError as error:
                    interrupted = error
                    await task
        if interrupted is not None:
            raise interrupted

    async def around(self, body: Awaitable[T], leaves: Callable[[BaseException], bool]) -> T:
        """Run the body, then finish its companions.

        After an error for which `leaves` is true, they are left as they are: the replay is thrown away.
        """
        try:
            result = await body
        except ReplayInterrupted:
            raise
        except BaseException as error:
            if self._all and not leaves(error):
                await self.finish()
            raise
        if self._all:
            await self.finish()
        return result
