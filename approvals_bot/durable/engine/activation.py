"""Working on one run: replay → append → run steps, until it only waits; then release it.

Each turn takes what has happened (finished steps, due timers, payloads that came), replays, and appends facts and
decisions together if the log is still as it was read. Only then does anything start.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from approvals_bot.durable.core.context import StepContext, StepMetadata, WorkflowMetadata
from approvals_bot.durable.core.events import Event, NewEvent, lost_a_token
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.run import OpenStep
from approvals_bot.durable.core.serialization import encode_error
from approvals_bot.durable.engine.batch import Batch, decide, due_steps, next_wake, plan
from approvals_bot.durable.engine.cache import CachedRun
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.executor import attempt
from approvals_bot.durable.engine.limits import MAX_EVENTS, RETRY_STORE, RETRY_STORE_MOST
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.engine.signal import Signal
from approvals_bot.durable.store.protocol import Append, Appended, Fenced, Stale, Store
from approvals_bot.errors import (
    LimitExceededError,
    NondeterminismError,
    SerializationError,
    StoreUnavailableError,
    WorkflowStuckError,
)

logger = logging.getLogger("approvals_bot.durable.engine")

PATIENCE = 1.0
"""Seconds that who moves the clock waits for a step to end. One that takes longer goes on while time moves."""


class Workshop(Protocol):
    """What an activation uses of its engine."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> TimeSource: ...
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

    def remember(self, run: CachedRun) -> None:
        """It has been let go, with nothing left to do."""


class _Running(NamedTuple):
    """A step that runs now, and since when, in seconds of the monotonic clock."""

    task: asyncio.Task[None]
    since: float


class Activation:
    """One process working on one run, by the right of one claim."""

    def __init__(self, workshop: Workshop, run: CachedRun, written: Batch | None = None) -> None:
        """`written`: the turn that is the end of the log already, but for what it starts."""
        self.run = run
        self.due: datetime | None = None  # while it waits, and when it has been released: when it goes on by itself
        self._shop = workshop
        self._may_have_grown = False  # somebody else may have written to the log
        self._outcome: ReplayResult | None = None  # of the last replay
        self._written = written
        self._to_start: list[OpenStep] = []
        self._running: dict[int, _Running] = {}
        self._finished: list[NewEvent] = []  # outcomes of steps that are not in the log yet
        self._misfit: NondeterminismError | None = None  # a step whose code takes other arguments by now
        self._taken = 0  # how many of these the turn that is under way has taken up
        self._signal = Signal()
        self._is_waiting = False
        self.is_lost = False  # another process has this run, or has ended it
        self._is_over = False
        self._is_let_go = False
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
        return not self._is_waiting or self._signal.is_set or time.monotonic() - latest < PATIENCE

    async def work(self) -> None:
        """Until the run has ended, waits for something outside, or was claimed by somebody else."""
        delay = RETRY_STORE
        try:
            is_done = self._written is not None and self._go_on(self._written, self._written.tail(self.run.log))
            while not is_done:
                if self._outcome is not None and not self._is_closing:
                    timer = self._begin_to_wait(self._outcome)
                    await self._signal.wait()
                    self._is_waiting = False
                    if timer is not None:
                        timer.cancel()
                try:
                    is_done = await self._turn()
                    delay = RETRY_STORE
                except StoreUnavailableError as error:
                    logger.warning("run %s: the store is unavailable, trying again: %s", self.run.row.id, error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_STORE_MOST)
                    self._may_have_grown = True  # whether that write went through is unknown: read what is there
        finally:
            self._is_over = True
            if not self._is_let_go:
                self.run.close()
            for running in self._running.values():
                self._shop.keep(running.task)

    async def _turn(self) -> bool:
        """One turn. True: there is nothing more to do here."""
        self._signal.clear()
        if self._may_have_grown and not await self._read():
            self.is_lost = True
            return True
        now = self._shop.clock.now()
        facts = self._facts(now)
        self._taken = len(self._finished)
        if not facts and self._may_wait_on(now):
            return False
        self._outcome = None
        try:
            if self._misfit is not None:
                raise self._misfit
            outcome = await self._replay(facts, now)
            turn = decide(self.run.standing, facts, outcome, now, self._in_hand(), is_closing=self._is_closing)
            result = await self._write(turn.append(self.run.row.id, self.run.epoch, len(self.run.log), now))
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
                return self._go_on(turn, events)

    def _go_on(self, turn: Batch, events: list[Event]) -> bool:
        """A turn has been written: start what it starts, once there is nothing but to wait. True: the run has ended, or
        was let go."""
        self.due = turn.wake_at
        if turn.outcome.ended:
            return True
        must_go_on = lost_a_token(events)
        if turn.releases:
            self.due = self._shop.clock.now() if must_go_on else self.due
            self._is_let_go = True
            self._shop.remember(self.run)
            return True
        self._to_start = turn.starts
        if not (turn.outcome.replay_again or must_go_on):
            self._outcome = turn.outcome
        return False

    def _may_wait_on(self, now: datetime) -> bool:
        """Whether there is nothing to replay."""
        outcome = self._outcome
        return outcome is not None and not self._is_closing and not due_steps(outcome, self._in_hand(), now)

    # ── what has happened ──

    async def _read(self) -> bool:
        """Bring our copy of the log up to date. False: the run has ended, or is gone."""
        self._may_have_grown = False
        found = await self._shop.store.read(self.run.row.id, len(self.run.log))
        if found is None or found[0].ended_at is not None:
            return False
        if found[1]:
            self.run.grow(found[1])
            self._outcome = None
        return True

    def _facts(self, now: datetime) -> list[NewEvent]:
        """Outcomes of steps, and timers that are due (the earliest first), that the log doesn't have yet."""
        standing = self.run.standing
        if self._finished:
            self._finished = [fact for fact in self._finished if not standing.has(fact)]
        return [*self._finished, *standing.due(now)]

    async def _replay(self, facts: list[NewEvent], now: datetime) -> ReplayResult:
        workflow = self._shop.registry.get(self.run.row.code, self.run.row.version)
        log = plan(self.run.log, facts, now)
        if len(log) > MAX_EVENTS:
            raise LimitExceededError("events of one run", MAX_EVENTS, len(log), "events")
        return await self.run.replay(log, workflow, self._shop.replayer, self._shop.entropy)

    async def _give_up(self, facts: list[NewEvent], error: Exception, now: datetime) -> bool:
        """A run that can't go on by its own fault fails; one whose code has drifted or is missing stalls, and keeps
        taking payloads until code that matches runs."""
        if isinstance(error, WorkflowStuckError | LimitExceededError | SerializationError):
            batch = self._batch([*facts, NewEvent("run_failed", {"error": encode_error(error)})], now)
        else:
            batch = self._batch(facts, now, release=True, stalled=f"{type(error).__name__}: {error}")
            logger.warning("run %s stalled: %s", self.run.row.id, error)
        return not isinstance(await self._write(batch), Stale)

    # ── what was decided ──

    def _in_hand(self) -> Collection[int]:
        """Steps that are running, or ended while this turn was already under way: the replay took those for open."""
        later = self._finished[self._taken :]
        return {*self._running, *(fact.data["id"] for fact in later)} if later else self._running.keys()

    def _batch(self, events: list[NewEvent], now: datetime, **options: Any) -> Append:
        return Append(self.run.row.id, self.run.epoch, len(self.run.log), events, now, **options)

    async def _write(self, batch: Append) -> Appended | Stale | Fenced:
        result = await self._shop.store.append(batch)
        match result:
            case Appended(events):
                self.run.grow(events)
                del self._finished[: self._taken]  # others may have finished while this was being written
                self._taken = 0
                self._shop.appended(batch.run_id, events)
            case Stale():
                self._may_have_grown = True
            case Fenced():
                self.is_lost = True
        return result

    # ── steps ──

    def _begin_to_wait(self, outcome: ReplayResult) -> asyncio.TimerHandle | None:
        """Start what is due, and wait until a step ends, a payload comes or a timer is due."""
        loop = asyncio.get_running_loop()
        for state in self._to_start:
            task = loop.create_task(self._run_step(state), name=f"step {state.step.name}")
            self._running[state.id] = _Running(task, time.monotonic())
        self._to_start = []
        self.due = next_wake(outcome, self._in_hand(), self.run.log[-1].at, self.run.standing.waits)
        self._is_waiting = True
        self._shop.rests(self)
        if self.due is None:
            return None
        return loop.call_later(max(0.0, (self.due - self._shop.clock.now()).total_seconds()), self._signal.set)

    async def _run_step(self, state: OpenStep) -> None:
        try:
            fact = await attempt(
                state, self._context(state), self._shop.resources, self._shop.clock.now, self._calls_off
            )
        except NondeterminismError as error:
            self._misfit = error
            return
        finally:
            self._running.pop(state.id, None)
            self._signal.set()
        if self._is_over:
            await self._shop.store.record(self.run.row.id, [fact], self._shop.clock.now())
        else:
            self._finished.append(fact)

    def _context(self, state: OpenStep) -> StepContext:
        created = self.run.log[0]
        started = self.run.standing.first_starts.get(state.id) or self._shop.clock.now()
        run_id = self.run.row.id
        return StepContext(
            StepMetadata(state.step.name, f"{run_id}.{state.id}", state.failures + 1, started),
            WorkflowMetadata(created.data["workflow"], run_id, created.at, dict(created.data.get("attributes", {}))),
        )

    def _calls_off(self) -> bool:
        """Whether a step that is cancelled now is so by us, or by who keeps it after us."""
        return self._is_closing or self.is_lost or self._is_over

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
