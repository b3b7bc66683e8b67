"""The queue of edits while Slack limits them: each has its turn, and cards that are decided come first.

Slack takes about 50 edits a minute of a whole workspace. Below that, every edit goes at once. Above, each learns when
its turn is and comes back then, instead of trying again and again; a decided card, whose buttons mislead people, goes
before the cards that only count a vote.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from approvals_bot.channels.slack.client import LaterError
from approvals_bot.channels.slack.reasons import QUEUED

UPDATE = "chat.update"
UPDATE_EVERY = 1.2  # seconds between two edits, of which Slack takes 50 a minute
GRACE = 15.0  # seconds after its turn until what doesn't come back loses its place
MARGIN = 0.05  # seconds that an edit may come early


class QueuedError(LaterError):
    """The turn comes later, exactly `after` from now. Nothing was sent."""

    otherwise = QUEUED


def span(seconds: float) -> timedelta:
    """Convert to a timedelta, rounded up so that nothing comes a moment too early."""
    return timedelta(milliseconds=max(1, ceil(seconds * 1_000)))


class Slot(NamedTuple):
    """A moment that an edit has for itself. `number`: of the slot, which begins at so many times UPDATE_EVERY."""

    number: int
    is_decided: bool

    @property
    def at(self) -> float:
        return self.number * UPDATE_EVERY


class UpdateQueue:
    """The edits that wait, by message. Times are monotonic seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._slots: dict[str, Slot] = {}
        self._free_at = 0.0  # no edit before

    def take_turn(self, message: str, *, is_decided: bool) -> None:
        """Return if this edit may go now. Raises QueuedError with its turn otherwise."""
        now = self._monotonic()
        mine = self._slots.pop(message, None)
        self._slots = {one: slot for one, slot in self._slots.items() if slot.at + GRACE > now}
        is_free = self._free_at - MARGIN <= now
        if is_free and not self._slots:
            return
        yields = not is_decided and any(slot.is_decided and slot.at <= now + MARGIN for slot in self._slots.values())
        if is_free and not yields and (mine is not None or is_decided):
            is_punctual = mine is not None and mine.at <= now < mine.at + UPDATE_EVERY
            self._free_at = (mine.at if mine is not None and is_punctual else now) + UPDATE_EVERY
            return
        raise QueuedError(UPDATE, "waiting for its turn", span(self._reserve(message, is_decided) - now))

    def limited(self, message: str, after: timedelta, *, is_decided: bool) -> timedelta:
        """Take note that Slack refuses edits for so long, this one too. Returns the time until its turn."""
        now = self._monotonic()
        self._free_at = max(self._free_at, now + after.total_seconds())
        return span(self._reserve(message, is_decided) - now)

    def _reserve(self, message: str, is_decided: bool) -> float:
        """Take the first slot that is left. A decided card may take that of an open one, which then gets another."""
        number = ceil(max(self._monotonic(), self._free_at) / UPDATE_EVERY)
        taken = {slot.number for slot in self._slots.values() if slot.is_decided or not is_decided}
        while number in taken:
            number += 1
        self._slots[message] = Slot(number, is_decided)
        return number * UPDATE_EVERY
