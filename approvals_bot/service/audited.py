"""Which refusals get a line in the audit, so that nobody can fill it with refusals that cost them nothing.

Counted in memory, for each replica on its own: that is exact enough here, and costs no write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.durable.engine import Engine
from approvals_bot.service.attempts import network_of

AUDITED_OF_PEER = 10  # lines a minute in the audit about refusals of one peer that cost it nothing
AUDITED_A_MINUTE = 200  # such lines about all peers
MOST_PEERS = 10_000  # counted at a time; a flood from more addresses forgets the oldest


class PeerCounts:
    """How often each peer has done something within the minute. A flood from more of them forgets the oldest."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._counts: dict[str, tuple[datetime, int]] = {}

    def add(self, peer: str) -> tuple[int, timedelta]:
        """Count once more. Returns how often it was before, and how long ago the first time was."""
        network, now = network_of(peer), self._now()
        since, count = self._counts.get(network, (now, 0))
        if not timedelta() <= now - since < timedelta(minutes=1):
            since, count = now, 0
            self._counts.pop(network, None)
        if network not in self._counts and len(self._counts) >= MOST_PEERS:
            del self._counts[next(iter(self._counts))]
        self._counts[network] = (since, count + 1)
        return count, now - since


class AuditedRefusals:
    """Which refusals get a line in the audit, of those that cost their sender nothing: only so many a minute.

    Each peer has a share, so that nobody's lines are crowded out by one other. Where the audit keeps no peers, they
    share one.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._peers, self._all = PeerCounts(now), PeerCounts(now)
        self._known: dict[str, None] = {}

    def has_room(self, peer: str, *, about: str = "") -> bool:
        """Count a refusal. Returns whether there is room for its line.

        `about`: what the line is about; there is always room for the first one.
        """
        has_room = self._peers.add(peer)[0] < AUDITED_OF_PEER and self._all.add("")[0] < AUDITED_A_MINUTE
        return self._is_first(about) or has_room

    def _is_first(self, about: str) -> bool:
        if not about or about in self._known:
            return False
        if len(self._known) >= MOST_PEERS:
            del self._known[next(iter(self._known))]
        self._known[about] = None
        return True


async def audit_refusal(
    engine: Engine,
    what: str,
    *,
    who: str,
    run_id: str | None,
    data: dict[str, Any],
    actor: Mapping[str, Any],
) -> None:
    """Write the line of a refused act, if there is room. The first one of a person and run is always written."""
    limits = engine.resources.get(AuditedRefusals)
    if limits is None:
        engine.resources[AuditedRefusals] = limits = AuditedRefusals(engine.now)
    if limits.has_room(who, about=f"{who} {run_id}"):
        await engine.audit(what, who=who, run_id=run_id, data=data, actor=actor)
