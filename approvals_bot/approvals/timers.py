"""The times of one stage: reminders, escalations, late mails, the deadline.

All count from the moment the stage opens. Each is a durable timer that puts a `Due` into the same queue as the votes,
so the log's order decides between a click and a deadline. A stage that closes withdraws its timers, and what they had
already put into the queue no longer counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from approvals_bot.approvals.business_time import BusinessTime, Calendar, Length, after
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import RequestTimer
from approvals_bot.durable.core.api import now
from approvals_bot.durable.core.loop import WorkflowLoop

Kind = Literal["deadline", "reminder", "escalation", "mail", "people", "absence", "grace"]

THEN = {
    "expire": "then it expires",
    "reject": "then it is rejected",
    "approve": "then it is approved",
    "escalate": "then other people are asked",
}
"""What happens at the deadline, after "in 3 hours, "."""

_ASKED = {"add": "are asked too", "replace": "are asked instead"}

LOOK_AGAIN = (5.0, 300.0)  # seconds, first and longest: until a source of people that was down is asked again


@dataclass(frozen=True, slots=True)
class Due:
    """A time has come. `round`: of which opening of a stage."""

    kind: Kind
    round: int
    number: int = 0  # which escalation, or how often people were looked for


@dataclass(frozen=True, slots=True)
class _Time:
    """A time of a stage."""

    at: datetime
    kind: Kind
    what: str
    number: int = 0


def times_of(definition: Definition, opened_at: datetime) -> list[tuple[datetime, str]]:
    """What comes by itself while a stage that opened then is open, and when; the earliest first."""
    return [(time.at, time.what) for time in sorted(_times(definition, opened_at), key=lambda time: time.at)]


def _times(definition: Definition, opened_at: datetime) -> Iterator[_Time]:
    """Escalations that come no earlier than the deadline wait for it: they are what it may escalate to."""
    clock = definition.clock
    deadline = _after(definition, opened_at, clock.deadline) if clock.deadline is not None else None
    for at in sorted({_after(definition, opened_at, length) for length in clock.reminders()}):
        if deadline is None or at < deadline:
            yield _Time(at, "reminder", "a reminder to those who still owe a vote")
    escalations = [_after(definition, opened_at, escalation.after) for escalation in definition.escalate]
    for number, (escalation, at) in enumerate(zip(definition.escalate, escalations, strict=True)):
        if deadline is None or at < deadline:
            what = f"escalation: {', '.join(escalation.to)} {_ASKED[escalation.mode]}"
            yield _Time(at, "escalation", what, number)
    if definition.deliver.email:
        at = _after(definition, opened_at, definition.deliver.email)
        yield _Time(at, "mail", "mail, if nobody has voted by then")
    if deadline is not None:
        yield _Time(
            deadline,
            "deadline",
            f"{_deadline(definition)}: {_then(definition, any(at >= deadline for at in escalations))}",
        )


def _then(definition: Definition, has_more: bool) -> str:
    """What the deadline brings. `has_more`: whether an escalation has waited for it; else there is nobody to ask."""
    on_deadline = definition.clock.on_deadline
    return THEN["expire" if on_deadline == "escalate" and not has_more else on_deadline]


def _after(definition: Definition, start: datetime, length: Length) -> datetime:
    calendar = definition.clock.calendar
    return after(start, length, calendar if isinstance(calendar, Calendar) else None)


def _deadline(definition: Definition) -> str:
    """Business time is named: one can't see from a date how it was counted."""
    length = definition.clock.deadline
    return f"deadline after {length}" if isinstance(length, BusinessTime) else "deadline"


@dataclass
class Timer:
    at: datetime
    what: str
    task: Any


class StageTimers:
    """The timers of the stage that is open."""

    def __init__(
        self,
        definition: Definition,
        *,
        put: Callable[[Due], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._definition = definition
        self._put = put
        self._spawn = spawn
        self._timers: list[Timer] = []
        self.round = 0
        self.deadline: datetime | None = None
        self.then = ""
        self._late: list[int] = []
        self._held: Timer | None = None
        self.is_extended = False  # the deadline has escalated once: the next one is the last

    def start(self, at: datetime) -> None:
        """The stage opened at this time."""
        self.stop()
        self.is_extended = False
        times = list(_times(self._definition, at))
        for time in times:
            self._add(time.at, time.kind, time.what, time.number)
        earlier = [time.number for time in times if time.kind == "escalation"]
        self._late = [number for number in range(len(self._definition.escalate)) if number not in earlier]
        for time in times:
            if time.kind == "deadline":
                self.deadline, self.then = time.at, _then(self._definition, bool(self._late))

    def hand_back(self, at: datetime) -> None:
        """The requester is asked for changes: she has as long as the stage had, and then it expires."""
        self.stop()
        self._start_again(at)

    def extend(self, at: datetime) -> None:
        """Other people are asked instead of an end: once more the same time, and then it expires."""
        self.is_extended = True
        self._start_again(at)

    def escalations_at_deadline(self) -> list[int]:
        """Which escalations wait for the deadline: those that come no earlier."""
        return self._late if self.deadline is not None else []

    def look_again(self, at: datetime, times: int) -> None:
        """Some source of people could not be read when the stage opened."""
        first, longest = LOOK_AGAIN
        wait = timedelta(seconds=min(first * 2**times, longest))
        self._add(at + wait, "people", "another look for the people who are asked", times + 1)

    def look_when_somebody_leaves(self, at: datetime | None) -> None:
        """Somebody who may be asked leaves, or comes back, at this time."""
        is_in_time = at is not None and (self.deadline is None or at < self.deadline)
        if at is not None and is_in_time and not any(timer.at == at for timer in self._timers):
            self._add(at, "absence", "another look at who is away")

    def hold(self, at: datetime, number: int) -> None:
        """A decision takes effect then; `number`: which one."""
        self.release()
        self._add(at, "grace", "the decision takes effect", number)
        self._held = self._timers[-1]

    def release(self) -> None:
        """The decision that was held was taken back."""
        if self._held is not None:
            self._held.task.cancel()
            self._timers.remove(self._held)
            self._held = None

    def stop(self) -> None:
        """Withdraw every timer."""
        self.round += 1
        self.deadline, self.then = None, ""
        for timer in self._timers:
            timer.task.cancel()
        self._timers.clear()
        self._held = None

    def show(self, now: datetime) -> tuple[RequestTimer, ...]:
        """What comes, the earliest first."""
        coming = (RequestTimer(at=timer.at, what=timer.what) for timer in self._timers if timer.at > now)
        return tuple(sorted(coming, key=lambda timer: timer.at))

    def _start_again(self, at: datetime) -> None:
        length = self._definition.clock.deadline
        if length is not None:
            self.deadline, self.then = _after(self._definition, at, length), THEN["expire"]
            self._add(self.deadline, "deadline", f"{_deadline(self._definition)}: {self.then}")

    def _add(self, at: datetime, kind: Kind, what: str, number: int = 0) -> None:
        task = self._spawn(self._wait(at, Due(kind, self.round, number)))
        self._timers.append(Timer(at, what, task))

    async def _wait(self, at: datetime, due: Due) -> None:
        await _until(at)
        self._put(due)


async def _until(at: datetime) -> None:
    """As `sleep`, but no sleep: those can be ended by `wake_up`, and a deadline must not come before its time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WorkflowLoop), "it is durable, so it is a workflow's"
    if at <= now():
        await asyncio.sleep(0)
        return
    come = loop.create_future()
    timer = loop.call_at_instant(at.timestamp(), _arrive, come)
    try:
        await come
    finally:
        timer.cancel()


def _arrive(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)
