"""A standing grant as a frozen value: an approval of later requests, and the votes that it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from pydantic import JsonValue

ALLOWANCE = "allowance:"
"""What the id of an allowance begins with."""


@dataclass(frozen=True, slots=True)
class GivenVote:
    """A vote that a grant rests on: in which stage, and whose place it filled there."""

    stage: str
    person: str


@dataclass(frozen=True, slots=True)
class StandingGrant:
    """An approval of later requests. `id`: `grant:<run>` or `allowance:<id>`, the `by` of what it approves.

    `times`: how many it covers at most; `sums`: the most that these fields add up to, `at_most`: the most that they are
    in each; `same`: the values that have to be equal, besides those in the list's name.
    """

    id: str
    request: str
    title: str
    votes: tuple[GivenVote, ...]
    given_at: datetime
    until: datetime
    times: int
    sums: dict[str, Decimal] = field(default_factory=dict)
    at_most: dict[str, Decimal] = field(default_factory=dict)
    same: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def is_allowance(self) -> bool:
        """Whether it is for the next calls of an agent's tool."""
        return self.id.startswith(ALLOWANCE)

    @property
    def givers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(vote.person for vote in self.votes))
