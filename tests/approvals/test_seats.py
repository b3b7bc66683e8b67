"""Seating against all possible assignments."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.approvals.ballot import can_be_filled, seat_people, seat_size
from tests.support.ballots import seat_of

people = st.sampled_from(["ann", "bo", "cy", "di", "ed"])
may_fill = st.dictionaries(people, st.lists(st.integers(0, 2), unique=True, max_size=3), max_size=5)
sizes = st.fixed_dictionaries({seat: st.integers(0, 3) for seat in range(3)})


def most_seated(may_fill: dict[str, list[int]], sizes: dict[int, int]) -> int:
    """Find the answer by brute force: try every seat, and none, for everyone."""
    best = 0
    for assignment in product(*([None, *seats] for seats in may_fill.values())):
        taken = [seat for seat in assignment if seat is not None]
        if all(taken.count(seat) <= sizes[seat] for seat in sizes):
            best = max(best, len(taken))
    return best


@given(may_fill, sizes)
def test_seating_is_a_maximum_matching(may_fill: dict[str, list[int]], sizes: dict[int, int]) -> None:
    seated = seat_people(may_fill, sizes)
    assert len(seated) == most_seated(may_fill, sizes)
    for person, seat in seated.items():
        assert seat in may_fill[person]
    for seat, size in sizes.items():
        assert list(seated.values()).count(seat) <= size


@given(may_fill, sizes)
def test_later_voters_move_earlier_ones_but_never_unseat_them(
    may_fill: dict[str, list[int]], sizes: dict[int, int]
) -> None:
    seated: list[str] = []
    for count in range(len(may_fill) + 1):
        now = seat_people(dict(list(may_fill.items())[:count]), sizes)
        assert set(seated) <= set(now)
        seated = list(now)


def test_a_person_on_two_lists_makes_way_for_one_on_one_list() -> None:
    seated = seat_people({"ann": [0, 1], "bo": [0]}, {0: 1, 1: 1})
    assert seated == {"ann": 1, "bo": 0}


def test_all_means_everyone_eligible_and_at_least_one() -> None:
    assert seat_size(seat_of(0, "SRE", "all", ("ann", "bo"))) == 2
    assert seat_size(seat_of(0, "SRE", "all", ("ann", "bo")), also=["cy", "bo"]) == 3
    assert seat_size(seat_of(0, "SRE", "all", ())) == 1


def test_one_person_cannot_fill_two_seats_alone() -> None:
    one = ("ann",)
    assert can_be_filled([seat_of(0, "A", 1, one)])
    assert not can_be_filled([seat_of(0, "A", 1, one), seat_of(1, "B", 1, one)])
    assert can_be_filled([seat_of(0, "A", 1, one), seat_of(1, "B", 1, ("ann", "bo"))])
    assert not can_be_filled([seat_of(0, "A", 1, ())])
