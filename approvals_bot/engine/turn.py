"""What one turn of work on a run writes, and what starts then. Pure: decided from the log, from what has happened
since, and from the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from approvals_bot.core.commands import resume_at
from approvals_bot.core.events import Event, Log, NewEvent
from approvals_bot.core.replay import Outcome
from approvals_bot.core.run import OpenStep
from approvals_bot.store import Append


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, before it is written."""

    outcome: Outcome
    events: list[NewEvent]  # what happened, then what was decided
    starts: list[OpenStep]  # once the events are durable
    releases: bool  # nothing keeps the run here
    wake_at: datetime | None  # when it goes on by itself

    def append(self, run_id: str, epoch: int, expected: int, at: datetime) -> Append:
        """To be written behind `expected` events."""
        return Append(
            run_id,
            epoch,
            expected,
            self.events,
            at,
            view=self.outcome.view,
            release=self.releases,
            wake_at=self.wake_at,
        )

    def tail(self, log: Log) -> Log:
        """What of a log that ends with this turn is from it."""
        return log[len(log) - len(self.events) :]


def due_timers(log: Log, now: datetime) -> list[NewEvent]:
    """That timers are over which the log has as running, the earliest first."""
    over = {e.data["id"] for e in log if e.type in ("wait_completed", "wait_cancelled")}
    waits = [e for e in log if e.type == "wait_created" and e.data["id"] not in over]
    due = sorted((e for e in waits if resume_at(e) <= now), key=lambda e: (resume_at(e), e.data["id"]))
    return [NewEvent("wait_completed", {"id": e.data["id"]}) for e in due]


def draft(log: Log, facts: list[NewEvent], now: datetime) -> Log:
    """The log as it will be once these facts are in it."""
    at = max(now, log[-1].at)
    return [*log, *(Event(seq, fact.type, at, fact.data) for seq, fact in enumerate(facts, len(log) + 1))]


def decide(
    log: Log,
    facts: list[NewEvent],
    outcome: Outcome,
    now: datetime,
    in_hand: Collection[int] = (),
    *,
    is_closing: bool = False,
) -> Turn:
    """The turn that follows from the replay of a draft. `in_hand`: steps that run, or whose outcome comes later; they
    keep the run here, and so does who waits to hear of a token. A process that is closing starts nothing."""
    decided = [command.event(now) for command in outcome.commands]
    if not any(event.type == "run_started" for event in log):
        decided.insert(0, NewEvent("run_started"))
    starts = [] if outcome.ended or is_closing else due_steps(outcome, in_hand, now)
    decided += [
        NewEvent("step_started", {"id": step.id, "attempt": step.failures + 1})
        for step in starts
        if step.failures + 1 not in step.started
    ]
    releases = not (starts or in_hand or outcome.replay_again)
    cared_for = {*in_hand, *(step.id for step in starts)}
    wake_at = None if outcome.ended else next_wake(outcome, cared_for, now, decided)
    return Turn(outcome, [*facts, *decided], starts, releases, wake_at)


def due_steps(outcome: Outcome, in_hand: Collection[int], now: datetime) -> list[OpenStep]:
    return [s for s in outcome.steps if s.id not in in_hand and (s.retry_at is None or s.retry_at <= now)]


def next_wake(
    outcome: Outcome, cared_for: Collection[int], now: datetime, events: Iterable[Event | NewEvent]
) -> datetime | None:
    """When there is work again: the earliest timer, or the retry of a step that nobody cares for. A timer's time is
    the one that these events say: the replay that asked for it reckoned from the last event."""
    said = {e.data["id"]: resume_at(e) for e in events if e.type == "wait_created"}
    times = [said.get(timer.id, timer.resume_at) for timer in outcome.timers]
    times += [step.retry_at or now for step in outcome.steps if step.id not in cared_for]
    return min(times, default=None)
