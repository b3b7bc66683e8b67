"""The projection of a run: its requests as they are shown, and the people by whom it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from approvals_bot.approvals.card_model import CardDelivery, FollowUp
from approvals_bot.approvals.request import Request, dumped
from approvals_bot.approvals.standing_grants import StandingState
from approvals_bot.durable.core.attributes import Findable, Placed, Projection
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.serialization import json_text

REQUEST = "request"
"""The kind of a run that is one request, as its row says."""

Relation = Literal["waiting_for", "requested_by", "voted_by", "open_vote_of", "ended_vote_of"]
"""A person's relation to a request, and the name of the attribute by which its run is found.

`voted_by`: everybody who ever voted and whose turn it isn't now. `open_vote_of`: people whose vote counts while the
request is open. `ended_vote_of`: people who voted, once the request has ended.
"""

MOST_ENDED = 50  # decided requests still shown; links to older ones aren't found
ENDED_SIZE = 400_000  # characters of JSON for all of them, or as many as the open ones leave
WHOLE_SIZE = 850_000  # characters of JSON, and the last part may be above it; a projection must stay under 1 MB


class PublishedRequests:
    """The requests of a run: none, one or many, each with its number."""

    def __init__(self) -> None:
        self._requests: list[Callable[[], Request]] = []
        self.calls: dict[str, Any] = {}  # the tool calls among them, by id, for `approve`

    @property
    def next_number(self) -> int:
        return len(self._requests) + 1

    def add(self, request: Callable[[], Request]) -> None:
        """Add a request. It is called only when the run is stored, since a replay passes many changes."""
        self._requests.append(request)

    def __call__(self) -> Projection:
        """Return the open requests, and the last ones that have ended."""
        requests = [make() for make in self._requests]
        taken = sum(len(json_text(dumped(one))) for one in requests if one.is_open) if len(requests) > 1 else 0
        shown, parts, room, ended = list[Request](), list[dict[str, Any]](), min(ENDED_SIZE, WHOLE_SIZE - taken), 0
        for request in reversed(requests):
            if not request.is_open and (ended >= MOST_ENDED or room <= 0):
                continue
            part = dumped(request)
            if not request.is_open:
                ended, room = ended + 1, room - len(json_text(part))
            shown.append(request)
            parts.append(part)
        found = found_by(shown) | in_trouble(shown) | unfinished(shown) | granted_by(shown)
        return Projection(parts[::-1], found)


STATE = "state"
"""The name of the attribute that has the states of a run's requests that no longer wait."""

FILE = "file"
"""The name of the attribute by which runs are found whose requests have a file: its id."""

NO_DEADLINE = 10**17
"""Added to the time at which a request was made, if it has no deadline: microseconds, more than any deadline has."""


def found_by(requests: Sequence[Request]) -> dict[str, list[Findable]]:
    """Return what a run with these requests is found by: addresses, by relation, and states.

    For the people it waits for, its place is its deadline.
    """
    found: dict[str, dict[Findable, None]] = {name: {} for name in (*get_args(Relation), STATE)}
    places: list[Findable] = []
    for request in requests:
        related = _people(request)
        for relation, people in related.items():
            found[relation] |= dict.fromkeys(people)
        places += [Placed(address, _place(request)) for address in related["waiting_for"]]
        if request.state != "waiting":
            found[STATE][request.state] = None
        if request.files:
            found.setdefault(FILE, {}).update(dict.fromkeys(_file_ids(request)))
    return {name: list(values) for name, values in found.items()} | {"waiting_for": places}


def _file_ids(request: Request) -> Iterator[str]:
    for name in request.files:
        value = request.fields.get(name)
        for each in value if isinstance(value, list) else (value,):
            match each:
                case {"id": str(id)}:
                    yield id


def place_for(requests: Sequence[Request], address: str) -> int | None:
    """Return the place of a run with these requests among those that wait for this person. None: it doesn't."""
    return min((_place(each) for each in requests if concerns(each, "waiting_for", address)), default=None)


def _place(request: Request) -> int:
    """Return the request's place among those that wait for a person: by its deadline, else after all that have one."""
    return to_micros(request.deadline) if request.deadline else NO_DEADLINE + to_micros(request.asked_at)


IN_TROUBLE = "delivery"
"""The name of the attribute by which runs with undelivered cards are found. Runs without have none."""

Trouble = Literal["not_delivered", "retrying", "held", "uncertain"]
ANY_TROUBLE = "any"

Undelivered = Literal[Trouble, "waiting"]
"""Why a delivery has not arrived: it is in trouble, or it waits for its first attempt."""


def trouble_of(request: Request, delivery: CardDelivery) -> Trouble | None:
    """Return what is wrong with a delivery, as long as something can still come of it.

    After the decision, only what is still on its way: what never arrived isn't sent any more.
    """
    match delivery.state:
        case "retrying" | "held" as state:
            return state
        case "not_delivered" if request.is_open:
            return "not_delivered"
        case "delivered" if delivery.uncertain and request.is_open:
            return "uncertain"
    return None


def trouble_word(trouble: Trouble | None = None, channel: str | None = None) -> str:
    """Return the attribute's value for a trouble, of one channel if one is given. None: any trouble."""
    return f"{trouble or ANY_TROUBLE} {channel}" if channel else trouble or ANY_TROUBLE


FURTHER = tuple(1 << bit for bit in range(10))
"""Powers of two, which add up to how many deliveries besides the first have not arrived. No run has a thousand."""


def undelivered_word(why: Undelivered, channel: str, also: int = 0) -> str:
    """Return the value of runs that have deliveries of this channel that have not arrived for this reason.

    `also`: one of FURTHER, of runs that have more than one.
    """
    return f"{why} {channel} +{also}" if also else f"{why} {channel}"


def newest_deliveries(request: Request) -> list[CardDelivery]:
    """Return a request's deliveries; to one destination, the newest counts."""
    return [*{(one.channel, one.to): one for one in request.deliveries}.values()]


def in_trouble(requests: Sequence[Request]) -> dict[str, list[Findable]]:
    """Return the values by which a run is found whose cards aren't delivered; {} for all others."""
    found: dict[str, None] = {}
    counts = Counter[tuple[Undelivered, str]]()
    for request in requests:
        for delivery in newest_deliveries(request):
            if delivery.state == "sending":
                counts["waiting", delivery.channel] += 1
            elif (trouble := trouble_of(request, delivery)) is not None:
                counts[trouble, delivery.channel] += 1
                found |= dict.fromkeys((ANY_TROUBLE, trouble_word(None, delivery.channel), trouble))
    for (why, channel), count in counts.items():
        also = [each for each in FURTHER if (count - 1) & each]
        found |= dict.fromkeys(undelivered_word(why, channel, each) for each in (0, *also))
    return {IN_TROUBLE: list(found)} if found else {}


GRANT = "grant"
"""The name of the attribute by which runs with a grant are found: by its state, or any. Runs without have none."""

ANY_GRANT = "any"


def granted_by(requests: Sequence[Request]) -> dict[str, list[Findable]]:
    """Return the values by which a run is found whose approval has given something; {} for all others."""
    states: list[str] = [one.grant.state for one in requests if one.grant is not None]
    if any(one.standing is not None for one in requests):
        states += get_args(StandingState)  # that of now only the store knows: it changes with each use
    return {GRANT: [ANY_GRANT, *dict.fromkeys(states)]} if states else {}


FOLLOW_UP = "follow_up"
"""The name of the attribute by which runs with follow-ups that failed, or are tried again, are found."""


def unfinished(requests: Sequence[Request]) -> dict[str, list[Findable]]:
    """Return the values by which a run is found whose follow-ups failed or are tried again; {} for all others."""
    found = {one.state: None for request in requests for one in request.follow_ups if is_unfinished(one)}
    return {FOLLOW_UP: [ANY_TROUBLE, *found]} if found else {}


def is_unfinished(follow_up: FollowUp) -> bool:
    return follow_up.state in ("failed", "retrying")


def concerns(request: Request, relation: Relation, address: str) -> bool:
    """Return whether this person has this relation to the request."""
    return address in _people(request)[relation]


def _people(request: Request) -> dict[Relation, list[str]]:
    votes, waiting = request.votes, request.waiting_for
    done = [vote for vote in votes if vote.by not in waiting]
    return {
        "waiting_for": [*waiting] if request.is_open else [],
        "requested_by": [address for address in (request.requester, request.on_behalf_of) if address],
        "voted_by": [vote.by for vote in done],
        "open_vote_of": [vote.by for vote in done if vote.counts and request.is_open],
        "ended_vote_of": [vote.by for vote in votes if not request.is_open],
    }
