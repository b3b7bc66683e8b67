"""How thorough a run of the tests is: `make test` samples what `make test-all` (EVERY_BUG=1) does in full."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("EVERY_BUG"))
SHARE = 3  # of many examples, `make test` tries one in so many


def examples(many: int) -> int:
    """Return how many examples Hypothesis tries, of so many in a thorough run."""
    return many if THOROUGH else many // SHARE


def places(calls: int, how: str) -> range:
    """Return at which of so many calls a process dies: at each in a thorough run.

    Otherwise at every other one: what dies before a call does so at odd ones, what dies after it at even ones.
    """
    return range(1, calls + 1) if THOROUGH else range(2 if how.endswith("after") else 1, calls + 1, 2)
