"""The engine's limits. Each has a name, a reason, and an error that names it."""

from __future__ import annotations

from datetime import timedelta

from approvals_bot.errors import InvalidArgumentError

MAX_EVENTS = 25_000
"""Events of one run. A replay reads them all. A loop that needs more should start a new run now and then."""

ACTIVATION_TIME = 2.0
"""Seconds that a workflow's body may compute between two waits. A body that needs more is doing a step's work."""

MAX_ACTIVE = 500
"""Runs that one process works on at a time. The others wait in the store, where they cost nothing."""

STEP_THREADS = 32
"""Threads of one process in which steps written as `def` run, by default. Others wait, which costs them nothing."""

MAX_IN_LINE = 200
"""Steps in line for one limit, or for threads, before runs that only wait for it go back to the store. Each keeps its
run in memory. There must be enough that a free place never has to wait for the store."""

MAX_PARKED = 100_000
"""Runs whose order this process keeps while they wait for one limit in the store. Each takes 150 bytes."""

PARKED, PARKED_APART, PARKED_MOST = timedelta(seconds=15), timedelta(milliseconds=50), timedelta(minutes=10)
"""How long a run waits for a place in the store before it looks again, how far apart runs do so, and the most that the
first doubles to, unless so many wait that they would be less far apart. They are called before that, when the line gets
short, unless this process has died or has lost count."""

MAX_LEFT_BEHIND = 256
"""Threads that may go on after their attempt has timed out while others take their places. Python can't stop a thread,
and each takes memory, so a step that always hangs must not get more of them for ever."""

CACHED_RUNS = 500
"""Paused runs whose replays one process caches. A small one takes 12 kB, an approval about 50."""

CACHED_SIZE = 10_000_000
"""Characters of text in the logs of all cached runs, so payloads can't fill the memory. Resuming a run that isn't
cached reads and replays its log, which takes a quarter of a second for 7,500 events."""

LEASE = timedelta(seconds=15)
"""How long a run stays with a process that has stopped renewing its lease. Then another process takes it over."""

POLL = 0.25
"""Seconds between checks for writes by other processes: one cheap query for all runs."""

LOOK = 1.0
"""Seconds between checks for due runs, with or without a notification: another process may have died."""

STALLED = 2.0
"""Seconds between retries of stalled runs. While two releases run side by side, one may have the code that the other
lacks, and people are waiting."""

LEAP = 0.1
"""Seconds by which the clock may gain on the event loop's between two checks. If it gains more, it was set or the
machine was suspended, and activations that wait are checked again."""

RETRY_STORE = 0.2
"""Seconds before the first retry when the store is unavailable. They double up to RETRY_STORE_MOST."""

RETRY_STORE_MOST = 5.0
"""Seconds. With more, a store that is back would stay unused for too long."""

MANUAL_ANSWER = 10.0
"""Seconds that a webhook's caller waits for the workflow's own answer before it gets a 504."""

MOST_WAITING = 10_000
"""Payloads that a hook may be allowed to keep while nobody takes them. A run takes 24,000 events at most."""

CANCEL_GRACE, MOST_GRACE = 60.0, 7 * 24 * 3600.0
"""Seconds that a cancelled run has to tidy up by default, and at most. After that it is ended where it is."""

TIDY_AT_ONCE = 0.1
"""Seconds for which cancelling a run waits for its end. Most have nothing to tidy up, and callers see them ended."""

MAX_MOVED = 1_000
"""Open hooks and children that move to the next run when one continues. A loop that opens more each time leaks them."""

CLOSING = 5.0
"""Seconds that running steps get to finish when the engine closes. Then they are cancelled, and run again later."""

ENDING = 1.0
"""Seconds that cancelled steps get for their `finally` blocks when the engine closes. Then they are left where they
are, and so are the threads of steps, so that no step can keep the process from ending. They run again later."""


def check_waiting(payloads: int) -> int:
    """Return how many payloads a hook keeps. Raises InvalidArgumentError for a number that makes no sense."""
    if type(payloads) is not int or not 1 <= payloads <= MOST_WAITING:
        raise InvalidArgumentError(f"max_waiting must be between 1 and {MOST_WAITING:,} payloads, not {payloads!r}")
    return payloads


def check_grace(seconds: float) -> timedelta:
    """Return how long cancelled runs have to tidy up. Raises InvalidArgumentError for a length that makes no sense."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_GRACE:
        raise InvalidArgumentError(f"cancel_grace must be between 0 and {MOST_GRACE:,.0f} seconds, not {seconds!r}")
    return timedelta(seconds=seconds)
