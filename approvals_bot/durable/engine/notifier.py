"""The notifier: wakes callers in this process that wait for a run's events, so they needn't poll the store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Self

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.events import EVENT_TYPES, Event
from approvals_bot.durable.engine.near_limits import NEAR_EVENTS, LimitWatch
from approvals_bot.durable.store.protocol import MAX_UNREAD


class Notifier:
    """The subscriptions of one process, by run. `watch` sees every event that this process appends."""

    def __init__(
        self,
        watch: Callable[[str, list[Event]], None] | None = None,
        watch_limits: Callable[[str, int], None] | None = None,
        max_waiting: int = MAX_UNREAD,
    ) -> None:
        self._watch = watch
        self.limits = LimitWatch(watch_limits, max_waiting)
        self.subscriptions: defaultdict[str, dict[Subscription, None]] = defaultdict(dict)  # in order of arrival
        self.feeds: set[Feed] = set()

    def notify(self, run_id: str, events: list[Event], own: Mapping[str, Attribute] | None = None) -> None:
        """Deliver events that this process has written to the run's subscribers.

        `own`: the run's own attributes, if these events have changed them.
        """
        if events and (own or events[-1].seq >= NEAR_EVENTS):
            self.limits.grown(run_id, events, own or {})
        if self._watch is not None:
            self._watch(run_id, events)
        for subscription in self.subscriptions.get(run_id, ()):
            subscription.deliver(events)
        for feed in self.feeds:
            feed.add((run_id,))

    def wake(self, runs: Collection[str] | None) -> None:
        """Make subscribers look again: another process has written to these runs, or to any if None."""
        for run_id in list(self.subscriptions) if runs is None else runs:
            for subscription in self.subscriptions.get(run_id, ()):
                subscription.wake()
        for feed in self.feeds:
            feed.add(runs)


MOST_FED = 1_000  # runs that a feed keeps for its reader; with more, any run may have changed


class Feed:
    """The runs that this process or another has written to, for one reader of all of them, inside a `with` block."""

    def __init__(self, of: Notifier) -> None:
        self._feeds = of.feeds
        self._runs: set[str] | None = set()  # None: any run
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._feeds.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._feeds.discard(self)

    def add(self, runs: Collection[str] | None) -> None:
        if runs is None or self._runs is None or len(self._runs) + len(runs) > MOST_FED:
            self._runs = None
        else:
            self._runs.update(runs)
        self._changed.set()

    async def changed(self, together: float) -> frozenset[str] | None:
        """Wait for a change, and return all runs that change within this many seconds; None if it may be any."""
        await self._changed.wait()
        await asyncio.sleep(together)
        runs, self._runs = self._runs, set()
        self._changed.clear()
        return None if runs is None else frozenset(runs)


class Subscription:
    """A caller's wait for a run's events of these types, inside a `with` block.

    It ends after `seconds` at the latest.
    Read the store inside the block, never before it: an event that is written between the read and the wait is then
    not missed. With `poll`, `changed` also returns after that many seconds without an event.
    """

    def __init__(
        self, to: Notifier, run_id: str, seconds: float | None, poll: float | None, types: Collection[str] = EVENT_TYPES
    ) -> None:
        self.latest: Event | None = None  # the last event of these types that this process wrote
        self._subscriptions = to.subscriptions
        self._run_id = run_id
        self._types = types
        self._loop = asyncio.get_running_loop()
        self._until = None if seconds is None else self._loop.time() + seconds
        self._poll = poll
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._subscriptions[self._run_id][self] = None
        return self

    def __exit__(self, *_: object) -> None:
        of_run = self._subscriptions[self._run_id]
        del of_run[self]
        if not of_run:
            del self._subscriptions[self._run_id]

    def wake(self) -> None:
        self._changed.set()

    def deliver(self, events: list[Event]) -> None:
        for event in events:
            if event.type in self._types:
                self.latest = event
                self._changed.set()
                return

    async def changed(self) -> bool:
        """Wait until it is worth looking again. Returns False when the time is up."""
        limit = self._poll
        if self._until is not None:
            left = self._until - self._loop.time()
            if left <= 0:
                return False
            limit = left if limit is None else min(limit, left)
        timer = None if limit is None else self._loop.call_later(limit, self._changed.set)
        await self._changed.wait()
        if timer is not None:
            timer.cancel()
        self._changed.clear()
        return True
