"""Places: what a step waits for before its attempt begins. A `def` needs a thread, and a limit lets few in at a time.

Waiting costs no thread and counts towards nothing: the attempt hasn't begun, so it isn't in the log. Each gate serves
the steps that wait in the order in which they came.

A line is short. Further runs that only wait for it are parked: released to the store, where they cost nothing, and
called in their order as the line gets shorter. Should this process die, their wake times bring them back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice

from approvals_bot.durable.engine.limits import MAX_IN_LINE, MAX_PARKED, PARKED, PARKED_APART, PARKED_MOST
from approvals_bot.errors import InvalidArgumentError


class Gate:
    """A number of places, the line of the steps that wait for one, and the runs that are parked behind it."""

    def __init__(self, name: str | None, most: int, crowded: set[Gate]) -> None:
        """`name` is that of a limit; None for the threads. `crowded` are the gates that have parked runs."""
        self.name = name
        self.most = most
        self.free = most
        self.line: dict[Ticket, None] = {}  # the first comes first; a dict, so that any of them can leave
        self.parked: OrderedDict[str, int] = OrderedDict()  # runs, the first first: how often each has looked again
        self.call: Callable[[], None] = lambda: None  # asks for `next_parked` to be called
        self._crowded = crowded
        self._called: set[str] = set()  # runs that were parked, and haven't come to the line yet
        self._latest: datetime | None = None  # the latest wake time of a parked run

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

    def place_of(self, ticket: Ticket) -> int:
        """Return a ticket's place in the line: 1 comes next."""
        return list(self.line).index(ticket) + 1

    def place_of_parked(self, run_id: str) -> int:
        """Return the place of a run that waits in the store: behind the line, and those parked before it."""
        return len(self.line) + list(self.parked).index(run_id) + 1

    def serve(self) -> None:
        while self.free > 0 and self.line:
            first = next(iter(self.line))
            del self.line[first]
            self.free -= 1
            first.passed()
        if self.parked and len(self.line) <= MAX_IN_LINE // 2:
            self.call()

    # ── runs that wait in the store ──

    def is_full(self, run_id: str, own: int) -> bool:
        """Return whether this run has to wait in the store: the line is full, or other runs there are before it.

        `own` is how many steps in the line are its own.
        """
        if len(self.line) - own >= MAX_IN_LINE:
            return True
        return bool(self.parked) and run_id not in self._called and next(iter(self.parked)) != run_id

    def park(self, run_id: str, now: datetime, *, is_first: bool) -> datetime:
        """Take note of a run that waits in the store, and return when it is to look again.

        Wake times have a distance, so parked runs never keep a process busy. A run that was parked before keeps its
        turn.
        """
        if run_id in self.parked:  # this process is alive, so there is less and less need to look
            self.parked[run_id] = looks = self.parked[run_id] + 1
            return now + min(PARKED * (1 << min(looks, 20)), max(PARKED_MOST, PARKED_APART * len(self.parked)))
        if self._latest is None or not self.parked:
            self._latest = now + PARKED
        else:
            self._latest = max(now + PARKED, self._latest + PARKED_APART)
        if len(self.parked) < MAX_PARKED:
            self.parked[run_id] = 0
            self._crowded.add(self)
            if is_first or run_id in self._called:
                self.parked.move_to_end(run_id, last=False)
        self._called.discard(run_id)
        return self._latest

    def arrived(self, run_id: str) -> None:
        """Forget a run that was parked: it is in the line."""
        self._unpark(run_id)
        self._called.discard(run_id)

    def next_parked(self, at_work: Collection[str]) -> list[str]:
        """Return the parked runs that the line has room for. `at_work` are the runs that this process works on.

        Call `called` for each that is then claimed.
        """
        self._called.intersection_update(at_work)
        room = MAX_IN_LINE - len(self.line) - len(self._called)
        if room <= 0 or len(self.line) > MAX_IN_LINE // 2:
            return []
        return list(islice((run_id for run_id in self.parked if run_id not in at_work), room))

    def called(self, run_id: str) -> None:
        """Take note that a parked run is about to be claimed."""
        self._unpark(run_id)
        self._called.add(run_id)

    def _unpark(self, run_id: str) -> None:
        self.parked.pop(run_id, None)
        if not self.parked:
            self._crowded.discard(self)


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

    def places_in_line(self) -> dict[int, tuple[str, int]]:
        """Return the limit, and the place in its line, of each step that waits for one."""
        waiting = ((number, ticket, ticket.waits_for) for number, ticket in self.tickets.items())
        return {
            number: (gate.name, gate.place_of(ticket))
            for number, ticket, gate in waiting
            if gate is not None and gate.name is not None
        }

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

    def park(self, now: datetime, *, are_new: bool) -> datetime | None:
        """Leave lines that are full, if the run only waits in such lines. Returns when it is to look again.

        None: it stays in line. A run of which a step has been in line before (not `are_new`) goes before all others.
        """
        if self._is_resting or not self.tickets or len(self.waiting) < len(self.tickets):
            return None
        gates = Counter(gate for ticket in self.tickets.values() if (gate := ticket.waits_for) is not None)
        if all(gate.is_full(self._run_id, own) for gate, own in gates.items()):
            wake_at = next(iter(gates)).park(self._run_id, now, is_first=not are_new)
            self.leave()
            return wake_at
        for gate in gates:
            gate.arrived(self._run_id)
        return None

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
        self.crowded: set[Gate] = set()
        self.threads = Gate(None, threads, self.crowded)
        self.limits = {name: Gate(name, most, self.crowded) for name, most in limits.items()}
        self.all = (self.threads, *self.limits.values())

    def gates(self, limit: str | None, *, threaded: bool) -> list[Gate]:
        """Return the gates that a step has to pass. An unknown limit has none: the attempt fails."""
        gates = [self.limits[limit]] if limit in self.limits else []
        return [*gates, self.threads] if threaded else gates
