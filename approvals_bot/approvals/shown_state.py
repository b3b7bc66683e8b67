"""The state of a request that a page or card shows, as one word that a press on it brings back. Pure.

A log only grows, so a press may show any state that it has had. It shows another one if the log was put back since,
from a backup or by a reset.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.events import to_micros


class Dated(Protocol):
    """A vote, as a request or a card has it."""

    @property
    def at(self) -> datetime: ...


def state_mark(version: int, votes: Sequence[Dated]) -> str:
    """Return what stands for this state: the version, and the microsecond of the newest vote; `3.` without votes.

    The version alone isn't enough: after a restore, other votes may lead to the same one.
    """
    return f"{version}.{to_micros(votes[-1].at) if votes else ''}"


def has_had(request: Request, mark: str) -> bool:
    """Return whether the request is in the state with this mark, or was in it before."""
    version, _, vote = mark.partition(".")
    if not version.isdecimal() or int(version) > request.version:
        return False
    return not vote or any(str(to_micros(each.at)) == vote for each in request.votes)
