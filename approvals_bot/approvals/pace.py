"""How long to wait before trying again."""

from __future__ import annotations

from datetime import timedelta

LONGEST_TRY = timedelta(hours=48)
"""How long a delivery is tried where no deadline ends it before."""

FIRST_WAIT = 4.0  # seconds; with the jitter, 2 to 4
LONGEST_WAIT = 900.0  # seconds


def wait_before(attempts: int, wish: timedelta | None, chance: float) -> timedelta:
    """The time until the next attempt, after so many. `chance`, in [0, 1), spreads those who failed together.

    `wish` is the other side's own, kept unless it is shorter than ours, or longer than a day.
    """
    longest = min(FIRST_WAIT * 2 ** min(attempts - 1, 16), LONGEST_WAIT)
    own = timedelta(seconds=longest * (0.5 + 0.5 * chance))
    return own if wish is None else max(own, min(wish, timedelta(days=1)))
