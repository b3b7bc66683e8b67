"""Batches: what is appended to a run's log in one write, and which steps start after it.

Pure: a batch depends only on the log, the facts that the log lacks, and the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from approvals_bot.durable.core.commands import events_of, resume_at
from approvals_bot.durable.core.events import (
    FACTS,
    Event,
    Log,
    NewEvent,
    cancelled,
    closed_by,
    from_micros,
    is_whole_step,
    number_of,
)
from approvals_bot.durable.core.open_work import OF_CANCELLATION, OpenStep
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.engine.starts import child_writes
from approvals_bot.durable.store.protocol import Append, RunRecord


class Batch(NamedTuple):
    """Facts and decisions that are going to be appended together."""

    outcome: ReplayResult
    append: Append  # the facts, then the replay's decisions; releases the run if nothing keeps it in this process
    starts: list[OpenStep]  # steps to run once the append is durable
    queued: list[OpenStep]  # steps that are due, and need a place before they can start


class LogIndex:
    """An index of a log: the run's steps, timers and hooks, kept up to date as the log grows."""

    def __init__(self, log: Iterable[Event]) -> None:
        self.has_started = False
        self.last_at: datetime | None = None
        self.waits: dict[int, datetime] = {}  # open timers, and when they are due
        self.first_starts: dict[int, datetime] = {}  # of steps
        self.children: dict[int, str] = {}  # the runs of all that it has started or taken over, by number
        self.hooks: dict[int, Event] = {}  # the `hook_created` of each open hook, by number
        self.given_up: set[int] = set()  # cancelled steps
        self.cancellation: Event | None = None  # `cancel_requested`
        self.must_finish = False  # its time is over, and its body goes on: see `Workflow.must_finish`
        self._outcomes: set[str] = set()  # keys of the outcomes of attempts
        self.add(log)

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self.last_at = event.at
            match event.type:
                case "run_started":
                    self.has_started = True
                case "step_started":
                    self.first_starts.setdefault(event.data["id"], event.at)
                case "step_completed" | "step_failed" | "step_retrying":
                    self._outcomes.add(event.key)
                case "step_cancelled":
                    self._outcomes.add(event.key)
                    self.given_up.add(event.data["id"])
                case "wait_created":
                    self.waits[event.data["id"]] = resume_at(event)
                case "wait_completed":
                    self.waits.pop(event.data["id"], None)
                case "hook_created":
                    self.hooks[number_of(event)] = event
                case "hook_disposed" | "wait_cancelled" | "hook_responded":
                    for number in closed_by(event):
                        self.hooks.pop(number, None)
                        self.waits.pop(number, None)
                case "child_started":
                    self.children[event.data["id"]] = event.data["run_id"]
                case "run_created" if "children" in event.data:  # those that came from the run before
                    self.children |= {child["id"]: child["run_id"] for child in event.data["children"]}
                case "cancel_requested":
                    self.cancellation = event
                case _:
                    pass

    def has(self, outcome: NewEvent) -> bool:
        """Return whether the log has this outcome of an attempt, or the end of its step."""
        return outcome.key in self._outcomes or f"{outcome.data['id']}.done" in self._outcomes

    def due(self, now: datetime) -> list[NewEvent]:
        """Return a `wait_completed` for each open timer that is due, the earliest first."""
        if not self.waits:
            return []
        due = sorted((at, number) for number, at in self.waits.items() if at <= now)
        return [NewEvent("wait_completed", {"id": number}) for _, number in due]

    @property
    def ends_at(self) -> datetime | None:
        """When a cancelled run is ended where it is, if it hasn't ended before. None if it isn't."""
        if self.cancellation is None or self.must_finish:
            return None
        return from_micros(self.cancellation.data["until"])

    def has_no_time(self, now: datetime) -> bool:
        """Return whether a cancelled run is to be ended without asking its body.

        Its time is over, or it has never begun, so that nothing is to be tidied up.
        """
        ends_at = self.ends_at
        return ends_at is not None and (ends_at <= now or not self.has_started)

    def end(self, error: dict[str, Any] | None = None) -> NewEvent:
        """Return the event that ends the run when the engine ends it: because of this error, or as cancelled."""
        if self.cancellation is not None:
            return NewEvent("run_cancelled", cancelled(self.cancellation, error))
        return NewEvent("run_failed", {"error": error})


_NO_DECISIONS = FACTS - {"run_started"} | {"run_created"}


def _is_undecided(event: Event) -> bool:
    """Return whether an event may have come without a replay."""
    return event.type in _NO_DECISIONS and not is_whole_step(event)


def seen_before(row: RunRecord, log: Log) -> int:
    """Return for how many events of a log, as a process claims or reads it, decisions have been made before.

    Whatever comes before a decision has been seen. After the last one, that is what came before `wake_at`: the first
    event after a run's release sets `wake_at` to its own time. (A test's clock may stand still; then it is the latest
    event of that time.) What a stalled run has seen since its last decision counts as not seen.
    """
    seen = len(log)
    while seen and _is_undecided(log[seen - 1]):
        seen -= 1
    if not seen or row.status == "stalled":
        return seen
    due = row.wake_at
    while seen < len(log) and (due is None or log[seen].at <= due):
        seen += 1
    return seen - 1 if log[seen - 1].at == due and _is_undecided(log[seen - 1]) else seen


def plan(log: Log, facts: list[NewEvent], now: datetime) -> Log:
    """Return the log as it will be once these facts have been appended."""
    at = max(now, log[-1].at)
    return log + [Event(seq, fact.type, at, fact.data) for seq, fact in enumerate(facts, len(log) + 1)]


_STARTED = NewEvent("run_started", {})


def decide(
    index: LogIndex, append: Append, outcome: ReplayResult, in_hand: Collection[int] = (), *, is_closing: bool = False
) -> Batch:
    """Add the decisions of a replay to an append of facts.

    `outcome` is that of the replay of the log with those facts.
    `in_hand` holds the numbers of steps that are running, that wait for a place, or whose outcome comes with the next
    batch. They keep the run in this process. So do steps that need a place, and a workflow that waits to learn whether
    it got a token. A process that is closing starts no steps.
    """
    now, shown = append.at, outcome.projection
    if index.must_finish:
        outcome.timers = [timer for timer in outcome.timers if timer.id != OF_CANCELLATION]
    if in_hand:  # but for those that the body has given up
        in_hand = {step.id for step in outcome.steps}.intersection(in_hand)
    at = now if index.last_at is None else max(now, index.last_at)  # a log's time never goes back
    decided = [] if index.has_started or _STARTED in append.events else [_STARTED]
    decided += events_of(outcome.commands, at)
    due = [] if outcome.ended or is_closing else due_steps(outcome, in_hand, now)
    starts: list[OpenStep] = []
    queued: list[OpenStep] = []
    for step in due:
        (queued if step.step.waits_for_a_place else starts).append(step)
    decided += beginnings(starts) if starts else ()
    wake_at = None
    if not outcome.ended and (outcome.timers or len(outcome.steps) > len(due) + len(in_hand)):
        waits = {event.data["id"]: resume_at(event) for event in decided if event.type == "wait_created"}
        wake_at = next_wake(outcome, {*in_hand, *(step.id for step in due)}, now, waits)
    whole = append._replace(
        events=[*append.events, *decided],
        view=outcome.view,
        parts=None if shown is None else shown.parts,
        attributes=None if shown is None else shown.attributes,
        release=not (due or in_hand or outcome.replay_again),
        wake_at=wake_at,
        unread=outcome.unread,
        own=outcome.own,
        children=child_writes(append.run_id, outcome.commands, at) if outcome.has_children else None,
    )
    return Batch(outcome, whole, starts, queued)


def beginnings(steps: Iterable[OpenStep]) -> list[NewEvent]:
    """Return a `step_started` for each step whose next attempt hasn't begun before."""
    begin = [(step.id, step.failures + 1) for step in steps if step.failures + 1 not in step.started]
    return [NewEvent("step_started", {"id": number, "attempt": attempt}) for number, attempt in begin]


def due_steps(outcome: ReplayResult, in_hand: Collection[int], now: datetime) -> list[OpenStep]:
    """Return the steps whose next attempt can start now."""
    if not outcome.steps:
        return []
    return [s for s in outcome.steps if s.id not in in_hand and (s.retry_at is None or s.retry_at <= now)]


def next_wake(
    outcome: ReplayResult, cared_for: Collection[int], now: datetime, waits: Mapping[int, datetime]
) -> datetime | None:
    """Return when the run is due again: its earliest timer, or the retry of a step that isn't in `cared_for`.

    `waits` holds when timers are due according to the log. A timer that isn't in the log yet counts from the last
    event.
    """
    wake: datetime | None = None
    for timer in outcome.timers:
        at = waits.get(timer.id, timer.resume_at)
        wake = at if wake is None else min(wake, at)
    for step in outcome.steps:
        if step.id not in cared_for:
            at = step.retry_at or now
            wake = at if wake is None else min(wake, at)
    return wake
