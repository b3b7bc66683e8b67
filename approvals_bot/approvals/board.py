"""The requests of a workflow that asks people by itself: none, one or many, each with its number.

They are shown beside what the workflow publishes, in one value, in the same transaction as what they decided.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from approvals_bot.approvals.published import Published
from approvals_bot.approvals.request import RequestView, dumped
from approvals_bot.core.values import encode

MOST_ENDED = 50  # requests that have ended and are still shown; who comes with an older link is told it can't be found
ENDED_SIZE = 400_000  # characters of JSON for them all; a run's whole view must stay under 1 MB


@dataclass(eq=False)
class Board:
    """Where a run's requests are shown."""

    _views: list[Callable[[], RequestView]] = field(default_factory=list)

    @property
    def next_number(self) -> int:
        return len(self._views) + 1

    def add(self, view: Callable[[], RequestView]) -> None:
        self._views.append(view)

    def __call__(self, published: Any) -> Published:
        own = encode(published, Any, "view")
        return Published(lambda: self._show(own))

    def _show(self, published: Any) -> dict[str, Any]:
        """Everything that this run shows: the open requests, the last ones that have ended, and its own value."""
        shown, room, ended, waiting = list[dict[str, Any]](), ENDED_SIZE, 0, dict[str, None]()
        for make in reversed(self._views):
            view = make()
            if not view.is_open and (ended >= MOST_ENDED or room <= 0):
                continue
            said = dumped(view)
            if view.is_open:
                waiting.update(dict.fromkeys(view.waiting_for))
            else:
                ended, room = ended + 1, room - len(json.dumps(said))
            shown.append(said)
        return {"requests": shown[::-1], "waiting_for": list(waiting), "published": published}
