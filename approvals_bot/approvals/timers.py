"""The times of one stage: reminders, escalations, delayed mails, the deadline.

All count from the opening of the stage. Each is a durable timer that puts a `Due` into the same queue as the votes, so
the order of the log decides between a click and a deadline. A closing stage cancels its timers, and the `Due`s already
in the queue no longer count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from approvals_bot.approvals.acts import Rejection
from approvals_bot.approvals.business_time import BusinessTime, Calendar, Length, after
from approvals_bot.approvals.clock import MORE, Escalation
from approvals_bot.approvals.deadlines import TimeOfDay, TimeOfField, moment_of_deadline
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Request, RequestStage, RequestTimer
from approvals_bot.durable.core.api import now
from approvals_bot.durable.core.loop import WorkflowLoop
from approvals_bot.people.addresses import is_mail

Kind = Literal["deadline", "reminder", "escalation", "mail", "people", "absence", "grace", "snooze"]

THEN = {
    "expire": "then it expires",
    "reject": "then it is rejected",
    "approve": "then it is approved",
    "escalate": "then it escalates",
}
"""What happens at the deadline, to follow "in 3 hours, "."""

_ASKED = {"add": "asked too", "replace": "asked instead"}

Moved = tuple[tuple["Time", ...], list[int]]
"""The times of a stage whose deadline has moved, and the escalations to run at that."""

Values = Mapping[str, Any]
NO_VALUES: Values = MappingProxyType({})

LOOK_AGAIN = (5.0, 300.0)  # seconds, first and longest wait before a failed source of people is read again


@dataclass(frozen=True, slots=True)
class Due:
    """A timer that fired. `round`: the opening of a stage to which it belongs."""

    kind: Kind
    round: int
    number: int = 0  # the escalation, or the number of look-ups


@dataclass(frozen=True, slots=True)
class Time:
    """A time in an open stage. `then`: what happens at the deadline, for people."""

    at: datetime
    kind: Kind
    what: str
    number: int = 0
    then: str = ""


def stage_times(definition: Definition, opened_at: datetime, values: Values = NO_VALUES) -> tuple[Time, ...]:
    """Return the times of a stage that opened at `opened_at`. `values`: the typed fields, which may hold its deadline.

    Escalations that aren't due before the deadline are left out: `on_deadline = "escalate"` runs them.
    """
    clock, times = definition.clock, list[Time]()
    deadline = _ends(definition, opened_at, values)
    for at in sorted({_after(definition, opened_at, length) for length in clock.reminders()}):
        if deadline is None or at < deadline:
            times.append(Time(at, "reminder", "a reminder to people who still owe a vote"))
    escalations = [(number, each) for number, each in enumerate(definition.escalate) if each.to]
    late = False
    for number, escalation in escalations:
        at = _after(definition, opened_at, escalation.after)
        if deadline is not None and at >= deadline:
            late = True
        else:
            times.append(Time(at, "escalation", _escalation_text(escalation), number))
    if definition.deliver.email:
        at = _after(definition, opened_at, definition.deliver.email)
        times.append(Time(at, "mail", "mail, if nobody has voted by then"))
    if deadline is not None:
        is_end = clock.on_deadline == "escalate" and not late
        times.append(_deadline(definition, deadline, THEN["expire" if is_end else clock.on_deadline]))
    return tuple(times)


def _escalation_text(escalation: Escalation) -> str:
    to = ["more of them" if address == MORE else address for address in escalation.to]
    verb = "is" if len(to) == 1 and is_mail(to[0]) else "are"
    return f"escalation: {', '.join(to)} {verb} {_ASKED[escalation.mode]}"


def second_deadline(
    definition: Definition, at: datetime, opened_at: datetime, values: Values = NO_VALUES
) -> tuple[Time, ...]:
    """Return one more deadline, as long as that of the stage, which opened at `opened_at`. Then the request expires.

    A time in a field counts until it has passed.
    """
    first, second = _ends(definition, opened_at, values), _ends(definition, at, values)
    if first is None or second is None:
        return ()
    return (_deadline(definition, second if second > at else at + (first - opened_at), THEN["expire"]),)


def _ends(definition: Definition, opened_at: datetime, values: Values) -> datetime | None:
    """Return the deadline of a stage that opened then; None if there is none."""
    deadline = definition.clock.deadline
    if isinstance(deadline, TimeOfDay | TimeOfField):
        return moment_of_deadline(deadline, opened_at, definition.clock.zone or "UTC", values)
    return None if deadline is None else _after(definition, opened_at, deadline)


def past_deadlines(
    definition: Definition, values: Values, at: datetime, done: Collection[str] = ()
) -> tuple[Rejection, ...]:
    """Return what is wrong with deadlines in these typed fields: those that have passed at that time.

    `done`: stages that are over or never open, whose deadlines don't matter.
    """
    zone, fields = definition.clock.zone or "UTC", definition.deadline_fields(done)
    ends = {name: moment_of_deadline(TimeOfField(name), at, zone, values) for name in fields}
    return tuple(Rejection((name,), "deadline_past") for name, end in ends.items() if end is not None and end <= at)


def moved_times(definition: Definition, stage: RequestStage, deadline: datetime | None, values: Values) -> Moved | None:
    """Return the times of an open stage after an edit; None if the deadline, which a field holds, is the same.

    `deadline`: as of now.
    """
    if not isinstance(definition.clock.deadline, TimeOfField) or stage.opened_at is None:
        return None
    end = _ends(definition, stage.opened_at, values)
    if end == deadline:
        return None
    times = tuple(time for time in stage_times(definition, stage.opened_at, values) if time.kind != "mail")
    if len(stage.escalations) < sum(bool(each.to) for each in definition.escalate):
        return times, late_escalations(definition, times)
    last = _deadline(definition, end, THEN["expire"]) if end and definition.clock.on_deadline == "escalate" else None
    return tuple(last or time if time.kind == "deadline" else time for time in times if time.kind != "escalation"), []


def with_deadline(request: Request, times: Sequence[Time]) -> Request:
    """Return the request with the deadline among these times, or without one."""
    at, then = next(((time.at, time.then) for time in times if time.kind == "deadline"), (None, ""))
    return request.but(deadline=at, on_deadline=then)


def late_escalations(definition: Definition, times: Sequence[Time]) -> list[int]:
    """Return the numbers of the escalations to run at the deadline."""
    earlier = [time.number for time in times if time.kind == "escalation"]
    return [number for number, each in enumerate(definition.escalate) if each.to and number not in earlier]


def escalates_to(definition: Definition, times: Sequence[Time]) -> tuple[str, ...]:
    """Return the addresses to which the stage escalates at its deadline; () if something else happens then."""
    late = late_escalations(definition, times) if definition.clock.on_deadline == "escalate" else []
    return tuple(address for number in late for address in definition.escalate[number].to)


def naming(definition: Definition, times: Sequence[Time], target: str) -> tuple[Time, ...]:
    """Return these times, with a deadline that says to whom the stage escalates."""
    then = f"{THEN['escalate']} to {target}"
    return tuple(_deadline(definition, time.at, then) if time.kind == "deadline" else time for time in times)


def next_look(at: datetime, times: int) -> Time:
    """Return when to read a source of people again that has failed `times` times."""
    first, longest = LOOK_AGAIN
    wait = timedelta(seconds=min(first * 2**times, longest))
    return Time(at + wait, "people", "another look-up of the approvers", times + 1)


def _after(definition: Definition, start: datetime, length: Length) -> datetime:
    calendar = definition.clock.calendar
    return after(start, length, calendar if isinstance(calendar, Calendar) else None)


def _deadline(definition: Definition, at: datetime, then: str) -> Time:
    """Name the length if it is business time, which the date doesn't show."""
    length = definition.clock.deadline
    name = f"deadline after {length}" if isinstance(length, BusinessTime) else "deadline"
    return Time(at, "deadline", f"{name}: {then}", then=then)


class StageTimers:
    """The timers of the open stage, each of which puts a `Due` into the queue when it fires."""

    def __init__(self, queue: asyncio.Queue[Any], tasks: asyncio.TaskGroup) -> None:
        self._queue = queue
        self._tasks = tasks
        self._coming: dict[Time, asyncio.Task[None]] = {}
        self.round = 0

    def add(self, *times: Time) -> None:
        """Add a timer for each of these times."""
        for time in times:
            if time in self._coming:
                continue
            self._coming[time] = self._tasks.create_task(self._come(time.at, Due(time.kind, self.round, time.number)))

    def has(self, at: datetime) -> bool:
        """Return whether there is a timer at this time."""
        return any(time.at == at for time in self._coming)

    def cancel(self, *kinds: Kind) -> None:
        """Cancel the timers of these kinds."""
        for time in [time for time in self._coming if time.kind in kinds]:
            self._coming.pop(time).cancel()

    def stop(self) -> None:
        """Cancel all timers, and ignore what those that fired put into the queue."""
        self.round += 1
        for task in self._coming.values():
            task.cancel()
        self._coming.clear()

    def show(self, now: datetime) -> tuple[RequestTimer, ...]:
        """Return the coming times, earliest first."""
        coming = sorted((time for time in self._coming if time.at > now), key=lambda time: time.at)
        return tuple(RequestTimer(at=time.at, what=time.what) for time in coming)

    async def _come(self, at: datetime, due: Due) -> None:
        """Wait like `sleep`, but without its early end by `wake_up`: a deadline must not come early."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, WorkflowLoop), "it is durable, so it is a workflow's"
        if at <= now():
            await asyncio.sleep(0)
        else:
            come = loop.create_future()
            timer = loop.call_at_instant(at.timestamp(), _arrive, come)
            try:
                await come
            finally:
                timer.cancel()
        self._queue.put_nowait(due)


def _arrive(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)
