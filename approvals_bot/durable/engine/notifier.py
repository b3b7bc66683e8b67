"""Who in this process waits for something to be written, and hears of it without asking the store again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Self

from approvals_bot.durable.core.events import EVENT_TYPES, Event
from approvals_bot.durable.engine.signal import Signal


class Notifier:
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

    def of(
        self, run_id: str, seconds: float | None, patience: float | None, types: Collection[str] = EVENT_TYPES
    ) -> Listener:
        """Listen first, then look: so nothing falls in between. `patience`: look again after so long without news."""
        return Listener(self._listening, run_id, seconds, patience, types)


class Listener:
    """One who waits for a run's news, while the block runs and until her time is up."""

    def __init__(
        self,
        among: defaultdict[str, dict[Listener, None]],
        run_id: str,
        seconds: float | None,
        patience: float | None,
        types: Collection[str],
    ) -> None:
        self.heard: Event | None = None  # the last one of these types that was written in this process
        self._among = among
        self._run_id = run_id
        self._types = types
        self._loop = asyncio.get_running_loop()
        self._until = None if seconds is None else self._loop.time() + seconds
        self._patience = patience
        self._signal = Signal()

    def __enter__(self) -> Self:
        self._among[self._run_id][self] = None
        return self

    def __exit__(self, *_: object) -> None:
        others = self._among[self._run_id]
        del others[self]
        if not others:
            del self._among[self._run_id]

    def wake(self) -> None:
        self._signal.set()

    def hear(self, events: list[Event]) -> None:
        """Of what was written in this process."""
        for event in events:
            if event.type in self._types:
                self.heard = event
                self._signal.set()
                return

    async def next(self) -> bool:
        """Wait until it is worth looking again. False: the time is up."""
        limit = self._patience
        if self._until is not None:
            left = self._until - self._loop.time()
            if left <= 0:
                return False
            limit = left if limit is None else min(limit, left)
        timer = None if limit is None else self._loop.call_later(limit, self._signal.set)
        await self._signal.wait()
        if timer is not None:
            timer.cancel()
        self._signal.clear()
        return True
