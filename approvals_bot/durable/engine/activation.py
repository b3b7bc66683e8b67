"""An activation: one process works on one run until the run only waits, then releases it.

It works in batches. For each it takes the facts that the log lacks (finished steps, due timers), replays, and appends
facts and decisions together, provided the log is still as it was read. Steps start only after that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from approvals_bot.durable.core.api import StepMetadata, WorkflowMetadata
from approvals_bot.durable.core.context import StepContext
from approvals_bot.durable.core.events import Event, NewEvent, began_at, lost_a_token, made_in
from approvals_bot.durable.core.open_work import OpenStep
from approvals_bot.durable.core.remote_errors import encode_error
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.core.tracing import parent_of, span
from approvals_bot.durable.engine.batch import Batch, beginnings, due_steps, next_wake, plan
from approvals_bot.durable.engine.cache import CachedRun, RunCache
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.executor import Attempt, Executor, attempt, detach
from approvals_bot.durable.engine.limits import MAX_EVENTS, RETRY_STORE, RETRY_STORE_MOST
from approvals_bot.durable.engine.lookups import decide_with_lookups
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.places import Queue
from approvals_bot.durable.engine.replayer import Replayed
from approvals_bot.durable.engine.troubles import StoreLines, log_resumed, reason_of
from approvals_bot.durable.store.protocol import REPLACED, Append, Appended, Fenced, RunRecord, Stale, Store
from approvals_bot.errors import (
    LimitExceededError,
    NondeterminismError,
    SerializationError,
    StoreUnavailableError,
    WorkflowStuckError,
)

logger = logging.getLogger("approvals_bot.durable.engine")

FAILS_A_RUN = (WorkflowStuckError, LimitExceededError, SerializationError)
"""Errors of a replay that end the run. Any other stalls it."""

PATIENCE = 1.0
"""Seconds that a test's clock waits for a step before it moves on. The step goes on running."""


class Host(Protocol):
    """The part of the scheduler that its activations use."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> TimeSource: ...
    @property
    def cancel_grace(self) -> timedelta: ...
    @property
    def resources(self) -> Mapping[type, Any]: ...
    @property
    def executor(self) -> Executor: ...
    @property
    def notifier(self) -> Notifier: ...
    @property
    def cache(self) -> RunCache: ...
    @property
    def store_lines(self) -> StoreLines: ...
    @property
    def progress(self) -> asyncio.Event: ...  # set when an activation has done all that is due, and waits

    def replay_of(self, run: CachedRun) -> Replayed:
        """Return the replay of a run, to continue it. Raises WorkflowNotFoundError."""

    def with_successor(self, batch: Batch, run: CachedRun) -> Batch:
        """Add the next run to a batch that ends this one as continued. Raises what is wrong with its input."""

    def must_finish(self, row: RunRecord) -> bool:
        """Return whether nothing but its own body may end this run."""

    def stalled(self, run: CachedRun, error: Exception) -> None:
        """Report that a run has stalled, once for each reason. Its row is from before."""

    def ended(self, run: CachedRun) -> None:
        """Report how a run has ended, where somebody is to know: it has failed, or was cancelled."""

    def wake_relatives(self, run: CachedRun, events: list[Event]) -> None:
        """Make sure that somebody works on the parent and the children that these events were written to as well."""

    def cut_off(self, run_id: str) -> None:
        """Report that another process has ended a run."""

    def keep_task(self, task: asyncio.Task[None]) -> None:
        """Hold on to a step that outlives its activation."""

    def rest(self, run_id: str, only_waits: bool) -> None:
        """Give up the run's slot while its steps only wait for places, and claim it again."""


class Activation:
    """The work of one process on one run, under one claim."""

    def __init__(self, host: Host, run: CachedRun, written: Batch | None = None) -> None:
        """`written` is the batch at the end of the log, if its steps haven't been started yet."""
        self.run = run
        self.due: datetime | None = None  # when the run is due again; set while it waits, and at its release
        self._host = host
        self._may_have_grown = False  # another writer may have appended to the log
        self._outcome: ReplayResult | None = None  # of the last replay
        self._written = written
        self._to_start: list[OpenStep] = []
        self._running: dict[int, Attempt] = {}
        self._finished: list[NewEvent] = []  # outcomes of steps that aren't in the log yet
        self._given_up: dict[int, Attempt] = {}  # steps that were running when the body gave them up
        self._misfit: NondeterminismError | None = None  # a step's code no longer takes its recorded arguments
        self._taken = 0  # the number of `_finished` outcomes in the batch that is being written
        self._woken = asyncio.Event()
        self._queue: Queue | None = None  # of steps that wait for places
        self._is_waiting = False
        self._has_resumed = False  # it had stalled, and goes on
        self.is_lost = False  # another process has claimed this run, or has ended it
        self._is_over = False
        self._is_released = False
        self._is_closing = False

    def wake(self) -> None:
        """Make it read the log again: something was written to this run, or the run is due."""
        self._may_have_grown = True
        self._woken.set()

    def places_in_line(self) -> dict[int, tuple[str, int]]:
        """Return the limit, and the place in its line, of each step that waits for one."""
        return {} if self._queue is None else self._queue.places_in_line()

    def is_busy(self, now: datetime) -> bool:
        """Return whether it is doing something now. Waiting for a long step doesn't count: it might never end."""
        if self._is_waiting and self.due is not None and self.due <= now:
            self._woken.set()
        latest = max((running.since for running in self._running.values()), default=float("-inf"))
        return not self._is_waiting or self._woken.is_set() or time.monotonic() - latest < PATIENCE

    async def work(self) -> None:
        """Work until the run has ended, only waits, or is claimed by another process."""
        delay = RETRY_STORE
        try:
            is_done = False
            if (written := self._written) is not None:
                log = self.run.log
                is_done = self._follow_up(written, log[len(log) - len(written.append.events) :])
            while not is_done:
                if self._outcome is not None and not self._is_closing:
                    timer = self._begin_to_wait(self._outcome)
                    await self._woken.wait()
                    self._is_waiting = False
                    if timer is not None:
                        timer.cancel()
                try:
                    is_done = await self._advance()
                    delay = RETRY_STORE
                except StoreUnavailableError as error:
                    self._host.store_lines.is_away(error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, RETRY_STORE_MOST)
                    # The write may have been carried out and only its answer lost. Read the log again before writing,
                    # and at once: what woke this activation was for an attempt that failed, and nothing else may come.
                    self.wake()
        finally:
            self._is_over = True
            if self._queue is not None:
                self._queue.leave()
            if not self._is_released:
                self.run.close()
            for running in self._running.values():
                self._host.keep_task(running.task)

    async def _advance(self) -> bool:
        """Write one batch. Returns True when there is nothing more to do here.

        The run is safe because of this order:

        1. Clear the wake-up flag, then read the log. A write that comes later sets the flag again, so none is missed.
        2. Replay the log as it will be with the new facts. A replay has no effects, so it can be thrown away if the
           append is refused.
        3. Append the facts together with the decisions of that replay, and only to the log that was replayed (law 4).
        4. Start steps after that, in `_follow_up`. If a step started before its cause is in the log, a crash would lose
           what it did or make it happen twice (law 5).
        """
        self._woken.clear()
        if self._may_have_grown and not await self._read():
            self.is_lost = True
            return True
        now = self._host.clock.now()
        if self.run.index.cancellation is not None and self.run.index.has_no_time(now):
            if not await self._must_finish():
                return await self._end_where_it_is(now)
            self.run.index.must_finish, self._outcome = True, None
        facts = self._facts(now)
        self._taken = len(self._finished)
        if not facts and self._may_wait_on(now):
            return False
        self._outcome = None
        try:
            if self._misfit is not None:
                raise self._misfit
            log = plan(self.run.log, facts, now)
            if len(log) > MAX_EVENTS:
                raise LimitExceededError("events of one run", MAX_EVENTS, len(log), "events")
            outcome = await self._host.replay_of(self.run).outcome(log)
            append, options = self._batch(facts, now), {"in_hand": self._in_hand(), "is_closing": self._is_closing}
            batch = decide_with_lookups(self.run, append, log, outcome, self._host.resources, **options)
            if batch.queued:
                batch = self._line_up(batch)
            if outcome.continued is not None:
                batch = self._host.with_successor(batch, self.run)
            result = await self._write(batch.append)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # the error concerns this run only and mustn't harm others
            return await self._give_up(facts, error, now)
        match result:
            case Fenced():
                # Another process has claimed the run and makes the same attempts again. Stop ours: as long as they go
                # on, a step may run twice at the same time.
                self._cancel_steps()
                return True
            case Stale():
                return False
            case Appended(events):
                return self._follow_up(batch, events)

    def _follow_up(self, batch: Batch, events: list[Event]) -> bool:
        """Prepare the steps of a batch that is durable now. Returns True if the run has ended or was released."""
        self.due = batch.append.wake_at
        if self.run.index.given_up:
            self._stop_given_up()
        if batch.outcome.ended:
            if batch.outcome.continued is not None:
                self._pass_on()
            return self._has_ended()
        must_replay = lost_a_token(events)
        if batch.append.release:
            self.due = self._host.clock.now() if must_replay else self.due
            self._is_released = True
            self._host.cache.add(self.run)
            return True
        self._to_start = batch.starts
        if not (batch.outcome.replay_again or must_replay or batch.queued):
            self._outcome = batch.outcome
        return False

    def _line_up(self, batch: Batch) -> Batch:
        """Get in line for the steps that need a place. Returns the batch with those that have theirs.

        A step gets in line before its creation is durable: waiting has no effect. It starts only after its
        `step_started` is in the log, and that is written only for steps that have their places.
        """
        if self._queue is None:
            self._queue = Queue(self.run.row.id, self._woken.set, self._host.rest)
        tickets = self._queue.tickets
        self._queue.leave(tickets.keys() - {step.id for step in batch.outcome.steps})
        are_new = not tickets
        for step in batch.queued:
            if step.id not in tickets:
                self._queue.add(step.id, self._host.executor.gates(step.step))
        placed = [step for step in batch.queued if tickets[step.id].is_granted]
        starts = [*batch.starts, *placed]
        is_idle = not (starts or self._running)
        if is_idle and not batch.outcome.replay_again and len(self._finished) == self._taken:
            look_at = self._queue.park(batch.append.at, are_new=are_new)
            if look_at is not None:
                wake_at = look_at if batch.append.wake_at is None else min(look_at, batch.append.wake_at)
                return Batch(batch.outcome, batch.append._replace(release=True, wake_at=wake_at), [], queued=[])
        self._queue.rest(is_idle=is_idle)
        append = batch.append._replace(events=[*batch.append.events, *beginnings(placed)])
        return Batch(batch.outcome, append, starts, queued=[])

    def _pass_on(self) -> None:
        """Let the next run begin at once. Steps that nobody waits for any more end with this one."""
        self._cancel_steps()
        self.due = self._host.clock.now()

    def _may_wait_on(self, now: datetime) -> bool:
        """Return whether there is nothing to replay."""
        outcome = self._outcome
        return outcome is not None and not self._is_closing and not due_steps(outcome, self._in_hand(), now)

    async def _read(self) -> bool:
        """Bring our copy of the log up to date. Returns False if the run has ended or is gone."""
        self._may_have_grown = False
        found = await self._host.store.read(self.run.row.id, len(self.run.log))
        if found is None or found[0].ended_at is not None:
            if found is not None and found[0].status in REPLACED:
                self.is_lost = True
                self._cancel_steps()  # the run that goes on in its place makes these attempts, too
            elif found is not None:
                self._host.cut_off(self.run.row.id)
                if found[0].status == "cancelled":
                    self._cancel_steps()
            return False
        if found[1]:
            self.run.grow(found[1])
            self._outcome = None
        return True

    def _facts(self, now: datetime) -> list[NewEvent]:
        """Return outcomes of steps, and due timers, that the log doesn't have yet.

        When the answer to a write was lost, the log may already have the outcomes of steps. Those are dropped here, so
        an outcome is recorded once, however often it is written.
        """
        index = self.run.index
        if self._finished:
            self._finished = [fact for fact in self._finished if not index.has(fact)]
        return [*self._finished, *index.due(now)]

    async def _give_up(self, facts: list[NewEvent], error: Exception, now: datetime) -> bool:
        """End or stall a run that can't continue. Returns whether that is written.

        A run that broke a rule fails. A run whose code has a bug, has drifted or is missing stalls: it keeps taking
        payloads, and continues once other code runs, or when it is retried.

        Of a stalled run, only outcomes of steps are written. Its replay's decisions were made by code that is wrong. A
        timer that is due stays open, so the run has no time meanwhile: payloads that come before it continues are
        before its deadline in the log, and count.
        """
        if isinstance(error, FAILS_A_RUN):
            return await self._end([*facts, self.run.index.end(encode_error(error))], now)
        # A cancelled run whose clean-up has a bug is stalled only until its time is over.
        until, why = self.run.index.ends_at, reason_of(error)
        batch = self._batch(self._finished[: self._taken], now, release=True, stalled=why, wake_at=until)
        result = await self._write(batch)
        if isinstance(result, Stale):
            return False
        self.due = until
        if isinstance(result, Appended):
            self._host.stalled(self.run, error)
        return True

    async def _must_finish(self) -> bool:
        """Return whether this run may take longer than its cancellation allows, by what it has published last."""
        found = await self._host.store.read(self.run.row.id, len(self.run.log))
        return found is not None and self._host.must_finish(found[0])

    async def _end_where_it_is(self, now: datetime) -> bool:
        """End a cancelled run whose time is over, wherever its body is. Returns whether that is written."""
        self._finished = [fact for fact in self._finished if not self.run.index.has(fact)]
        self._taken = len(self._finished)
        return await self._end([*self._finished, self.run.index.end()], now)

    async def _end(self, events: list[NewEvent], now: datetime) -> bool:
        """Append events of which the last one ends the run. Returns whether that is written."""
        result = await self._write(self._batch(events, now))
        if isinstance(result, Stale):
            return False
        self.due = None
        if isinstance(result, Appended):
            return self._has_ended()
        self._cancel_steps()  # another process has the run
        return True

    def _has_ended(self) -> bool:
        """Report the end of the run. Steps of a cancelled run are stopped, those of others finish unheard."""
        self._host.ended(self.run)
        if self.run.index.cancellation is not None:
            self._cancel_steps()
        return True

    def _in_hand(self) -> Collection[int]:
        """Return the steps that run, wait for a place, or ended after this batch was begun.

        Its replay has them open.
        """
        later = self._finished[self._taken :]
        return self._all_in_hand(later) if later or self._queue is not None else self._running.keys()

    def _all_in_hand(self, later: list[NewEvent]) -> Collection[int]:
        waiting = () if self._queue is None else self._queue.waiting
        return {*self._running, *waiting, *(fact.data["id"] for fact in later)}

    def _batch(self, events: list[NewEvent], now: datetime, **options: Any) -> Append:
        given = (self.run.row.id, self.run.epoch, len(self.run.log), events, now)
        return Append(*given, cancel_until=now + self._host.cancel_grace, **options)

    async def _write(self, batch: Append) -> Appended | Stale | Fenced:
        result = await self._host.store.append(batch)
        match result:
            case Appended(events):
                if self.run.lines:
                    self.run.log_lines()  # only now: what is refused is decided again, by a replay with its own lines
                if self.run.replayed is not None:
                    self.run.lines.logged = len(self.run.replayed.delivered)
                self.run.grow(events)
                if self.run.row.status == "stalled" and batch.stalled is None and not self._has_resumed:
                    self._has_resumed = True
                    log_resumed(self.run.row)
                del self._finished[: self._taken]  # only these: other steps may have finished during the write
                self._taken = 0
                self._host.notifier.notify(batch.run_id, events, batch.own)
                if self.run.row.parent or self.run.index.children:
                    self._host.wake_relatives(self.run, events)
            case Stale():
                self._may_have_grown = True
            case Fenced():
                self.is_lost = True
        return result

    def _begin_to_wait(self, outcome: ReplayResult) -> asyncio.TimerHandle | None:
        """Start the due steps, and set the timer that ends the wait."""
        loop = asyncio.get_running_loop()
        for state in self._to_start:
            context = self._host.executor.context.copy()
            task = loop.create_task(self._run_step(state), name=f"step {state.step.name}", context=context)
            if self._queue is not None:
                self._queue.begin(state.id, task)
            self._running[state.id] = Attempt(task)
        self._to_start = []
        self.due = next_wake(outcome, self._in_hand(), self.run.log[-1].at, self.run.index.waits)
        self._is_waiting = True
        self._host.progress.set()
        if self.due is None:
            return None
        return loop.call_later(max(0.0, (self.due - self._host.clock.now()).total_seconds()), self._woken.set)

    async def _run_step(self, state: OpenStep) -> None:
        """Make one attempt at a step whose `step_started` is in the log.

        `step_started` is durable before the step runs, and the outcome is recorded after it. The outcome goes into the
        next batch, so one transaction has it and the decisions that it leads to. If this activation is over by then,
        the outcome is recorded like any other fact, under its own key. If the process dies first, the log shows an
        attempt without an outcome. The run's next owner then makes the same attempt again, so a crash uses up none of
        the author's retries (law 6).
        """
        run_id, created = self.run.row.id, self.run.log[0]
        # A step keeps its ID, which is its idempotency key, also where a reset has copied it into another run.
        made_by = made_in(created, state.seq) if state.seq and "reset_of" in created.data else run_id
        started = self.run.index.first_starts.get(state.id) or self._host.clock.now()
        attempt_number = state.failures + 1
        is_repeat = attempt_number in state.started  # by the log, before this process wrote that it has begun
        context = StepContext(
            StepMetadata(state.step.name, f"{made_by}.{state.id}", attempt_number, started, is_repeat),
            WorkflowMetadata(created.data["workflow"], run_id, began_at(created), dict(state.attributes)),
        )
        try:
            host = self._host
            with span(f"step {state.step.name}", parent_of(state.attributes), **_fields(context)):
                fact = await attempt(state, context, host.resources, host.clock.now, self._calls_off, host.executor)
        except NondeterminismError as error:
            self._misfit = None if state.id in self._given_up else error
            return
        finally:
            self._running.pop(state.id, None)
            self._woken.set()
        if state.id in self._given_up:
            return  # nobody hears of it
        if self._is_over:
            await self._host.store.record(run_id, [fact], self._host.clock.now())
        else:
            self._finished.append(fact)

    def _calls_off(self, error: BaseException) -> bool:
        """Return whether this task's step raised this because its attempt is being stopped: it is no outcome then."""
        task = asyncio.current_task()
        attempts = (*self._running.values(), *self._given_up.values())
        if any(attempt.is_called_off for attempt in attempts if attempt.task is task):
            return True
        return isinstance(error, asyncio.CancelledError) and (self._is_closing or self.is_lost or self._is_over)

    def _stop_given_up(self) -> None:
        """Stop the steps that the body has given up, now that this is in the log, also those that wait for a place.

        A step that doesn't stop at once outlives this, so it can't keep the run from going on.
        """
        given_up = self.run.index.given_up
        if self._queue is not None:
            self._queue.leave(self._queue.tickets.keys() & given_up)
        for number in self._running.keys() & given_up:
            stopped = self._given_up[number] = self._running.pop(number)
            stopped.cancel()
            self._host.keep_task(stopped.task)

    def _cancel_steps(self) -> None:
        if self._queue is not None:
            self._queue.leave()
        for running in self._running.values():
            running.cancel()

    def stop(self) -> None:
        """Cancel running steps now, start no others, and release the run."""
        self._is_closing = True
        self._cancel_steps()
        self._woken.set()

    def let_go(self) -> None:
        """Release the run although steps of it go on in spite of being cancelled. What becomes of them isn't heard.

        Nobody would renew its lease: holding on to it would only keep others from going on until it ends. So for as
        long as this process lives, another may make the same attempt beside it, as it may beside a step's thread.
        """
        for running in self._running.values():
            logger.warning(
                "run %s: %s goes on in spite of its cancellation; another process may make the same attempt now",
                self.run.row.id,
                running.task.get_name(),
            )
        self._given_up |= self._running
        self._running.clear()
        self._woken.set()

    def detach_steps(self) -> None:
        """Let the process end without the running steps, if they go on in spite of being cancelled."""
        for running in self._running.values():
            detach(running.task)

    async def close(self, seconds: float) -> None:
        """Give running steps some time, cancel them, and release the run.

        Another process can then claim it at once. A step that is cancelled here hasn't failed: the same attempt is made
        again.
        """
        self._is_closing = True
        if self._running and seconds > 0:
            await asyncio.wait([running.task for running in self._running.values()], timeout=seconds)
        self.stop()


def _fields(context: StepContext) -> dict[str, Any]:
    """Return what a step's span says, as the lines of its log do."""
    workflow, step = context.workflow, context.step
    return {
        "run_id": workflow.run_id,
        "workflow": workflow.workflow_name,
        "step": step.name,
        "attempt": step.attempt,
    }
