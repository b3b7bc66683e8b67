"""Standing grants, kept in the store: a list for each kind of request, which replicas change one at a time.

A list is a counter. The process that writes second reads it again, so of 50 requests at once, a grant for 20 covers
exactly 20.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

from approvals_bot.approvals.given_grants import StandingGrant
from approvals_bot.approvals.standing_grants import (
    CountedGrant,
    CountedUse,
    GrantUse,
    Revoked,
    StandingGrants,
    grants_in,
    with_grant,
    with_revocation,
    with_use,
)
from approvals_bot.approvals.standing_policy import LONGEST_STANDING
from approvals_bot.durable.engine import Engine
from approvals_bot.service.attempts import change_counter

KEPT_FOR = LONGEST_STANDING + timedelta(days=90)
"""How long a list is kept after its last change: longer than any grant in it lasts."""


class StoredGrants(StandingGrants):
    """Grants whose lists are in the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def give(self, scope: str, grant: StandingGrant) -> None:
        await self._change(scope, lambda state: with_grant(state, grant))

    async def active(self, scope: str) -> tuple[StandingGrant, ...]:
        now = self._engine.now()
        return tuple(each.grant for each in await self.kept(scope) if each.state(now) == "active")

    async def use(self, scope: str, id: str, use: GrantUse) -> CountedUse | None:
        counted: CountedUse | None = None

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            nonlocal counted
            counted, after = with_use(state, id, use, self._engine.now())
            return after

        await self._change(scope, decide)
        return counted

    async def kept(self, scope: str) -> tuple[CountedGrant, ...]:
        """Return all grants of a list, with their uses."""
        row = await self._engine.store.counter(scope)
        return () if row is None else grants_in(row.state)

    async def revoke(self, scope: str, id: str, by: str, reason: str) -> bool:
        """End a grant at once. Returns False if it was over."""
        return await self._change(
            scope, lambda state: with_revocation(state, id, Revoked(by, self._engine.now(), reason))
        )

    async def _change(self, scope: str, decide: Callable[[Mapping[str, Any]], dict[str, Any] | None]) -> bool:
        lock = self._locks.get(scope)
        if lock is None:
            lock = self._locks[scope] = asyncio.Lock()
        async with lock:  # requests of this process take turns, and don't outrun each other
            return await change_counter(self._engine, scope, self._engine.now() + KEPT_FOR, decide)
