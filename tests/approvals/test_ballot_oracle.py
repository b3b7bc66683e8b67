"""Counting against brute force: every order of up to six votes, every assignment of people to seats."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.ballot import cast, have, missing_voters, need, seating, stage_status
from approvals_bot.approvals.request import RequestSeat
from tests.support.ballots import seat_of, stage_of
from tests.support.thorough import examples

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PEOPLE = ["ann", "bo", "cy", "di"]

lists = st.lists(st.sampled_from(PEOPLE), unique=True, min_size=1, max_size=4)
seats = st.lists(st.tuples(lists, st.one_of(st.integers(1, 3), st.just("all"))), min_size=1, max_size=3).map(
    lambda found: tuple(seat_of(number, f"seat {number}", need, people) for number, (people, need) in enumerate(found))
)
votes = st.lists(
    st.tuples(st.sampled_from([*PEOPLE, "eve"]), st.sampled_from(["approve", "reject", "take_back"])), max_size=6
)
rules = st.sampled_from(["any", "all", 1, 2, 3])


def most_filled(seats: tuple[RequestSeat, ...], approving: list[str]) -> int:
    """Try every seat, and none, for everyone who approves."""
    sizes = {seat.id: len(seat.eligible) if seat.need == "all" else int(seat.need) for seat in seats}
    options = ([None, *(seat.id for seat in seats if address in seat.eligible)] for address in approving)
    best = 0
    for assignment in product(*options):
        taken = [seat for seat in assignment if seat is not None]
        if all(taken.count(seat) <= size for seat, size in sizes.items()):
            best = max(best, len(taken))
    return best


def expected(seats: tuple[RequestSeat, ...], reject: object, choices: dict[str, str]) -> str:
    wanted = sum(len(seat.eligible) if seat.need == "all" else int(seat.need) for seat in seats)
    allowed = [address for address in PEOPLE if any(address in seat.eligible for seat in seats)]
    against = [address for address, choice in choices.items() if choice == "reject"]
    enough = {"any": 1, "all": len(allowed)}.get(reject, reject)  # type: ignore[call-overload]
    if against and len(against) >= enough:
        return "rejected"
    if against and most_filled(seats, [address for address in allowed if address not in against]) < wanted:
        return "rejected"
    approving = [address for address, choice in choices.items() if choice == "approve"]
    return "filled" if most_filled(seats, approving) == wanted else "open"


@settings(max_examples=examples(300), deadline=None)
@given(seats, rules, votes)
def test_every_vote_gives_the_status_that_brute_force_finds(
    seats: tuple[RequestSeat, ...], reject: object, votes: list[tuple[str, str]]
) -> None:
    ballot, choices = stage_of(*seats, reject=reject), dict[str, str]()
    for address, choice in votes:
        before = ballot
        ballot, reply = cast(ballot, Vote(address, choice, comment="so"), NOON)  # type: ignore[arg-type]
        if not any(address in seat.eligible for seat in seats):
            assert (reply.verdict, ballot) == ("not_an_approver", before)
            continue
        if choice == "take_back":
            assert reply.verdict == ("taken_back" if address in choices else "invalid")
            choices.pop(address, None)
        else:
            assert (reply.verdict == "already_voted") == (choices.get(address) == choice)
            choices[address] = choice
        assert stage_status(ballot) == expected(seats, reject, choices)
        assert reply.changed == (ballot != before)
        approving = [address for address, choice in choices.items() if choice == "approve"]
        assert have(ballot) == len(seating(ballot)) == most_filled(seats, approving)
        for person, seat in seating(ballot).items():
            assert person in seats[seat].eligible
        if stage_status(ballot) != "open":
            return


@settings(max_examples=examples(60), deadline=None)
@given(seats, st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from(["approve", "reject"]), max_size=4))
def test_the_order_of_votes_does_not_matter(seats: tuple[RequestSeat, ...], choices: dict[str, str]) -> None:
    ends = set()
    for order in permutations(choices.items()):
        ballot = stage_of(*seats, reject="all")
        for address, choice in order:
            ballot, _ = cast(ballot, Vote(address, choice, comment="so"), NOON)  # type: ignore[arg-type]
        ends.add((stage_status(ballot), have(ballot), need(ballot)))
    assert len(ends) == 1


@settings(max_examples=examples(200), deadline=None)
@given(seats, votes)
def test_only_people_whose_approval_would_help_owe_a_vote(
    seats: tuple[RequestSeat, ...], votes: list[tuple[str, str]]
) -> None:
    ballot = stage_of(*seats, reject="all")
    for address, choice in votes:
        ballot, _ = cast(ballot, Vote(address, choice, comment="so"), NOON)  # type: ignore[arg-type]
    for address in PEOPLE:
        if any(vote.counts and vote.by == address for vote in ballot.votes):
            assert address not in missing_voters(ballot)
            continue
        more, _ = cast(replace(ballot, reject="all"), Vote(address, "approve"), NOON)
        assert (address in missing_voters(ballot)) == (have(more) > have(ballot))
