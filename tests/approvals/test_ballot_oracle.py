"""The ballot against brute force: every order of up to six votes, every assignment of people to seats."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations, product

from ballots import seat_of, stage_of
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.ballot import cast, have, missing_voters, need, seating, stage_status
from approvals_bot.approvals.request import RequestSeat

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
    """Try every seat, and none, for everyone who says yes."""
    sizes = {seat.id: len(seat.eligible) if seat.need == "all" else seat.need for seat in seats}
    options = ([None, *(seat.id for seat in seats if who in seat.eligible)] for who in approving)
    best = 0
    for assignment in product(*options):
        taken = [seat for seat in assignment if seat is not None]
        if all(taken.count(seat) <= size for seat, size in sizes.items()):
            best = max(best, len(taken))
    return best


def expected(seats: tuple[RequestSeat, ...], reject: object, choices: dict[str, str]) -> str:
    wanted = sum(len(seat.eligible) if seat.need == "all" else seat.need for seat in seats)
    allowed = [who for who in PEOPLE if any(who in seat.eligible for seat in seats)]
    against = [who for who, choice in choices.items() if choice == "reject"]
    enough = {"any": 1, "all": len(allowed)}.get(reject, reject)  # type: ignore[call-overload]
    if against and len(against) >= enough:
        return "rejected"
    if against and most_filled(seats, [who for who in allowed if who not in against]) < wanted:
        return "rejected"
    approving = [who for who, choice in choices.items() if choice == "approve"]
    return "filled" if most_filled(seats, approving) == wanted else "open"


@settings(max_examples=300, deadline=None)
@given(seats, rules, votes)
def test_every_vote_leaves_the_stage_where_brute_force_says(
    seats: tuple[RequestSeat, ...], reject: object, votes: list[tuple[str, str]]
) -> None:
    ballot, choices = stage_of(*seats, reject=reject), dict[str, str]()
    for who, choice in votes:
        before = ballot
        ballot, reply = cast(ballot, Vote(who, choice, comment="so"), NOON)  # type: ignore[arg-type]
        if not any(who in seat.eligible for seat in seats):
            assert (reply.verdict, ballot) == ("not_an_approver", before)
            continue
        if choice == "take_back":
            assert reply.verdict == ("taken_back" if who in choices else "invalid")
            choices.pop(who, None)
        else:
            assert (reply.verdict == "already_voted") == (choices.get(who) == choice)
            choices[who] = choice
        assert stage_status(ballot) == expected(seats, reject, choices)
        assert reply.changed == (ballot != before)
        approving = [who for who, choice in choices.items() if choice == "approve"]
        assert have(ballot) == len(seating(ballot)) == most_filled(seats, approving)
        for person, seat in seating(ballot).items():
            assert person in seats[seat].eligible
        if stage_status(ballot) != "open":
            return


@settings(max_examples=60, deadline=None)
@given(seats, st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from(["approve", "reject"]), max_size=4))
def test_the_order_of_votes_changes_neither_the_count_nor_the_outcome(
    seats: tuple[RequestSeat, ...], choices: dict[str, str]
) -> None:
    ends = set()
    for order in permutations(choices.items()):
        ballot = stage_of(*seats, reject="all")
        for who, choice in order:
            ballot, _ = cast(ballot, Vote(who, choice, comment="so"), NOON)  # type: ignore[arg-type]
        ends.add((stage_status(ballot), have(ballot), need(ballot)))
    assert len(ends) == 1


@settings(max_examples=200, deadline=None)
@given(seats, votes)
def test_only_those_are_owed_whose_yes_would_help(seats: tuple[RequestSeat, ...], votes: list[tuple[str, str]]) -> None:
    ballot = stage_of(*seats, reject="all")
    for who, choice in votes:
        ballot, _ = cast(ballot, Vote(who, choice, comment="so"), NOON)  # type: ignore[arg-type]
    for who in PEOPLE:
        if any(vote.counts and vote.by == who for vote in ballot.votes):
            assert who not in missing_voters(ballot)
            continue
        more, _ = cast(replace(ballot, reject="all"), Vote(who, "approve"), NOON)
        assert (who in missing_voters(ballot)) == (have(more) > have(ballot))
