"""Places: what a step waits for before its attempt begins. A `def` needs a thread, and a limit lets few in at a time.

Waiting costs no thread and counts towards nothing: the attempt hasn't begun, so it isn't in the log. Each gate serves
those who wait in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from approvals_bot.errors import InvalidArgumentError


class Gate:
    """A number of places, and the line of those who wait for one."""

    def __init__(self, name: str | None, most: int) -> None:
        """`name` is that of a limit; None for the threads."""
        self.name = name
        self.free = most
        self.line: dict[Ticket, None] = {}  # the first comes first; a dict, so that any of them can leave

    def enter(self, ticket: Ticket) -> None:
        if self.free > 0 and not self.line:
            self.free -= 1
            ticket.passed()
        else:
            self.line[ticket] = None

    def leave(self) -> None:
        """Give a place back. The first in the line gets it."""
        self.free += 1
        self.serve()

    def serve(self) -> None:
        while self.free > 0 and self.line:
            first = next(iter(self.line))
            del self.line[first]
            self.free -= 1
            first.passed()


class Ticket:
    """A step on its way through its gates, one after the other: first its limit, then the threads.

    In this order, because a step that waits for its limit must not hold a thread meanwhile.
    """

    def __init__(self, gates: Sequence[Gate], when_granted: Callable[[], None]) -> None:
        self._gates = gates
        self._behind = 0  # how many gates it has passed
        self._when_granted = when_granted
        self.is_granted = False
        self._enter()

    @property
    def waits_for(self) -> Gate | None:
        """The gate that it waits at. None if it may begin."""
        return None if self.is_granted else self._gates[self._behind]

    def passed(self) -> None:
        self._behind += 1
        self._enter()

    def _enter(self) -> None:
        if self._behind < len(self._gates):
            self._gates[self._behind].enter(self)
        elif not self.is_granted:
            self.is_granted = True
            self._when_granted()

    def give_back(self) -> None:
        """Leave the line, or give the places back."""
        passed, ahead, self._gates = self._gates[: self._behind], self._gates[self._behind :], ()
        self._behind = 0
        if ahead:
            ahead[0].line.pop(self, None)
        for gate in passed:
            gate.leave()


class Queue:
    """The steps of one run that wait for places, or have them and are about to begin."""

    def __init__(self, run_id: str, wake: Callable[[], None], rest: Callable[[str, bool], None]) -> None:
        """`wake` is called when a step may begin. `rest` is called when the run does nothing but wait, and after it."""
        self._run_id = run_id
        self._wake = wake
        self._rest = rest
        self._is_resting = False
        self.tickets: dict[int, Ticket] = {}

    @property
    def waiting(self) -> list[int]:
        """The numbers of the steps that have no place yet."""
        return [number for number, ticket in self.tickets.items() if not ticket.is_granted]

    def add(self, number: int, gates: Sequence[Gate]) -> None:
        """Get in line for a step. It may begin at once, if nobody else waits."""
        self.tickets[number] = Ticket(gates, self._granted)

    def begin(self, number: int, task: asyncio.Task[None]) -> None:
        """Let a step begin. It gives its places back when its task is done."""
        if (ticket := self.tickets.pop(number, None)) is not None:
            task.add_done_callback(lambda _: ticket.give_back())

    def leave(self, numbers: Collection[int] | None = None) -> None:
        """Leave the lines, and give back what steps have that haven't begun. None: of all steps."""
        for number in [*self.tickets] if numbers is None else numbers:
            self.tickets.pop(number).give_back()
        if not self.tickets:
            self.rest(is_idle=False)

    def rest(self, *, is_idle: bool) -> None:
        """Let other runs work in this one's slot while it only waits in lines."""
        only_waits = is_idle and bool(self.tickets) and len(self.waiting) == len(self.tickets)
        if only_waits != self._is_resting:
            self._is_resting = only_waits
            self._rest(self._run_id, only_waits)

    def _granted(self) -> None:
        self.rest(is_idle=False)
        self._wake()


class StepPlaces:
    """The gates of one process: its threads, and its limits by name."""

    def __init__(self, threads: int, limits: Mapping[str, int]) -> None:
        """Raises InvalidArgumentError unless there are names, and whole numbers of 1 or more."""
        if not isinstance(limits, Mapping) or not all(isinstance(name, str) and name for name in limits):
            raise InvalidArgumentError(f"limits must be numbers by name, like {{'erp': 5}}, not {limits!r}")
        for what, most in (("step_threads", threads), *((f"limits: {name}", most) for name, most in limits.items())):
            if isinstance(most, bool) or not isinstance(most, int) or most < 1:
                raise InvalidArgumentError(f"{what} must be a whole number, 1 or more, not {most!r}")
        self.threads = Gate(None, threads)
        self.limits = {name: Gate(name, most) for name, most in limits.items()}

    def gates(self, limit: str | None, *, threaded: bool) -> list[Gate]:
        """Return the gates that a step has to pass. An unknown limit has none: the attempt fails."""
        gates = [self.limits[limit]] if limit in self.limits else []
        return [*gates, self.threads] if threaded else gates
