"""The relay's rate limit: never exceeded, in order, and nobody is forgotten."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.channels.email.smtp import LATE, Turns

SECOND = timedelta(seconds=1)
START = datetime.fromisoformat("2026-11-04T10:05:00Z")


def test_the_allowed_number_goes_at_once_and_the_rest_wait() -> None:
    turns = Turns(2, SECOND)
    waits = [turns.wait(key, START).total_seconds() for key in "abcde"]
    assert waits == [0, 0, 1, 1, 2]
    assert turns.wait("e", START + SECOND) == SECOND  # asking again keeps the turn
    assert [turns.wait(key, START + SECOND).total_seconds() for key in "cd"] == [0, 0]
    assert turns.wait("f", START + SECOND) == SECOND  # beside e


def test_an_unused_turn_lapses() -> None:
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
def test_a_rate_reads_as_text(count: int, per: int, said: str) -> None:
    assert str(Turns(count, timedelta(seconds=per))) == said


@given(
    count=st.integers(1, 5),
    arrivals=st.lists(st.integers(0, 3_000), min_size=1, max_size=60).map(sorted),
)
def test_no_span_of_time_exceeds_the_limit(count: int, arrivals: list[int]) -> None:
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
