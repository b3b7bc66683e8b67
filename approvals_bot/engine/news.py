"""Who in this process waits for something to be written, and hears of it without asking the store again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from approvals_bot.core.events import Event


class News:
    """Wakes those who wait for a run's next events. Others (another process's writes) are found by polling."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def tell(self, run_id: str, events: list[Event]) -> None:
        if events:
            for future in self._waiting.get(run_id, ()):
                if not future.done():
                    future.set_result(None)

    async def wait(self, run_id: str, seconds: float) -> None:
        """Return when something is written to this run, or when the time is up."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[run_id].add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting[run_id].discard(future)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
