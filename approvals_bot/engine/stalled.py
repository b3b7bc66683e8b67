"""Stalled runs are tried again: the code that they wait for may have come with a deployment, or come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from approvals_bot.core.registry import Registry
from approvals_bot.engine.limits import STALLED
from approvals_bot.store import Filter, OpenStore

Work = Callable[[str], Awaitable[bool]]
"""Claim this run and begin to work on it, when there is room. False if another process has it just now."""


class Stalled:
    """Each stalled run is tried once, until its log or the code of this process is another."""

    def __init__(self, store: OpenStore, registry: Registry, work: Work) -> None:
        self._store = store
        self._registry = registry
        self._work = work
        self._code = registry.additions
        self._tried: dict[str, tuple[int, int]] = {}  # the log's length and the code it was tried with
        self._next = 0.0
        self._is_closed = False

    @property
    def is_due(self) -> bool:
        """Whether this process has other code, or others may have come upon runs that it has the code for."""
        return self._code != self._registry.additions or self._next <= asyncio.get_running_loop().time()

    async def retry(self) -> None:
        """Try all that have not been tried so."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._code = self._registry.additions
        before, self._tried = self._tried, {}
        cursor: str | None = None
        while not self._is_closed:
            rows, cursor = await self._store.runs(Filter(status="stalled", cursor=cursor, limit=200))
            for row in rows:
                tried = (row.seq, self._code)
                if before.get(row.id) == tried or await self._work(row.id):
                    self._tried[row.id] = tried
            if cursor is None:
                break
        self._next = loop.time() + max(STALLED, 20 * (loop.time() - began))  # the more there are, the more seldom

    def close(self) -> None:
        self._is_closed = True
