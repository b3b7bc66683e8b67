"""What a run shows of its requests, and by whom it is found: its projection, apart from what its author publishes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from approvals_bot.approvals.request import Request, dumped
from approvals_bot.durable.core.run import Projection

WAITING_FOR, REQUESTED_BY, VOTED_BY = "waiting_for", "requested_by", "voted_by"
"""Under which names a run is found by a person's address."""

MOST_ENDED = 50  # requests that have ended and are still shown; who comes with an older link is told it can't be found
ENDED_SIZE = 400_000  # characters of JSON for them all; all that a run shows must stay under 1 MB


class Board:
    """The requests of a run: none, one or many, each with its number."""

    def __init__(self) -> None:
        self._requests: list[Callable[[], Request]] = []

    @property
    def next_number(self) -> int:
        return len(self._requests) + 1

    def add(self, request: Callable[[], Request]) -> None:
        """Show this request from now on, as it is whenever the run is stored: a replay passes many changes."""
        self._requests.append(request)

    def __call__(self) -> Projection:
        """Show the open requests, and the last ones that have ended."""
        shown, parts, room, ended = list[Request](), list[dict[str, Any]](), ENDED_SIZE, 0
        for make in reversed(self._requests):
            request = make()
            if not request.is_open and (ended >= MOST_ENDED or room <= 0):
                continue
            part = dumped(request)
            if not request.is_open:
                ended, room = ended + 1, room - len(json.dumps(part))
            shown.append(request)
            parts.append(part)
        return Projection(parts[::-1], found_by(shown))


def found_by(requests: Sequence[Request]) -> dict[str, list[str]]:
    """Return by which addresses a run with these requests is found, and as what."""
    return {
        WAITING_FOR: _distinct(who for request in requests if request.is_open for who in request.waiting_for),
        REQUESTED_BY: _distinct(
            who for request in requests for who in (request.requester, request.on_behalf_of) if who
        ),
        VOTED_BY: _distinct(vote.by for request in requests for vote in request.votes),
    }


def _distinct(addresses: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(addresses))
