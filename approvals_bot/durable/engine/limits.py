"""The engine's limits: each has a name, a reason, and an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from approvals_bot.errors import LimitExceededError

MAX_EVENTS = 25_000
"""Events of one run. A replay reads them all; a loop that needs more should start a new run now and then."""

ACTIVATION_TIME = 2.0
"""Seconds that a workflow's body may compute between two waits. A body that needs more is doing a step's work."""

MAX_ACTIVE = 500
"""Runs that one process works on at the same time. The others wait in the store, where they cost nothing."""

CACHED_RUNS = 500
"""Paused runs whose replays one process keeps. A small one takes 12 kB, an approval about 50."""

CACHED_SIZE = 100_000
"""Characters of text in a log. A run with a larger one is not cached, so that payloads can't fill the memory: its log
is read and replayed when the run is resumed."""

LEASE = timedelta(seconds=15)
"""How long a run stays with a process that has stopped renewing: so long it takes until another one takes it over."""

POLL = 0.25
"""Seconds between looks at whether another process has written. One cheap question for all runs, not one for each."""

LOOK = 1.0
"""Seconds between looks at what is due, whether or not anybody has said anything: another process may have died."""

STALLED = 2.0
"""Seconds between looks at runs that are stalled: while two releases serve side by side, one may go on with what the
other has no code for, and people are waiting."""

LEAP = 0.1
"""Seconds by which the clock may gain on the loop's own between two looks. By more, and it was set, or the machine was
suspended: what waits in hand is looked at again."""

RETRY_STORE = 0.2
"""Seconds before a store that could not be reached is asked again; doubled up to RETRY_STORE_MOST."""

RETRY_STORE_MOST = 5.0
"""Seconds. Longer, and a store that is back would stay unused."""

MANUAL_ANSWER = 10.0
"""Seconds that a webhook's caller waits for the workflow's own answer, then 504."""

OWN_END = 10.0
"""Seconds that a run with `on_cancel` has to end by itself once it is cancelled. Then it is ended where it waits."""

CLOSING = 5.0
"""Seconds that running steps get to finish when the engine closes. Then they are cancelled, and run again elsewhere."""

MAX_ATTRIBUTES, MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTE_VALUE = 64, 256, 256
"""Attributes of a run, and characters of a name and of a value. They are for finding runs, not for carrying data."""


def check_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """LimitExceededError or ValueError for attributes that can't be kept."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise LimitExceededError("number of attributes", MAX_ATTRIBUTES, len(attributes), "attributes")
    for name, value in attributes.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f"attribute {name!r}: names and values are texts")
        if name.startswith("$"):
            raise ValueError(f"attribute {name!r}: names that start with $ are reserved")
        if len(name) > MAX_ATTRIBUTE_NAME:
            raise LimitExceededError("length of an attribute's name", MAX_ATTRIBUTE_NAME, len(name), "characters")
        if len(value) > MAX_ATTRIBUTE_VALUE:
            raise LimitExceededError(f"length of attribute {name!r}", MAX_ATTRIBUTE_VALUE, len(value), "characters")
    return dict(attributes)
