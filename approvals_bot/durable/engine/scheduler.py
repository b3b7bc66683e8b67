"""The scheduler of one process: claims due runs, renews their leases, and releases them when it closes."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.durable.core.events import ENDINGS, Event, lost_a_token, new_run_id
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.core.tracing import parent_of, span
from approvals_bot.durable.engine.activation import PATIENCE, Activation
from approvals_bot.durable.engine.batch import Batch
from approvals_bot.durable.engine.cache import CachedRun, RunCache
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.continuing import with_successor
from approvals_bot.durable.engine.executor import Executor, detach
from approvals_bot.durable.engine.limits import (
    CANCEL_GRACE,
    CLOSING,
    ENDING,
    LEAP,
    LEASE,
    LOOK,
    POLL,
    RETRY_STORE,
)
from approvals_bot.durable.engine.lines import PlacesHere
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.replayer import Replayed, Replayer
from approvals_bot.durable.engine.schedules import SET_BACK, Schedules
from approvals_bot.durable.engine.slots import Slots
from approvals_bot.durable.engine.stalled import StalledRuns
from approvals_bot.durable.engine.troubles import StoreLines, log_failure, log_stall, reason_of
from approvals_bot.durable.store.protocol import Claim, Claimed, Lease, OpenStore, RunRecord
from approvals_bot.errors import StoreUnavailableError, WorkflowNotFoundError

logger = logging.getLogger("approvals_bot.durable.engine")


class Scheduler:
    """The background work of a process, from `start` to `close`. Each run it has claimed has one activation."""

    def __init__(
        self,
        store: OpenStore,
        *,
        clock: TimeSource,
        replayer: Replayer,
        registry: Registry,
        resources: dict[type, Any],
        notifier: Notifier,
        executor: Executor,
        entropy: Callable[[], bytes],
        watch_stalls: Callable[[str], None] | None = None,
        watch_cut_off: Callable[[str], None] | None = None,
        watch_claims: Callable[[Claimed], None] | None = None,
    ) -> None:
        """`entropy` returns 32 random bytes, for ids and tokens. The watchers are `Engine`'s."""
        self.store = store
        self.clock = clock
        self.replayer = replayer
        self.registry = registry
        self.resources = resources
        self.closing = CLOSING
        self._ends_at: float | None = None  # by the loop's clock, if the process has been asked to end
        self.cancel_grace = timedelta(seconds=CANCEL_GRACE)
        self.entropy = entropy
        self._watch_stalls = watch_stalls
        self._watch_cut_off = watch_cut_off
        self._watch_claims = watch_claims
        self.cache = RunCache()
        self.notifier = notifier
        self.executor = executor
        self._owner = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._woken = asyncio.Event()  # there may be something to claim
        self._next_look: datetime | None = None  # when `_schedule` looks for work, unless woken; None: not known
        self.progress = asyncio.Event()
        self._active: dict[str, tuple[Activation, asyncio.Task[None]]] = {}
        for gate in executor.all_gates:
            gate.call = self._woken.set
        self.slots = Slots(self._active, self._slot_freed)
        self.rest = self.slots.rest
        self._leased_until: datetime | None = None
        self._claiming = 0  # claims that the store hasn't answered yet: what they give is in nobody's hands
        self._unsettled: list[datetime] = []  # ends of leases that were requested, and may have been given
        self._stalled = StalledRuns(store, registry, self._work_on)
        self.store_lines = StoreLines()
        self.schedules = Schedules(store, clock, notifier, self._look_for_work, self.store_lines)
        self._kept: dict[asyncio.Task[Any], None] = {}  # in the order in which they started
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._is_closed = False
        self._is_full = False  # there was no slot for a run: look for work when one becomes free

    async def start(self) -> None:
        """Start working. The leases of dead processes are ended before anything is claimed."""
        await self._until_it_works(self.store.begin_work)
        self.store.listen(self.look_again, self.notifier.wake)
        self._tasks = [
            asyncio.create_task(self._schedule(), name="engine: schedule"),
            asyncio.create_task(self._renew(), name="engine: renew leases"),
        ]

    @property
    def poll(self) -> float | None:
        """Seconds between a subscriber's reads of the store. None if this process works: it learns of all writes."""
        return None if self._tasks else POLL

    def row_at_work(self, run_id: str) -> RunRecord | None:
        """Return the row of a run, as it was when this process began to work on it. None if it doesn't."""
        active = self._active.get(run_id)
        return None if active is None else active[0].run.row

    def places_in_line(self, run_id: str) -> PlacesHere:
        """Return the places of a run and its steps in this process's lines."""
        active = self._active.get(run_id)
        parked = (gate for gate in self.executor.crowded if run_id in gate.parked)
        return PlacesHere(
            {} if active is None else active[0].places_in_line(),
            {gate.name: gate.place_of_parked(run_id) for gate in parked if gate.name is not None},
            self.executor.limits,
        )

    def request_lease(self, run_id: str | None = None) -> Lease | None:
        """Return a lease to request from the store. None if this process takes no work, or works on that run already.

        Call `lease_settled` when the store has answered. If the answer is lost, this process may hold a claim that it
        doesn't know of, and nobody works on that run until the lease ends. So its end is kept here, as a time to look
        for work.
        """
        self._is_full = self.slots.free <= 0
        if self._is_full or self._is_closing or not self._tasks or run_id in self._active:
            return None
        now = self.clock.now()
        lease = Lease(self._owner, now, now + LEASE)
        if self._unsettled and self._unsettled[0] <= now:
            self._unsettled = [until for until in self._unsettled if until > now]
        self._unsettled.append(lease.until)
        return lease

    def lease_settled(self, lease: Lease | None) -> None:
        """Forget a lease: the store has answered, so this process knows whether it has it."""
        if lease is not None and lease.until in self._unsettled:
            self._unsettled.remove(lease.until)

    def activate(self, claimed: Claimed) -> None:
        """Start working on a run that has been claimed."""
        if self._watch_claims is not None:
            self._watch_claims(claimed)
        run = CachedRun(claimed.row, claimed.log, claimed.claim.epoch)
        if claimed.row.status == "pending" and "reset_of" in claimed.log[0].data:
            self.cut_off(claimed.claim.run_id)
        cached = self.cache.take(claimed.claim.run_id)
        if cached is not None:
            run.replayed = cached.replayed  # the replay continues from the part of the log that it has seen
            run.lines = cached.lines
        self._activate(run)

    def adopt(self, run: CachedRun, written: Batch, events: list[Event]) -> None:
        """Start working on a run that was claimed in the transaction that wrote `written`.

        The steps of that batch haven't been started yet.
        """
        run.epoch += 1
        if run.lines:
            run.log_lines()
        if run.replayed is not None:
            run.lines.logged = len(run.replayed.delivered)
        run.grow(events)
        if run.row.parent or run.index.children:
            self.wake_relatives(run, events)
        if written.outcome.ended:
            self.ended(run)
            run.close()
        elif written.append.release:
            self._look_by(self.clock.now() if lost_a_token(events) else written.append.wake_at)
            self.cache.add(run)
        else:
            self._activate(run, written)

    def _activate(self, run: CachedRun, written: Batch | None = None) -> None:
        if self._is_closed:  # the answer came too late: the run waits until its lease ends
            run.close()
            return
        until = self.clock.now() + LEASE
        self._leased_until = until if self._leased_until is None else min(self._leased_until, until)
        activation = Activation(self, run, written)
        loop, context = asyncio.get_running_loop(), self.executor.context.copy()  # the caller's doesn't reach the run
        task = loop.create_task(self._work(activation), name=f"run {run.row.id}", context=context)
        self._active[run.row.id] = (activation, task)

    def wake(self, run_id: str) -> None:
        """Make sure that somebody works on a run after a write from outside: its activation, or the next claim."""
        if run_id in self._active:
            self._active[run_id][0].wake()
        self._woken.set()

    def wake_relatives(self, run: CachedRun, events: list[Event]) -> None:
        """Wake the parent and the children that these events were written to as well, by the same transaction."""
        children, parent = run.index.children, run.row.parent
        for event in events:
            if event.type == "child_started":
                self._woken.set()
            elif event.type == "child_cancelled":
                self.wake(children[event.data["id"]])
            elif event.type in ENDINGS:
                for run_id in (*children.values(), *(() if parent is None else (parent.run_id,))):
                    self.wake(run_id)

    # ── what activations use ──

    def replay_of(self, run: CachedRun) -> Replayed:
        """Return the run's replay, or a new one if there is none or the code has changed.

        Raises WorkflowNotFoundError.
        """
        workflow = self.registry.get(run.row.code, run.row.version)
        if run.replayed is None or run.replayed.workflow is not workflow:
            run.close()
            run.replayed = Replayed(self.replayer, workflow, self.entropy(), run.lines)
        return run.replayed

    def with_successor(self, batch: Batch, run: CachedRun) -> Batch:
        """Add the next run to a batch that ends this one as continued. Raises what is wrong with its input."""
        newest = self.registry.newest(run.row.code)
        return with_successor(batch, run.row, run.log, newest, new_run_id(batch.append.at, self.entropy()))

    def stalled(self, run: CachedRun, error: Exception) -> None:
        """Report that a run has stalled: one line, and one count. A payload makes it stall again without a word."""
        row = run.row
        self._stalled.stalled_here(row.id, len(run.log))
        if row.stalled != reason_of(error):
            log_stall(row, error)
            if self._watch_stalls is not None:
                self._watch_stalls(row.workflow)
        self.notifier.wake((row.id,))  # callers that wait for its answer get none

    def ended(self, run: CachedRun) -> None:
        """Report how a run has ended, where somebody is to know: it has failed, or was cancelled."""
        end = run.log[-1]
        if end.data.get("error") is not None:
            log_failure(run.row, end)
        if end.type == "run_failed" or run.index.cancellation is not None:
            self.cut_off(run.row.id)

    def must_finish(self, row: RunRecord) -> bool:
        """Return whether nothing but its own body may end this run."""
        try:
            return self.registry.get(row.code, row.version).must_finish(row.parts)
        except WorkflowNotFoundError:
            return False

    def cut_off(self, run_id: str) -> None:
        """Report that a run has ended before its body could end it well, or begins in the place of another run."""
        if self._watch_cut_off is not None:
            self._watch_cut_off(run_id)

    def keep_task(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task until it is done, or until this process closes."""
        self._kept[task] = None
        task.add_done_callback(self._kept.pop)

    # ── working ──

    async def _schedule(self) -> None:
        """Claim due runs. In between, sleep until the next timer, a wake-up, or a write by another process."""
        await self._until_it_works(self._stalled.retry)
        due: datetime | None = self.clock.now()
        time = asyncio.get_running_loop().time
        looked = time()
        ahead = self.clock.now().timestamp() - looked
        while not self._is_closing:
            seconds = POLL if due is None else min(POLL, max(0.0, (due - self.clock.now()).total_seconds()))
            woken = await self._sleep(seconds)
            last_ahead, ahead = ahead, self.clock.now().timestamp() - time()
            if ahead - last_ahead > LEAP:
                self._wake_overdue()
            elif last_ahead - ahead > SET_BACK.total_seconds():
                self.schedules.look_again()
            try:
                if elsewhere := not woken and await self.store.changed():
                    self.look_again()
                if self._stalled.is_due:
                    await self._stalled.retry()
                if woken or elsewhere or looked + LOOK <= time() or (due is not None and due <= self.clock.now()):
                    self._next_look = None  # what is released from now on may be due before what this look finds
                    due, looked = await self._claim_due(), time()
                    self._next_look = due
            except StoreUnavailableError as error:
                self.store_lines.is_away(error)
                await self._sleep(RETRY_STORE)
                due = self.clock.now()
            except Exception:  # if this loop ended, the process would look alive but claim nothing
                logger.exception("looking for work failed, trying again")
                await self._sleep(RETRY_STORE)
                due = self.clock.now()

    def _look_by(self, due: datetime | None) -> None:
        """Wake `_schedule` if a run has been released that is due before it looks anyway."""
        if due is not None and (self._next_look is None or due < self._next_look):
            self._woken.set()

    async def _sleep(self, seconds: float) -> bool:
        """Sleep for this long or until woken. Returns whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def look_again(self, runs: Collection[str] | None = None) -> None:
        """Read these runs again, or any if None: they have been written to, perhaps by another process."""
        self.notifier.wake(runs)
        for run_id in list(self._active) if runs is None else runs:
            if run_id in self._active:
                self._active[run_id][0].wake()
        self._woken.set()

    def _wake_overdue(self) -> None:
        """Wake activations that are due but whose timers haven't fired: the clock was set, or the machine slept."""
        for activation, _ in self._active.values():
            if activation.due is not None and activation.due <= self.clock.now():
                activation.wake()

    async def _claim_due(self) -> datetime | None:
        """Claim due runs for as long as there are slots. Returns when to look again."""
        await self._keep_leases()
        if self.schedules.due is not None and self.schedules.due <= self.clock.now() and not self._is_closing:
            self.keep_task(self.schedules.begin())
        if self.executor.crowded:
            await self._call_parked()
        while True:
            due = await self.next_wake()
            free = self.slots.free
            if due is None or due > self.clock.now() or self._is_closing or free <= 0:
                return due
            if not await self._claim(limit=free):
                return await self.next_wake()

    async def _claim(self, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        """Claim due runs, or this one, and start working on them.

        A claim raises the run's epoch in the same transaction that reads its log. From that moment the process that
        held the run before is fenced: its decisions carry the old epoch, and the store refuses them. That process
        needn't agree, or even be alive.
        """
        lease = self.request_lease()
        if lease is None:
            return []
        self._claiming += 1
        try:
            claimed = await self.store.claim(lease, limit, run_id)
        finally:
            self._claiming -= 1
            self.progress.set()
        self.lease_settled(lease)
        for each in claimed:
            self.activate(each)
        return claimed

    async def _call_parked(self) -> None:
        """Claim runs that wait in the store for places, as far as the lines have room for their steps."""
        for gate in [*self.executor.crowded]:
            for run_id in gate.next_parked(self._active):
                if self.slots.free <= 0 or self._is_closing:
                    self._is_full = True
                    return
                gate.called(run_id)
                await self._claim(run_id=run_id)

    async def _work(self, activation: Activation) -> None:
        row = activation.run.row
        run_id = row.id
        try:
            with span("activation", parent_of(row.attributes), run_id=run_id, workflow=row.workflow):
                await activation.work()
        except Exception:
            logger.exception("run %s: working on it failed; it will be tried again when its lease ends", run_id)
            activation.due, activation.is_lost = self.clock.now() + LEASE, True
        finally:
            if self._active.get(run_id, (None, None))[0] is activation:
                del self._active[run_id]
            if activation.is_lost:
                self.notifier.wake((run_id,))
            self._look_by(self.clock.now() if self._is_full else activation.due)
            self.progress.set()

    async def _renew(self) -> None:
        """Renew leases for as long as this process works on runs."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                await self._keep_leases()
            except StoreUnavailableError as error:
                self.store_lines.is_away(error)

    async def _keep_leases(self) -> None:
        """Renew the leases of this process once a third of their time is over.

        This also comes before each claim. After the clock leaps ahead, the leases may have ended; without this, the
        process would claim its own runs and fence itself off.
        """
        now = self.clock.now()
        if self._leased_until is None or now + LEASE * 2 / 3 < self._leased_until:
            return
        claims = [Claim(run_id, activation.run.epoch) for run_id, (activation, _) in self._active.items()]
        if claims:
            await self.store.renew(claims, now + LEASE)
        self._leased_until = now + LEASE if claims else None

    async def _work_on(self, run_id: str) -> bool:
        """Claim this run once there is a slot. Returns whether it was claimed."""
        await self._free_slot()
        return bool(await self._claim(run_id=run_id))

    async def _free_slot(self) -> None:
        while self.slots.free <= 0 and not self._is_closing:
            self.progress.clear()
            await self.progress.wait()

    def _look_for_work(self) -> None:
        self._woken.set()
        self.progress.set()

    def _slot_freed(self) -> None:
        if self._is_full:
            self._woken.set()
        self.progress.set()

    async def _until_it_works(self, call: Callable[[], Awaitable[None]]) -> None:
        while not self._is_closing:
            try:
                await call()
                return
            except StoreUnavailableError as error:
                self.store_lines.is_away(error)
                await self._sleep(RETRY_STORE)

    # ── for movable clocks ──

    async def next_wake(self) -> datetime | None:
        """Return when this process next has something to do without a request."""
        claimable = await self.store.next_wake(self._owner, self.clock.now())
        times = (claimable, self.schedules.due, *self._unsettled, *(each.due for each, _ in self._active.values()))
        return min((due for due in times if due is not None), default=None)

    async def settle(self) -> None:
        """Return once all that is due has been done. A long step is not waited for."""
        while self._tasks:
            self.progress.clear()
            due = await self._claim_due()
            busy = self.schedules.is_busy or self._claiming > 0
            busy = busy or any(each.is_busy(self.clock.now()) for each, _ in self._active.values())
            is_quiet = not busy and (due is None or due > self.clock.now() or self.slots.free <= 0)
            if is_quiet and not self.progress.is_set():  # else a run was released meanwhile, which may be due at once
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE if busy else 0):
                    await self.progress.wait()

    # ── closing ──

    def will_close(self) -> None:
        """Count the time that running steps get to finish from now on. They go on until `close`."""
        self._ends_at = asyncio.get_running_loop().time() + self.closing

    def hurry(self) -> None:
        """Give running steps no more time to finish."""
        self._ends_at = 0.0
        self._is_closing = True
        for activation, _ in self._active.values():
            activation.stop()

    async def close(self) -> None:
        """Take no new work, give running steps some time to finish, and release every run.

        It ends in time whatever a step does. A second Ctrl-C may interrupt it anywhere.
        """
        time = asyncio.get_running_loop().time
        ends_at = time() + self.closing if self._ends_at is None else self._ends_at
        self._is_closing = True
        self._stalled.close()
        self._woken.set()
        self.progress.set()
        for activation, _ in self._active.values():
            activation.detach_steps()
        for task in self._kept:
            detach(task)
        if self._tasks:
            schedule, renew = self._tasks
            await asyncio.wait([schedule], timeout=CLOSING)  # it may be claiming, and those runs must be released, too
            schedule.cancel()
            renew.cancel()
            await asyncio.gather(schedule, renew, return_exceptions=True)
        active = list(self._active.values())
        await asyncio.gather(*(activation.close(max(0.0, ends_at - time())) for activation, _ in active))
        if active and (await asyncio.wait([task for _, task in active], timeout=ENDING))[1]:
            for activation, _ in list(self._active.values()):
                activation.let_go()
            await asyncio.wait([task for _, task in active], timeout=ENDING)
        until = time() + ENDING
        while (leftover := [*self._kept, *(task for _, task in self._active.values())]) and time() < until:
            for task in leftover:
                task.cancel()
            await asyncio.wait(leftover, timeout=ENDING)
            for run_id, (activation, task) in list(self._active.items()):
                if task.done():  # cancelled before it started, so it has cleaned up nothing
                    activation.run.close()
                    del self._active[run_id]
        self._is_closed = True
        self.cache.close()
