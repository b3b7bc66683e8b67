"""The background work of one process: claims the runs that are due, renews its leases, and releases them at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sized
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.api import step_context
from approvals_bot.durable.core.events import Event, lost_a_token
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.engine.activation import PATIENCE, Activation
from approvals_bot.durable.engine.batch import Batch
from approvals_bot.durable.engine.cache import CachedRun, RunCache
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.limits import CLOSING, LEAP, LEASE, LOOK, MAX_ACTIVE, POLL, RETRY_STORE, STALLED
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.replayer import Replayed, Replayer
from approvals_bot.durable.store.protocol import Claim, Claimed, Filter, Lease, OpenStore, RunRecord
from approvals_bot.errors import StoreUnavailableError

logger = logging.getLogger("approvals_bot.durable.engine")


class Slots:
    """One slot for each of MAX_ACTIVE runs that a process works on at a time.

    A run whose step waits for another run gives up its slot meanwhile. If it kept it, such runs could take all the
    slots, and the runs that they wait for would never begin.
    """

    def __init__(self, active: Sized, freed: Callable[[], None]) -> None:
        """`freed` is called when a slot has become free."""
        self._active = active
        self._freed = freed
        self._waiting: Counter[str] = Counter()  # waits for other runs, by the run whose steps wait

    @property
    def free(self) -> int:
        """How many more runs this process can take."""
        return MAX_ACTIVE - len(self._active) + len(self._waiting)

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Wait for a run inside this block: if a step does so, its run takes no slot meanwhile."""
        context = step_context.get()
        if context is None:
            yield
            return
        run_id = context.workflow.run_id
        self._waiting[run_id] += 1
        self._freed()
        try:
            yield
        finally:
            self._waiting[run_id] -= 1
            if not self._waiting[run_id]:
                del self._waiting[run_id]


class StalledRuns:
    """Tries stalled runs again: the code that they wait for may have come with a deployment, or come back.

    Each is tried once, until its log or the code of this process has changed.
    """

    def __init__(self, store: OpenStore, registry: Registry, work_on: Callable[[str], Awaitable[bool]]) -> None:
        """`work_on` claims a run and begins to work on it once there is a slot. False: another process has it."""
        self._store = store
        self._registry = registry
        self._work_on = work_on
        self._code = registry.additions
        self._tried: dict[str, tuple[int, int]] = {}  # the log's length and the code it was tried with
        self._next = 0.0
        self._is_closed = False

    @property
    def is_due(self) -> bool:
        """Whether this process has new code, or it is time to look for runs that others have left stalled."""
        return self._code != self._registry.additions or self._next <= asyncio.get_running_loop().time()

    async def retry(self) -> None:
        """Try every stalled run whose log or code is new to it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._code = self._registry.additions
        tried_before, self._tried = self._tried, {}
        cursor: str | None = None
        while not self._is_closed:
            rows, cursor = await self._store.runs(Filter(status="stalled", cursor=cursor, limit=200))
            for row in rows:
                tried = (row.seq, self._code)
                if tried_before.get(row.id) == tried or await self._work_on(row.id):
                    self._tried[row.id] = tried
            if cursor is None:
                break
        self._next = loop.time() + max(STALLED, 20 * (loop.time() - began))  # the more there are, the more rarely

    def close(self) -> None:
        self._is_closed = True


class Scheduler:
    """Works on runs from `start` to `close`: each run that is claimed here has one activation, until it only waits."""

    def __init__(
        self,
        store: OpenStore,
        *,
        clock: TimeSource,
        replayer: Replayer,
        registry: Registry,
        resources: dict[type, Any],
        notifier: Notifier,
        entropy: Callable[[], bytes],
    ) -> None:
        """`entropy` draws 32 random bytes, for ids and tokens."""
        self.store = store
        self.clock = clock
        self.replayer = replayer
        self.registry = registry
        self.resources = resources
        self.closing = CLOSING
        self.entropy = entropy
        self.cache = RunCache()
        self.notifier = notifier
        self._owner = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._woken = asyncio.Event()  # there may be something to claim
        self.progress = asyncio.Event()
        self._active: dict[str, tuple[Activation, asyncio.Task[None]]] = {}
        self.slots = Slots(self._active, self._slot_freed)
        self._leased_until: datetime | None = None
        self._unsettled: list[datetime] = []  # ends of leases that were asked for, and may have been given
        self._stalled = StalledRuns(store, registry, self._work_on)
        self._kept: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._is_closed = False
        self._is_full = False  # a run found no slot: look for work when one becomes free

    async def start(self) -> None:
        """Begin to work. Leases of dead processes are freed before anything is claimed."""
        await self._until_it_works(self.store.begin_work)
        self.store.listen(self._look_again)
        self._tasks = [
            asyncio.create_task(self._schedule(), name="engine: schedule"),
            asyncio.create_task(self._renew(), name="engine: renew leases"),
        ]

    @property
    def poll(self) -> float | None:
        """Seconds after which a subscriber reads the store again. None: this process works, and hears of all writes."""
        return None if self._tasks else POLL

    def row_at_work(self, run_id: str) -> RunRecord | None:
        """The row of a run that this process works on, as it was when that began. None: it doesn't."""
        active = self._active.get(run_id)
        return None if active is None else active[0].run.row

    def request_lease(self, run_id: str | None = None) -> Lease | None:
        """The lease to ask the store for. None if this process takes no more work, or works on that run already.

        Call `lease_settled` when the store has answered. If its answer is lost, this process may hold a claim that it
        doesn't know of. Nobody works on that run until the lease ends, so its end is kept as a time to look for work.
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
        """The store has said whether it gave this lease."""
        if lease is not None and lease.until in self._unsettled:
            self._unsettled.remove(lease.until)

    def activate(self, claimed: Claimed) -> None:
        """Work on a run that has been claimed."""
        run = CachedRun(claimed.row, claimed.log, claimed.claim.epoch)
        cached = self.cache.take(claimed.claim.run_id)
        if cached is not None:
            run.replayed = cached.replayed  # it is continued, as far as it has come with this log
        self._activate(run)

    def adopt(self, run: CachedRun, written: Batch, events: list[Event]) -> None:
        """Work on a run that was claimed together with its next batch. Steps of that batch have not been started."""
        run.epoch += 1
        run.grow(events)
        if written.outcome.ended:
            run.close()
        elif written.append.release:
            if written.append.wake_at is not None or lost_a_token(events):
                self._woken.set()
            self.cache.add(run)
        else:
            self._activate(run, written)

    def _activate(self, run: CachedRun, written: Batch | None = None) -> None:
        if self._is_closed:  # the answer came too late: the run waits for the end of the lease
            run.close()
            return
        until = self.clock.now() + LEASE
        self._leased_until = until if self._leased_until is None else min(self._leased_until, until)
        activation = Activation(self, run, written)
        task = asyncio.get_running_loop().create_task(self._work(activation), name=f"run {run.row.id}")
        self._active[run.row.id] = (activation, task)

    def wake(self, run_id: str) -> None:
        """Have a run worked on that something was written to from outside: by its activation, or by claiming it."""
        if run_id in self._active:
            self._active[run_id][0].wake()
        self._woken.set()

    # ── what activations use ──

    def replay_of(self, run: CachedRun) -> Replayed:
        """The replay to continue; a new one if there is none, or if the code has changed. WorkflowNotFoundError."""
        workflow = self.registry.get(run.row.code, run.row.version)
        if run.replayed is None or run.replayed.workflow is not workflow:
            run.close()
            run.replayed = Replayed(self.replayer, workflow, self.entropy())
        return run.replayed

    def keep_task(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task until it is done, or until this process closes."""
        self._kept[task] = None
        task.add_done_callback(self._kept.pop)

    # ── working ──

    async def _schedule(self) -> None:
        """Claim what is due; sleep until the next timer, a wake-up, or a write by another process."""
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
            try:
                if elsewhere := not woken and await self.store.changed():
                    self._look_again()
                if self._stalled.is_due:
                    await self._stalled.retry()
                if woken or elsewhere or looked + LOOK <= time() or (due is not None and due <= self.clock.now()):
                    due, looked = await self._claim_due(), time()
            except StoreUnavailableError as error:
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._sleep(RETRY_STORE)
                due = self.clock.now()
            except Exception:  # a process that claims nothing any more would look alive and be dead
                logger.exception("looking for work failed, trying again")
                await self._sleep(RETRY_STORE)
                due = self.clock.now()

    async def _sleep(self, seconds: float) -> bool:
        """Sleep for so long, or until woken. Returns whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def _look_again(self, runs: Collection[str] | None = None) -> None:
        """Another process has written to these runs; None: to any."""
        self.notifier.wake(runs)
        for run_id in list(self._active) if runs is None else runs:
            if run_id in self._active:
                self._active[run_id][0].wake()
        self._woken.set()

    def _wake_overdue(self) -> None:
        """Wake activations whose time has come early: the clock was set, or the machine was suspended."""
        for activation, _ in self._active.values():
            if activation.due is not None and activation.due <= self.clock.now():
                activation.wake()

    async def _claim_due(self) -> datetime | None:
        """Claim all that is due, as far as there are slots. Returns when to look again."""
        await self._keep_leases()
        while True:
            due = await self.next_wake()
            free = self.slots.free
            if due is None or due > self.clock.now() or self._is_closing or free <= 0:
                return due
            if not await self._claim(limit=free):
                return await self.next_wake()

    async def _claim(self, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        """Claim due runs, or this one, and begin to work on them.

        A claim raises the run's epoch in the transaction that reads its log. So a process that held the run before is
        fenced from that moment on: whatever it still decides carries the old epoch, and the store refuses it. It need
        not be asked, and it need not be alive.
        """
        lease = self.request_lease()
        claimed = [] if lease is None else await self.store.claim(lease, limit, run_id)
        self.lease_settled(lease)
        for each in claimed:
            self.activate(each)
        return claimed

    async def _work(self, activation: Activation) -> None:
        run_id = activation.run.row.id
        try:
            await activation.work()
        except Exception:
            logger.exception("run %s: working on it failed; it will be tried again when its lease ends", run_id)
            activation.due, activation.is_lost = self.clock.now() + LEASE, True
        finally:
            if self._active.get(run_id, (None, None))[0] is activation:
                del self._active[run_id]
            if activation.is_lost:
                self.notifier.wake((run_id,))
            if activation.due is not None or self._is_full:
                self._woken.set()
            self.progress.set()

    async def _renew(self) -> None:
        """Renew leases for as long as this process works."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                await self._keep_leases()
            except StoreUnavailableError as error:
                logger.warning("leases could not be renewed: %s", error)

    async def _keep_leases(self) -> None:
        """Renew the leases of this process once a third of their time is over.

        This comes before each claim, too. After a leap of the clock the leases may have ended, and the process would
        otherwise claim its own runs and fence itself off.
        """
        now = self.clock.now()
        if self._leased_until is None or now + LEASE * 2 / 3 < self._leased_until:
            return
        claims = [Claim(run_id, activation.run.epoch) for run_id, (activation, _) in self._active.items()]
        if claims:
            await self.store.renew(claims, now + LEASE)
        self._leased_until = now + LEASE if claims else None

    async def _work_on(self, run_id: str) -> bool:
        """Claim this run as soon as there is a slot. Returns whether it was claimed."""
        await self._free_slot()
        return bool(await self._claim(run_id=run_id))

    async def _free_slot(self) -> None:
        while self.slots.free <= 0 and not self._is_closing:
            self.progress.clear()
            await self.progress.wait()

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
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._sleep(RETRY_STORE)

    # ── for clocks that are moved ──

    async def next_wake(self) -> datetime | None:
        """When this process has something to do without a request."""
        claimable = await self.store.next_wake(self._owner, self.clock.now())
        held = (activation.due for activation, _ in self._active.values())
        return min((due for due in (claimable, *held, *self._unsettled) if due is not None), default=None)

    async def settle(self) -> None:
        """Return when all that is due has been done. A long step is not waited for."""
        while self._tasks:
            self.progress.clear()
            due = await self._claim_due()
            busy = [activation for activation, _ in self._active.values() if activation.is_busy(self.clock.now())]
            if not busy and (due is None or due > self.clock.now() or self.slots.free <= 0):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE if busy else 0):
                    await self.progress.wait()

    # ── closing ──

    async def close(self) -> None:
        """Take no new work, let running steps finish for a while, release every run."""
        self._is_closing = True
        self._stalled.close()
        self._woken.set()
        self.progress.set()
        if self._tasks:
            schedule, renew = self._tasks
            await asyncio.wait([schedule], timeout=CLOSING)  # it may be claiming: what it claims must be released
            schedule.cancel()
            renew.cancel()
            await asyncio.gather(schedule, renew, return_exceptions=True)
        active = list(self._active.values())
        await asyncio.gather(*(activation.close(self.closing) for activation, _ in active))
        if active:
            await asyncio.wait([task for _, task in active], timeout=CLOSING)
        while leftover := [*self._kept, *(task for _, task in self._active.values())]:
            for task in leftover:
                task.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)
            for run_id, (activation, task) in list(self._active.items()):
                if task.done():  # cancelled before it began, so it has cleaned up nothing
                    activation.run.close()
                    del self._active[run_id]
        self._is_closed = True
        self.cache.close()
