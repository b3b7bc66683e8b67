"""Work that may be done after the response has been given: kept in sight, and ended with the service.

Only for news that nobody depends on. What must happen goes into a run's log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

CLOSE_LIMIT = 2.0  # seconds at shutdown for what is under way
MOST = 1_000  # at a time; more is dropped, because the other side does not keep up

log = logging.getLogger(__name__)


class BackgroundTasks:
    """Runs coroutines after the responses that caused them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= MOST:
            work.close()
            log.warning("Too much is under way to tell people; some news was dropped.")
            return
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def aclose(self) -> None:
        """Give what is under way a moment, then stop it."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_LIMIT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s while telling somebody the news", type(error).__qualname__)
