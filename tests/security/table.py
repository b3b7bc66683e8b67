"""The table of bad inputs by their number, and what each has to fulfil: see test_bad_inputs.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
OF_AUDIT = ("audit", "audit_head")
MOST_CPU = 0.1  # seconds an answer, of this process, which is caller and service in one

Play = Callable[[Any], Awaitable[Iterable[int]]]


@dataclass(frozen=True)
class Bad:
    """A bad input.

    `audited`: the lines of the audit that it leaves, if any. `on_sockets`: it needs `asked.sites`, a server for each
    HTTP parser. `cpu`: seconds an answer.
    """

    number: str
    what: str
    statuses: frozenset[int]
    play: Play
    audited: tuple[str, ...]
    on_sockets: bool
    cpu: float

    def __str__(self) -> str:
        return self.number


TABLE: list[Bad] = []


def bad(
    number: str,
    what: str,
    *statuses: int,
    audited: tuple[str, ...] = (),
    on_sockets: bool = False,
    cpu: float = MOST_CPU,
) -> Callable[[Play], Play]:
    """Add a row to the table."""

    def add(play: Play) -> Play:
        TABLE.append(Bad(number, what, frozenset(statuses), play, audited, on_sockets, cpu))
        return play

    return add
