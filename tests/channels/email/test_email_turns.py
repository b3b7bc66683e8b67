"""How much a relay is given: no more than it takes, in order, and nobody is forgotten."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.channels.email.smtp import LATE, Turns

SECOND = timedelta(seconds=1)
START = datetime.fromisoformat("2026-11-04T10:05:00Z")


def test_as_many_as_are_allowed_go_at_once_and_the_others_wait_for_their_turns() -> None:
    turns = Turns(2, SECOND)
    waits = [turns.wait(who, START).total_seconds() for who in "abcde"]
    assert waits == [0, 0, 1, 1, 2]
    assert turns.wait("e", START + SECOND) == SECOND  # who asks again keeps her turn
    assert [turns.wait(who, START + SECOND).total_seconds() for who in "cd"] == [0, 0]
    assert turns.wait("f", START + SECOND) == SECOND  # beside e


def test_a_turn_that_nobody_came_for_is_lost() -> None:
    turns = Turns(1, timedelta(hours=1))
    turns.wait("a", START)
    assert turns.wait("b", START) == timedelta(hours=1)
    late = START + timedelta(hours=1) + LATE + SECOND
    assert turns.wait("c", late) == timedelta(hours=1) - LATE - SECOND
    assert turns.wait("b", late) > timedelta(hours=1)


@pytest.mark.parametrize(
    ("count", "per", "said"),
    [(14, 1, "14 mails a second"), (1, 60, "1 mail a minute"), (500, 3_600, "500 mails an hour")],
)
def test_a_rate_says_what_it_is(count: int, per: int, said: str) -> None:
    assert str(Turns(count, timedelta(seconds=per))) == said


@given(
    count=st.integers(1, 5),
    arrivals=st.lists(st.integers(0, 3_000), min_size=1, max_size=60).map(sorted),
)
def test_no_span_of_time_ever_sees_more_than_is_allowed(count: int, arrivals: list[int]) -> None:
    turns, went, coming = Turns(count, SECOND), [], [(at, f"mail {n}") for n, at in enumerate(arrivals)]
    while coming:
        at, who = coming.pop(0)
        wait = turns.wait(who, START + timedelta(milliseconds=at))
        if wait:
            coming = sorted([*coming, (at + wait // timedelta(milliseconds=1), who)])
        else:
            went.append(at)
    assert len(went) == len(arrivals)
    assert all(later - first >= 1_000 for first, later in zip(went, went[count:], strict=False))
