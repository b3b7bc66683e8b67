"""Picks: a few of many are asked, those whose last pick is longest ago. Ties are broken at random.

A list of whose turn it was last belongs to each seat of a workflow, for all of its requests together. The pure part is
`chosen`; `Picks` keeps the lists, so that replicas take turns and a repeated step finds its own pick.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count
from typing import Any, Protocol

from approvals_bot.approvals.ballot import can_be_filled, size_of
from approvals_bot.approvals.clock import MORE
from approvals_bot.approvals.eligibility import Resolution, ResolvedSeat
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Request, RequestSeat, RequestStage
from approvals_bot.durable.core.api import random as recorded_random
from approvals_bot.durable.core.api import resource, step
from approvals_bot.durable.core.serialization import Proven

MOST_DONE = 200  # picks of which a list remembers the result, so that a repeated step finds it
PICKED = ", and picked for this request"


@dataclass(frozen=True, slots=True)
class PickQuery:
    """Whom to pick from. `turns`: names the list of turns; `once`: this pick; `seed` breaks ties."""

    turns: str
    once: str
    people: tuple[str, ...]
    count: int
    seed: float


class Picks(Protocol):
    """The lists of turns, kept for all requests and replicas."""

    async def pick(self, query: PickQuery) -> tuple[str, ...]:
        """Pick, and note that these people have had their turn. The same pick again changes nothing."""
        ...


def chosen(state: Mapping[str, Any], query: PickQuery) -> tuple[tuple[str, ...], dict[str, Any] | None]:
    """Return who is picked, and the list of turns after that; None if this pick was made before.

    The list has digests in the place of addresses.
    """
    keys = {_key(person): person for person in query.people}
    done = [(once, known) for once, known in state.get("done", ()) if once != query.once]
    before = next((known for once, known in state.get("done", ()) if once == query.once), None)
    if before is not None:
        return tuple(keys[key] for key in before if key in keys), None
    last: dict[str, int] = state.get("last", {})
    shuffled = sorted(keys)
    random.Random(query.seed).shuffle(shuffled)  # noqa: S311  # fair, and the same in a repeated step
    picked = sorted(shuffled, key=lambda key: last.get(key, 0))[: query.count]
    turns = zip(picked, count(1 + max(last.values(), default=0)), strict=False)  # each has a turn of their own
    after = {"last": {**last, **dict(turns)}, "done": [*done, [query.once, picked]][-MOST_DONE:]}
    return tuple(keys[key] for key in picked), after


def _key(person: str) -> str:
    return blake2b(person.encode(), digest_size=8).hexdigest()


@step
async def pick_people(query: PickQuery, picks: Picks = resource(Picks)) -> Proven[tuple[str, ...]]:
    """Pick people for a seat, and note that they have had their turn."""
    return await picks.pick(query)


def only_picked(request: Request, definition: Definition, stage: RequestStage, found: Resolution) -> Resolution:
    """Return those found without the people of a seat who weren't picked. A seat that hasn't opened has all of them."""
    seats = tuple(_only(seat, stage, request.picks, _pick_of(definition, stage, seat.id)) for seat in found.seats)
    return replace(found, seats=seats)


def missing_picks(request: Request, definition: Definition, stage: RequestStage, found: Resolution) -> dict[int, int]:
    """Return how many more people each seat has to pick. `found`: with everybody, or with those who were picked.

    Somebody who was picked and has left, or is away without a delegate, is replaced, unless they have voted.
    """
    lacks = dict[int, int]()
    for seat in found.seats:
        pick = _pick_of(definition, stage, seat.id)
        if pick is not None and not seat.errors:
            more = sum(MORE in each.to and seat.id in each.seats for each in stage.escalations)
            lacks[seat.id] = pick * (1 + more) - len(_kept(request, stage, seat, found))
    return {seat: lack for seat, lack in lacks.items() if lack > 0}


async def with_picks(
    request: Request, definition: Definition, stage: RequestStage, found: Resolution
) -> tuple[Request, Resolution]:
    """Pick the people who are lacking in this stage. Returns the request, and those found without the others."""
    lacks = missing_picks(request, definition, stage, found)
    for seat in found.seats:
        if _pick_of(definition, stage, seat.id) is None:
            continue
        name = _name(stage, seat.id)
        known = request.picks.get(name, ())
        others = [one for one in seat.eligible if one not in known and one not in found.away]
        new = list[str]()
        for people in _needed_last(request, definition, stage, found, seat, others) if seat.id in lacks else ():
            if people and len(new) < lacks[seat.id]:
                turns, once = f"{definition.id} {name}", f"{request.id} {name} {len(known) + len(new)}"
                lack = lacks[seat.id] - len(new)
                new += await pick_people(PickQuery(turns, once, people, lack, recorded_random().random()))
        request = request.but(picks={**request.picks, name: (*known, *new)})
    return request, only_picked(request, definition, stage, found)


def _needed_last(
    request: Request,
    definition: Definition,
    stage: RequestStage,
    found: Resolution,
    seat: ResolvedSeat,
    people: Sequence[str],
) -> list[tuple[str, ...]]:
    """Return these people in the order in which to pick from them: last those without whom other seats stay empty."""
    rule = next(one for one in definition.stage if one.id == stage.id)
    beside = [
        RequestSeat(one.id, "", size_of(rule.seats[one.id].need, len(one.eligible)), one.eligible)
        for one in only_picked(request, definition, stage, found).seats
        if one.id != seat.id and rule.alternative_of(one.id) == rule.alternative_of(seat.id)
    ]
    shared = {one for other in beside for one in other.eligible}.intersection(people)
    left = [replace(each, eligible={k: v for k, v in each.eligible.items() if k not in shared}) for each in beside]
    if not shared or can_be_filled(left):
        return [tuple(people)]
    return [tuple(one for one in people if (one in shared) is is_shared) for is_shared in (False, True)]


def _pick_of(definition: Definition, stage: RequestStage, seat: int) -> int | None:
    rule = next(one for one in definition.stage if one.id == stage.id)
    return rule.seats[seat].pick


def was_picked_for(request: Request, stage: RequestStage) -> bool:
    """Whether a few of many were picked for this stage."""
    return any(name.rpartition(" ")[0] == stage.id for name in request.picks)


def _name(stage: RequestStage, seat: int) -> str:
    """Return by what a request keeps the people who were picked for a seat."""
    return f"{stage.id} {seat}"


def _kept(request: Request, stage: RequestStage, seat: ResolvedSeat, found: Resolution) -> list[str]:
    voted = {vote.place for vote in stage.votes if vote.counts}
    present = [one for one in seat.eligible if one not in found.away or found.away[one].delegates]
    return [one for one in request.picks.get(_name(stage, seat.id), ()) if one in voted or one in present]


def _only(
    seat: ResolvedSeat, stage: RequestStage, picks: Mapping[str, tuple[str, ...]], pick: int | None
) -> ResolvedSeat:
    """Return the seat with those who were picked, and those whom an escalation names."""
    picked = picks.get(_name(stage, seat.id))
    if pick is None or picked is None:
        return seat
    own = [one for one in seat.eligible if one in picked or one in seat.escalated]
    late = picked[pick:] if any(MORE in each.to and seat.id in each.seats for each in stage.escalations) else ()
    return replace(
        seat,
        eligible={one: seat.eligible[one] + (PICKED if one in picked else "") for one in own},
        notified=tuple(one for one in seat.notified if one in own),
        escalated=tuple(dict.fromkeys((*seat.escalated, *(one for one in late if one in own)))),
        slack_groups=(),
        ungrouped=(),
    )
