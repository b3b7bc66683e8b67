"""The turns of picks, kept in the store: one list for each seat that picks, for all requests and replicas.

Two requests that pick at the same time take turns: the one that writes second reads the list again. A list that no
request has used for a year is gone; then everybody's turn is as good as anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from approvals_bot.approvals.picks import PickQuery, Picks, chosen
from approvals_bot.durable.engine import Engine
from approvals_bot.service.attempts import change_counter

KEPT_FOR = timedelta(days=366)


class StoredPicks(Picks):
    """Picks whose turns are in the store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def pick(self, query: PickQuery) -> tuple[str, ...]:
        picked = tuple[str, ...]()

        def decide(state: Mapping[str, Any]) -> dict[str, Any] | None:
            nonlocal picked
            picked, after = chosen(state, query)
            return after

        name = f"picks {sha256(query.turns.encode()).hexdigest()[:32]}"
        await change_counter(self._engine, name, self._engine.now() + KEPT_FOR, decide)
        return picked
