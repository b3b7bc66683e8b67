"""Working on one run: replay → append → run steps, until it only waits; then release it.

Each turn takes what has happened (finished steps, due timers, payloads that came), replays, and appends facts and
decisions together if the log is still as it was read. Only then does anything start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from approvals_bot.core.current import StepContext, StepMetadata, WorkflowMetadata
from approvals_bot.core.events import Event, NewEvent
from approvals_bot.core.failures import encode_error
from approvals_bot.core.registry import Registry
from approvals_bot.core.replay import Outcome
from approvals_bot.core.run import OpenStep
from approvals_bot.engine.attempts import attempt
from approvals_bot.engine.clock import Clock
from approvals_bot.engine.limits import MAX_EVENTS, RETRY_STORE, RETRY_STORE_MOST
from approvals_bot.engine.replaying import Replayed, Replayer
from approvals_bot.engine.turn import Standing, Turn, decide, draft, due_steps, next_wake
from approvals_bot.errors import (
    LimitExceededError,
    SerializationError,
    StoreUnavailableError,
    WorkflowStuckError,
)
from approvals_bot.store import Append, Appended, Claimed, Fenced, Stale, Store

logger = logging.getLogger("approvals_bot.engine")

PATIENCE = 1.0
"""Seconds that who moves the clock waits for a step to end. One that takes longer goes on while time moves."""


class Workshop(Protocol):
    """What an activation uses of its engine."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def replayer(self) -> Replayer: ...
    @property
    def resources(self) -> Mapping[type, Any]: ...
    @property
    def registry(self) -> Registry: ...

    def appended(self, run_id: str, events: list[Event]) -> None:
        """Tell whoever waits in this process what was written."""

    def entropy(self) -> bytes:
        """32 random bytes, for tokens."""

    def rests(self, activation: Activation) -> None:
        """It has done all it could, and waits."""

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a step that outlives its activation."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A step that runs now, and since when, in seconds of the monotonic clock."""

    task: asyncio.Task[None]
    since: float


class Activation:
    """One process working on one run, by the right of one claim."""

    def __init__(
        self, workshop: Workshop, claimed: Claimed, written: Turn | None = None, replayed: Replayed | None = None
    ) -> None:
        """`written`: the turn that is the end of this log already, but for what it starts. `replayed`: a replay of the
        log's beginning."""
        self.claim = claimed.claim
        self.due: datetime | None = None  # while it waits, and when it has been released: when it goes on by itself
        self._shop = workshop
        self._row = claimed.row
        self._log = [*claimed.log]
        self._standing = Standing(self._log)
        self._replayed = replayed
        self._may_have_grown = False  # somebody else may have written to the log
        self._outcome: Outcome | None = None  # of the last replay
        self._written = written
        self._to_start: list[OpenStep] = []
        self._running: dict[int, _Running] = {}
        self._finished: list[NewEvent] = []  # outcomes of steps that are not in the log yet
        self._signal = asyncio.Event()
        self._is_waiting = False
        self._is_over = False
        self._is_closing = False

    def signal(self) -> None:
        """Something was written to this run: look again."""
        self._may_have_grown = True
        self._signal.set()

    def is_busy(self, now: datetime) -> bool:
        """Whether it does something now. Waiting for a step that takes long doesn't count: it may take for ever."""
        if self._is_waiting and self.due is not None and self.due <= now:
            self._signal.set()
        latest = max((running.since for running in self._running.values()), default=float("-inf"))
        return not self._is_waiting or self._signal.is_set() or time.monotonic() - latest < PATIENCE

    async def work(self) -> None:
        """Until the run has ended, waits for something outside, or was claimed by somebody else."""
        delay = RETRY_STORE
        try:
            if self._written is not None and await self._go_on(self._written, self._written.tail(self._log)):
                return
            while True:
                try:
                    if await self._turn():
                        return
                    delay = RETRY_STORE
                except StoreUnavailableError as error:
                    logger.warning("run %s: the store is unavailable, trying again: %s", self.claim.run_id, error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_STORE_MOST)
                    self._may_have_grown = True  # whether that write went through is unknown: read what is there
        finally:
            self._is_over = True
            if self._replayed is not None:
                self._replayed.close()
            for running in self._running.values():
                self._shop.keep(running.task)

    async def _turn(self) -> bool:
        """One turn. True: there is nothing more to do here."""
        self._signal.clear()
        if self._may_have_grown and not await self._read():
            return True
        now = self._shop.clock.now()
        facts = self._facts(now)
        if await self._waited_on(facts, now):
            return False
        self._outcome = None
        try:
            turn = decide(
                self._standing,
                facts,
                await self._replay(facts, now),
                now,
                self._in_hand(facts),
                is_closing=self._is_closing,
            )
            result = await self._write(turn.append(self.claim.run_id, self.claim.epoch, len(self._log), now))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a replay raises is this run's, and must not take others along
            return await self._give_up(facts, error, now)
        match result:
            case Fenced():
                self._cancel_steps()
                return True
            case Stale():
                return False
            case Appended(events):
                return await self._go_on(turn, events)

    async def _go_on(self, turn: Turn, events: list[Event]) -> bool:
        """A turn has been written: start what it starts, and wait. True: the run has ended, or was let go."""
        lost_a_token = any(event.type == "hook_conflict" for event in events)
        self.due = turn.wake_at
        if turn.outcome.ended or turn.releases:
            self.due = self._shop.clock.now() if lost_a_token and not turn.outcome.ended else self.due
            return True
        self._to_start = turn.starts
        if not (turn.outcome.replay_again or lost_a_token):
            self._outcome = turn.outcome
            await self._wait(turn.outcome)
        return False

    async def _waited_on(self, facts: list[NewEvent], now: datetime) -> bool:
        """Wait on, if there is nothing to replay."""
        outcome = self._outcome
        if outcome is None or facts or self._is_closing or due_steps(outcome, self._in_hand(facts), now):
            return False
        await self._wait(outcome)
        return True

    # ── what has happened ──

    async def _read(self) -> bool:
        """Bring our copy of the log up to date. False: the run has ended, or is gone."""
        self._may_have_grown = False
        found = await self._shop.store.read(self.claim.run_id, len(self._log))
        if found is None or found[0].ended_at is not None:
            return False
        self._row, news = found
        if news:
            self._grow(news)
            self._outcome = None
        return True

    def _facts(self, now: datetime) -> list[NewEvent]:
        """Outcomes of steps, and timers that are due (the earliest first), that the log doesn't have yet."""
        self._finished = [fact for fact in self._finished if not self._standing.has(fact)]
        return [*self._finished, *self._standing.due(now)]

    def _grow(self, events: list[Event]) -> None:
        self._log += events
        self._standing.add(events)

    async def _replay(self, facts: list[NewEvent], now: datetime) -> Outcome:
        workflow = self._shop.registry.get(self._row.code, self._row.version)
        log = draft(self._log, facts, now)
        if len(log) > MAX_EVENTS:
            raise LimitExceededError("events of one run", MAX_EVENTS, len(log), "events")
        if self._replayed is None or self._replayed.workflow is not workflow:
            if self._replayed is not None:
                self._replayed.close()
            self._replayed = self._shop.replayer.begin(workflow, self._shop.entropy())
        return await self._replayed.outcome(log)

    async def _give_up(self, facts: list[NewEvent], error: Exception, now: datetime) -> bool:
        """A run that can't go on by its own fault fails; one whose code has drifted or is missing stalls, and keeps
        taking payloads until code that matches runs."""
        if isinstance(error, WorkflowStuckError | LimitExceededError | SerializationError):
            batch = self._batch([*facts, NewEvent("run_failed", {"error": encode_error(error)})], now)
        else:
            batch = self._batch(facts, now, release=True, stalled=f"{type(error).__name__}: {error}")
            logger.warning("run %s stalled: %s", self.claim.run_id, error)
        return not isinstance(await self._write(batch), Stale)

    # ── what was decided ──

    def _in_hand(self, facts: list[NewEvent]) -> set[int]:
        """Steps that are running, or ended while this turn was already under way: the replay took those for open."""
        taken = {id(fact) for fact in facts}
        return {*self._running, *(fact.data["id"] for fact in self._finished if id(fact) not in taken)}

    def _batch(self, events: list[NewEvent], now: datetime, **options: Any) -> Append:
        return Append(self.claim.run_id, self.claim.epoch, len(self._log), events, now, **options)

    async def _write(self, batch: Append) -> Appended | Stale | Fenced:
        result = await self._shop.store.append(batch)
        match result:
            case Appended(events):
                self._grow(events)
                written = {id(event) for event in batch.events}  # others may have finished while this was being written
                self._finished = [fact for fact in self._finished if id(fact) not in written]
                self._shop.appended(self.claim.run_id, events)
            case Stale():
                self._may_have_grown = True
            case Fenced():
                pass
        return result

    # ── steps ──

    async def _wait(self, outcome: Outcome) -> None:
        """Start what is due, then wait until a step ends, a payload comes or a timer is due."""
        if self._is_closing:
            return
        for state in self._to_start:
            task = asyncio.create_task(self._run_step(state), name=f"step {state.step.name}")
            self._running[state.id] = _Running(task, time.monotonic())
        self._to_start = []
        self.due = next_wake(outcome, self._in_hand([]), self._shop.clock.now(), self._standing.waits)
        self._is_waiting = True
        self._shop.rests(self)
        try:
            await self._signalled()
        finally:
            self._is_waiting = False

    async def _signalled(self) -> None:
        if self.due is None:
            await self._signal.wait()
            return
        seconds = max(0.0, (self.due - self._shop.clock.now()).total_seconds())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._signal.wait()

    async def _run_step(self, state: OpenStep) -> None:
        try:
            fact = await attempt(state, self._context(state), self._shop.resources, self._shop.clock.now)
        finally:
            self._running.pop(state.id, None)
            self._signal.set()
        if self._is_over:
            await self._shop.store.record(self.claim.run_id, [fact], self._shop.clock.now())
        else:
            self._finished.append(fact)

    def _context(self, state: OpenStep) -> StepContext:
        created = self._log[0]
        started = self._standing.first_starts.get(state.id) or self._shop.clock.now()
        run_id = self.claim.run_id
        return StepContext(
            StepMetadata(state.step.name, f"{run_id}.{state.id}", state.failures + 1, started),
            WorkflowMetadata(created.data["workflow"], run_id, created.at, created.data.get("attributes", {})),
        )

    def _cancel_steps(self) -> None:
        for running in self._running.values():
            running.task.cancel()

    async def close(self, seconds: float) -> None:
        """Give running steps some time, then cancel them, and let the run go, so that others can take it over at
        once. A step that is cancelled here has not failed: the same attempt is made again."""
        self._is_closing = True
        if self._running:
            await asyncio.wait([running.task for running in self._running.values()], timeout=seconds)
        self._cancel_steps()
        self._signal.set()
