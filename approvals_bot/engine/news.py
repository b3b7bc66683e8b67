"""Who in this process waits for something to be written, and hears of it without asking the store again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from approvals_bot.core.events import EVENT_TYPES, Event


class News:
    """Wakes those who wait for a run's next events. `watch` sees all that this process appends."""

    def __init__(self, watch: Callable[[list[Event]], None] | None = None) -> None:
        self._watch = watch
        self._listening: defaultdict[str, dict[Listener, None]] = defaultdict(dict)  # in the order in which they came

    def tell(self, run_id: str, events: list[Event]) -> None:
        if self._watch is not None:
            self._watch(events)
        for listener in self._listening.get(run_id, ()):
            listener.hear(events)

    def tell_of(self, runs: Collection[str] | None) -> None:
        """Somebody else has written, to these runs; None: to whichever."""
        for run_id in list(self._listening) if runs is None else runs:
            for listener in self._listening.get(run_id, ()):
                listener.wake()

    @contextmanager
    def of(
        self, run_id: str, seconds: float | None, patience: float | None, types: Collection[str] = EVENT_TYPES
    ) -> Iterator[Listener]:
        """Listen first, then look: so nothing falls in between. `patience`: look again after so long without news."""
        listener = Listener(seconds, patience, types)
        self._listening[run_id][listener] = None
        try:
            yield listener
        finally:
            del self._listening[run_id][listener]
            if not self._listening[run_id]:
                del self._listening[run_id]


class Listener:
    """One who waits for news, until her time is up."""

    def __init__(self, seconds: float | None, patience: float | None, types: Collection[str]) -> None:
        self.types = types
        self.heard: Event | None = None  # the last one of these types that was written in this process
        self._loop = asyncio.get_running_loop()
        self._until = None if seconds is None else self._loop.time() + seconds
        self._patience = patience
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    def hear(self, events: list[Event]) -> None:
        """Of what was written in this process."""
        heard = next((event for event in events if event.type in self.types), None)
        if heard is not None:
            self.heard = heard
            self._event.set()

    async def next(self) -> bool:
        """Wait until it is worth looking again. False: the time is up."""
        left = None if self._until is None else self._until - self._loop.time()
        if left is not None and left <= 0:
            return False
        limits = [limit for limit in (left, self._patience) if limit is not None]
        try:
            async with asyncio.timeout(min(limits, default=None)):
                await self._event.wait()
        except TimeoutError:
            pass  # look once more
        self._event.clear()
        return True
