"""Ballots by the rules of a policy, against a slow count that knows nothing of ours: random votes on random stages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.ballot import cast, missing_voters, size_of, stage_status
from approvals_bot.approvals.request import VETO
from tests.support.ballots import seat_of, stage_of

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PEOPLE = ("ann", "bo", "cy", "di", "eve")


@dataclass(frozen=True)
class Ballot:
    """A stage, and the votes on it in their order."""

    lists: tuple[tuple[str, ...], ...]
    needs: tuple[Any, ...]
    reject: Any
    waits: bool
    veto: tuple[tuple[str, ...], int] | None
    votes: tuple[tuple[str, str], ...]


def drawn(draw: random.Random) -> Ballot:
    lists = [tuple(draw.sample(PEOPLE, draw.randint(1, 5))) for _ in range(draw.randint(1, 2))]
    return Ballot(
        lists=tuple(lists),
        needs=tuple(draw.choice([1, 2, 3, "all", "majority", f"{draw.randint(1, 100)}%"]) for _ in lists),
        reject=draw.choice(["any", "all", 1, 2]),
        waits=draw.random() < 0.4,
        veto=(tuple(draw.sample(PEOPLE, draw.randint(1, 3))), draw.randint(1, 2)) if draw.random() < 0.4 else None,
        votes=tuple(
            (draw.choice(PEOPLE), draw.choice(["approve", "approve", "reject", "take_back"]))
            for _ in range(draw.randint(0, 8))
        ),
    )


def needed(need: Any, people: int) -> int:
    """Return the smallest number of people that is enough."""
    if isinstance(need, int):
        return need
    counts = range(1, 100)
    if need == "majority":
        return next(count for count in counts if Fraction(count) > Fraction(people, 2))
    share = Fraction(1) if need == "all" else Fraction(int(need[:-1]), 100)
    return next(count for count in counts if Fraction(count) >= share * people)


def fills(ballot: Ballot, approving: Sequence[str]) -> bool:
    """Whether some choice of people, in some order, fills every chair of every list."""
    chairs = [
        people
        for people, need in zip(ballot.lists, ballot.needs, strict=True)
        for _ in range(needed(need, len(people)))
    ]
    if len(chairs) > len(approving):
        return False
    return any(
        all(person in chair for person, chair in zip(order, chairs, strict=True))
        for some in combinations(approving, len(chairs))
        for order in permutations(some)
    )


def expected(ballot: Ballot, choices: dict[str, str]) -> str:
    may_vote = [person for person in PEOPLE if any(person in people for people in ballot.lists)]
    may_reject = may_vote if ballot.veto is None else ballot.veto[0]
    against = [person for person in may_reject if choices.get(person) == "reject"]
    if ballot.waits and any(person not in choices for person in may_vote):
        return "open"
    enough = (
        {"any": 1, "all": len(may_vote)}.get(ballot.reject, ballot.reject) if ballot.veto is None else ballot.veto[1]
    )
    if against and (len(against) >= enough or not fills(ballot, [one for one in may_vote if one not in against])):
        return "rejected"
    if fills(ballot, [person for person in may_vote if choices.get(person) == "approve"]):
        return "filled"
    return "rejected" if ballot.waits else "open"


def play(ballot: Ballot) -> str:
    """Cast the votes until one decides, comparing the state after each. Returns the last state."""
    seats = [
        seat_of(number, "", size_of(need, len(people)) if isinstance(need, str) and need != "all" else need, people)
        for number, (people, need) in enumerate(zip(ballot.lists, ballot.needs, strict=True))
    ]
    stage = stage_of(*seats, reject=ballot.reject, decide="when-all-answered" if ballot.waits else None)
    if ballot.veto is not None:
        stage = replace(stage, veto=seat_of(VETO, "", ballot.veto[1], ballot.veto[0]))
    choices = dict[str, str]()
    for person, choice in ballot.votes:
        stage, reply = cast(stage, Vote(person, choice, comment="so"), NOON)  # type: ignore[arg-type]
        if choice == "reject" and ballot.veto is not None and person not in ballot.veto[0]:
            assert reply.verdict == "not_an_approver"
        if choice == "take_back" and reply.changed:
            del choices[person]
        elif reply.changed:
            choices[person] = choice
        state = stage_status(stage)
        assert state == expected(ballot, choices), (ballot, choices)
        if state != "open":
            return state
        if ballot.waits:
            owed = {one for people in ballot.lists for one in people} - {*choices}
            assert {*missing_voters(stage)} == owed, (ballot, choices)
    return "open"


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.long)])
def test_random_ballots_end_as_a_slow_count_says(count: int) -> None:
    draw = random.Random(21)  # noqa: S311 - not a secret
    ends = [play(drawn(draw)) for _ in range(count)]
    for state in ("open", "filled", "rejected"):
        assert ends.count(state) > count / 20


def test_the_slow_count_finds_a_share_rounded_down() -> None:
    """A negative control: half of three is two, not one."""
    ballot = Ballot((("ann", "bo", "cy"),), ("50%",), "any", False, None, (("ann", "approve"),))
    assert (needed("50%", 3), play(ballot)) == (2, "open")
    assert expected(ballot, {"ann": "approve", "bo": "approve"}) == "filled"
