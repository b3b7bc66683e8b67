"""What a run shows of its requests, and by whom it is found: its projection, apart from what its author publishes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from approvals_bot.approvals.request import Request, dumped
from approvals_bot.durable.core.run import Projection

REQUEST = "request"
"""The kind of a run that is one request, as its row says."""

Relation = Literal["waiting_for", "requested_by", "voted_by", "open_vote_of", "ended_vote_of"]
"""What a person may have to do with a request, and the name of the attribute by which its run is found.

`voted_by`: anyone who ever voted and whose turn it isn't. `open_vote_of`: their vote stands while others are still
asked. `ended_vote_of`: they voted, and the request has ended.
"""

MOST_ENDED = 50  # requests that have ended and are still shown; who comes with an older link is told it can't be found
ENDED_SIZE = 400_000  # characters of JSON for them all; all that a run shows must stay under 1 MB


class PublishedRequests:
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
    found: dict[str, dict[str, None]] = {relation: {} for relation in get_args(Relation)}
    for request in requests:
        for relation, people in _people(request).items():
            found[relation] |= dict.fromkeys(people)
    return {relation: list(people) for relation, people in found.items()}


def concerns(request: Request, relation: Relation, address: str) -> bool:
    """Return whether this is what this person has to do with this request, by the rule of its run's attributes."""
    return address in _people(request)[relation]


def _people(request: Request) -> dict[Relation, list[str]]:
    votes, waiting = request.votes, request.waiting_for
    done = [vote for vote in votes if vote.by not in waiting]
    return {
        "waiting_for": [*waiting] if request.is_open else [],
        "requested_by": [who for who in (request.requester, request.on_behalf_of) if who],
        "voted_by": [vote.by for vote in done],
        "open_vote_of": [vote.by for vote in done if vote.counts and request.is_open],
        "ended_vote_of": [vote.by for vote in votes if not request.is_open],
    }
