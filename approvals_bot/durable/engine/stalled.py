"""Stalled runs: which of them a process tries again, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.engine.limits import STALLED
from approvals_bot.durable.store.protocol import Filter, OpenStore


class StalledRuns:
    """The retries of stalled runs, whose code may have come with a deployment or been restored.

    Each run is tried once, and again when its log or the code of this process has changed. A try counts only if the run
    stalled here: one that went on may be stalled again by a replica whose code is older, and then needs this process.
    """

    def __init__(self, store: OpenStore, registry: Registry, work_on: Callable[[str], Awaitable[bool]]) -> None:
        """`work_on` claims a run once there is a slot, and starts its work. False: another process has the run."""
        self._store = store
        self._registry = registry
        self._work_on = work_on
        self._code = registry.additions
        self._tried: dict[str, tuple[int, int]] = {}  # by run that stalled here: its log's length, and the code
        self._next = 0.0
        self._is_closed = False

    @property
    def is_due(self) -> bool:
        """Whether this process has new code, or it is time to look for stalled runs of others."""
        return self._code != self._registry.additions or self._next <= asyncio.get_running_loop().time()

    async def retry(self) -> None:
        """Try every stalled run whose log or code has changed since the last try."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._code = self._registry.additions
        tried_before, self._tried = self._tried, {}
        cursor: str | None = None
        while not self._is_closed:
            rows, cursor = await self._store.runs(Filter(status="stalled", cursor=cursor, limit=200))
            for row in rows:
                tried = (row.seq, self._code)
                if tried_before.get(row.id) == tried:
                    self._tried[row.id] = tried
                else:
                    await self._work_on(row.id)
            if cursor is None:
                break
        self._next = loop.time() + max(STALLED, 20 * (loop.time() - began))  # the more there are, the less often

    def stalled_here(self, run_id: str, seq: int) -> None:
        """Take note that a run with a log of this length can't go on with this process's code."""
        self._tried[run_id] = (seq, self._code)

    def close(self) -> None:
        self._is_closed = True
