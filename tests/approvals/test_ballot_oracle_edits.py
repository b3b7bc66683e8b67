"""Counting against brute force with edits, six people and every order; and no deadlock."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.ballot import can_be_filled, cast, have, missing_voters, need, reset, seating, stage_status
from approvals_bot.approvals.request import RequestSeat
from tests.support.ballots import seat_of, stage_of
from tests.support.thorough import examples

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PEOPLE = ["ann", "bo", "cy", "di", "eve", "fay"]

lists = st.lists(st.sampled_from(PEOPLE), unique=True, min_size=1, max_size=6)
seats = st.lists(st.tuples(lists, st.one_of(st.integers(1, 3), st.just("all"))), min_size=1, max_size=3).map(
    lambda found: tuple(seat_of(number, f"seat {number}", need, people) for number, (people, need) in enumerate(found))
)
acts = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(PEOPLE),
            st.sampled_from(["approve", "reject", "take_back"]),
            st.sampled_from(["new", "old"]),
        ),
        st.just(("", "edit", "")),
    ),
    max_size=6,
)


def assignments(seats: tuple[RequestSeat, ...], approving: frozenset[str]) -> int:
    """Return the most votes that can count at once: try each person in every seat they may fill, and in none."""
    rooms = {seat.id: len(seat.eligible) if seat.need == "all" else int(seat.need) for seat in seats}

    def best(rest: tuple[str, ...], taken: dict[int, int]) -> int:
        if not rest:
            return 0
        address, *others = rest
        found = best(tuple(others), taken)
        for seat in seats:
            if address in seat.eligible and taken.get(seat.id, 0) < rooms[seat.id]:
                more = {**taken, seat.id: taken.get(seat.id, 0) + 1}
                found = max(found, 1 + best(tuple(others), more))
        return found

    return best(tuple(sorted(approving)), {})


def wanted(seats: tuple[RequestSeat, ...]) -> int:
    return sum(len(seat.eligible) if seat.need == "all" else int(seat.need) for seat in seats)


@settings(max_examples=examples(300), deadline=None)
@given(seats, acts)
def test_an_edit_voids_exactly_the_earlier_votes(seats: tuple[RequestSeat, ...], acts: list[Any]) -> None:
    edition, choices = 0, dict[str, str]()
    ballot = stage_of(*seats, reject="all")
    for address, choice, shown in acts:
        if choice == "edit":
            edition += 1
            ballot, choices = reset(ballot), {}
            assert have(ballot) == 0
            continue
        seen = str(edition if shown == "new" or edition == 0 else edition - 1)
        before = ballot
        ballot, reply = cast(ballot, Vote(address, choice, comment="so", digest=seen), NOON, str(edition))
        if not any(address in seat.eligible for seat in seats):
            assert (reply.verdict, ballot) == ("not_an_approver", before)
        elif seen != str(edition):
            assert (reply.verdict, ballot) == ("request_changed", before)
        elif choice == "take_back":
            choices.pop(address, None)
        else:
            choices[address] = choice
        yes = frozenset(address for address, said in choices.items() if said == "approve")
        assert have(ballot) == assignments(seats, yes)
        assert (stage_status(ballot) == "filled") == (assignments(seats, yes) == wanted(seats))
        if stage_status(ballot) != "open":
            return


@settings(max_examples=25, deadline=None)
@given(seats, st.sets(st.sampled_from(PEOPLE)))
def test_six_votes_end_alike_in_all_720_orders(seats: tuple[RequestSeat, ...], yes: set[str]) -> None:
    best = assignments(seats, frozenset(yes))
    for order in permutations(sorted(yes)):
        ballot = stage_of(*seats, reject="all")
        for address in order:
            ballot, _ = cast(ballot, Vote(address, "approve"), NOON)
        assert (have(ballot), stage_status(ballot) == "filled") == (best, best == wanted(seats))
        seated = seating(ballot)
        assert len(seated) == best, "a person counts once"
        assert all(address in seats[seat].eligible for address, seat in seated.items())


@settings(max_examples=examples(200), deadline=None)
@given(seats, st.permutations(PEOPLE))
def test_no_votes_deadlock_a_stage_that_can_be_filled(seats: tuple[RequestSeat, ...], order: list[str]) -> None:
    """Whatever the order: while the stage is open somebody owes a vote, and the last approval fills it."""
    possible = assignments(seats, frozenset(PEOPLE)) == wanted(seats)
    assert can_be_filled(seats) == possible
    ballot = stage_of(*seats, reject="all")
    for address in order:
        if stage_status(ballot) == "open":
            assert missing_voters(ballot) or not possible
            ballot, _ = cast(ballot, Vote(address, "approve"), NOON)
    assert (stage_status(ballot) == "filled") == possible
    assert have(ballot) <= need(ballot)
