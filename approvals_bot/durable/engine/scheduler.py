"""The background work of one process: claims what is due, keeps its leases, and lets go of all at the end."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from approvals_bot.durable.core.context import step_context
from approvals_bot.durable.core.events import Event, lost_a_token
from approvals_bot.durable.core.registry import Registry
from approvals_bot.durable.engine.activation import PATIENCE, Activation
from approvals_bot.durable.engine.batch import Batch
from approvals_bot.durable.engine.cache import CachedRun, RunCache
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.limits import CLOSING, LEAP, LEASE, LOOK, MAX_ACTIVE, POLL, RETRY_STORE, STALLED
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.replayer import Replayer
from approvals_bot.durable.store.protocol import Claim, Claimed, Filter, Lease, OpenStore, RunRow
from approvals_bot.errors import StoreUnavailableError

logger = logging.getLogger("approvals_bot.durable.engine")


T = TypeVar("T")


class Scheduler:
    """Works on runs from `start` to `close`. Each run that is claimed here has one activation, until it only waits."""

    def __init__(
        self,
        store: OpenStore,
        *,
        clock: TimeSource,
        replayer: Replayer,
        registry: Registry,
        resources: Mapping[type, Any],
        news: Notifier,
    ) -> None:
        self.store = store
        self.clock = clock
        self.replayer = replayer
        self.registry = registry
        self.resources = resources
        self.closing = CLOSING
        self.remembered = RunCache()
        self._news = news
        self._owner = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._random = Random()
        self._nudge = asyncio.Event()
        self._progress = asyncio.Event()
        self._active: dict[str, tuple[Activation, asyncio.Task[None]]] = {}
        self.room = Slots(self._active, self._more_room)
        self._leased_until: datetime | None = None
        self._unanswered: list[datetime] = []  # when claims end whose answer has not come, or was lost
        self._stalled = Stalled(store, registry, self._work_on)
        self._kept: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._is_closed = False
        self._is_full = False  # there was no room for a run; when there is, somebody has to look

    async def start(self) -> None:
        """Begin to work. Before anything is claimed, the leases of the dead are freed."""
        await self._until_it_works(self.store.begin_work)
        self.store.listen(self._look_again)
        self._tasks = [
            asyncio.create_task(self._schedule(), name="engine: schedule"),
            asyncio.create_task(self._renew(), name="engine: renew leases"),
        ]

    @property
    def works(self) -> bool:
        """Whether this process works on runs, and so hears of what others write."""
        return bool(self._tasks)

    @property
    def patience(self) -> float | None:
        """Seconds to wait for news before one looks again. A process that doesn't work isn't told what others write."""
        return None if self.works else POLL

    def row_at_work(self, run_id: str) -> RunRow | None:
        """The row of a run that this process works on, as it was when that began."""
        active = self._active.get(run_id)
        return None if active is None else active[0].run.row

    # ── what the engine hands over ──

    def ask(self, run_id: str | None = None) -> Lease | None:
        """The lease to ask for; None if this process takes no more work, or has that run already. Say when it is
        `answered`: if the answer is lost, we may have a claim without knowing it, and then there is something to do
        once it is over."""
        self._is_full = self.room.left <= 0
        if self._is_full or self._is_closing or not self._tasks or run_id in self._active:
            return None
        now = self.now()
        lease = Lease(self._owner, now, now + LEASE)
        if self._unanswered and self._unanswered[0] <= now:
            self._unanswered = [until for until in self._unanswered if until > now]
        self._unanswered.append(lease.until)
        return lease

    def answered(self, lease: Lease | None) -> None:
        """Whether there is a claim is known."""
        if lease is not None and lease.until in self._unanswered:
            self._unanswered.remove(lease.until)

    def begin(self, claimed: Claimed) -> None:
        """Work on a run that has been claimed."""
        run = CachedRun(claimed.row, claimed.log, claimed.claim.epoch)
        before = self.remembered.take(claimed.claim.run_id)
        if before is not None:
            run.replayed = before.replayed  # it goes on, as far as it has come with this log
        self._begin(run)

    def go_on(self, run: CachedRun, written: Batch, events: list[Event]) -> None:
        """Work on a run whose next turn was decided before the write that it follows from, and written with it."""
        run_id = run.row.id
        run.epoch += 1
        run.grow(events)
        self._news.tell(run_id, events)
        if written.outcome.ended:
            run.close()
        elif written.releases:
            if written.wake_at is not None or lost_a_token(events):
                self._nudge.set()
            self.remember(run)
        else:
            self._begin(run, written)

    def _begin(self, run: CachedRun, written: Batch | None = None) -> None:
        if self._is_closed:  # the answer has come too late: the run rests until the lease ends
            run.close()
            return
        until = self.now() + LEASE
        self._leased_until = until if self._leased_until is None else min(self._leased_until, until)
        activation = Activation(self, run, written)
        task = asyncio.get_running_loop().create_task(self._work(activation), name=f"run {run.row.id}")
        self._active[run.row.id] = (activation, task)

    def tell(self, run_id: str, events: list[Event]) -> None:
        """These were written to a run from outside."""
        self._news.tell(run_id, events)
        self.nudge(run_id)

    def nudge(self, run_id: str) -> None:
        """Something was written to this run from outside: wake whoever works on it, or have it claimed."""
        if run_id in self._active:
            self._active[run_id][0].signal()
        self._nudge.set()

    # ── what activations use ──

    def appended(self, run_id: str, events: list[Event]) -> None:
        self._news.tell(run_id, events)

    def entropy(self) -> bytes:
        return self._random.draw()

    def rests(self, activation: Activation) -> None:
        self._progress.set()

    def remember(self, run: CachedRun) -> None:
        self.remembered.add(run)

    def keep(self, task: asyncio.Task[Any]) -> None:
        self._kept[task] = None
        task.add_done_callback(self._kept.pop)

    async def to_its_end(self, writing: Coroutine[Any, Any, T]) -> T:
        """Do this, also if its caller goes away meanwhile: the write may have claimed a run, and if nobody were left to
        begin with that, it would rest until the lease ends."""
        task = asyncio.get_running_loop().create_task(writing)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.keep(task)
            task.add_done_callback(_forget)
            raise

    def now(self) -> datetime:
        return self.clock.now()

    # ── working ──

    async def _schedule(self) -> None:
        """Claim what is due. Sleeps until the next timer, a nudge, or a write by another process."""
        await self._until_it_works(self._stalled.retry)
        due: datetime | None = self.now()
        time = asyncio.get_running_loop().time
        looked = time()
        ahead = self.now().timestamp() - looked
        while not self._is_closing:
            seconds = POLL if due is None else min(POLL, max(0.0, (due - self.now()).total_seconds()))
            nudged = await self._nudged(seconds)
            was, ahead = ahead, self.now().timestamp() - time()
            if ahead - was > LEAP:
                self._wake_overdue()
            try:
                if elsewhere := not nudged and await self.store.changed():
                    self._look_again()
                if self._stalled.is_due:
                    await self._stalled.retry()
                if nudged or elsewhere or looked + LOOK <= time() or (due is not None and due <= self.now()):
                    due, looked = await self._claim_due(), time()
            except StoreUnavailableError as error:
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._nudged(RETRY_STORE)
                due = self.now()
            except Exception:  # whatever it was: a process that claims nothing any more would look alive and be dead
                logger.exception("looking for work failed, trying again")
                await self._nudged(RETRY_STORE)
                due = self.now()

    async def _nudged(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return False
        self._nudge.clear()
        return True

    def _look_again(self, runs: Collection[str] | None = None) -> None:
        """Another process has written something, to these runs or to whichever."""
        self._news.tell_of(runs)
        for run_id in list(self._active) if runs is None else runs:
            if run_id in self._active:
                self._active[run_id][0].signal()
        self._nudge.set()

    def _wake_overdue(self) -> None:
        """The clock was set, or the machine was suspended: who waits in hand has reckoned without that."""
        for activation, _ in self._active.values():
            if activation.due is not None and activation.due <= self.now():
                activation.signal()

    async def _claim_due(self) -> datetime | None:
        """Claim all that is due, as far as there is room, and say when to look again."""
        await self._keep_leases()
        while True:
            due = await self.next_wake()
            room = self.room.left
            if due is None or due > self.now() or self._is_closing or room <= 0:
                return due
            if not await self._claim(limit=room):
                return await self.next_wake()

    async def _claim(self, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        lease = self.ask()
        claimed = [] if lease is None else await self.store.claim(lease, limit, run_id)
        self.answered(lease)
        for each in claimed:
            self.begin(each)
        return claimed

    async def _work(self, activation: Activation) -> None:
        run_id = activation.run.row.id
        try:
            await activation.work()
        except Exception:
            logger.exception("run %s: working on it failed; it will be tried again when its lease ends", run_id)
            activation.due, activation.is_lost = self.now() + LEASE, True
        finally:
            if self._active.get(run_id, (None, None))[0] is activation:
                del self._active[run_id]
            if activation.is_lost:
                self._news.tell_of((run_id,))
            if activation.due is not None or self._is_full:
                self._nudge.set()
            self._progress.set()

    async def _renew(self) -> None:
        """The heartbeat."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                await self._keep_leases()
            except StoreUnavailableError as error:
                logger.warning("leases could not be renewed: %s", error)

    async def _keep_leases(self) -> None:
        """Renew what this process holds once a third of the lease is over; also when the clock has made a leap, before
        anything is claimed, or the process would take its own runs away from itself."""
        now = self.now()
        if self._leased_until is None or now + LEASE * 2 / 3 < self._leased_until:
            return
        claims = [Claim(run_id, activation.run.epoch) for run_id, (activation, _) in self._active.items()]
        if claims:
            await self.store.renew(claims, now + LEASE)
        self._leased_until = now + LEASE if claims else None

    async def _work_on(self, run_id: str) -> bool:
        """Claim this run when there is room."""
        await self._room()
        return bool(await self._claim(run_id=run_id))

    async def _room(self) -> None:
        while self.room.left <= 0 and not self._is_closing:
            self._progress.clear()
            await self._progress.wait()

    def _more_room(self) -> None:
        if self._is_full:
            self._nudge.set()
        self._progress.set()

    async def _until_it_works(self, call: Callable[[], Awaitable[None]]) -> None:
        while not self._is_closing:
            try:
                await call()
                return
            except StoreUnavailableError as error:
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._nudged(RETRY_STORE)

    # ── for clocks that are moved ──

    async def next_wake(self) -> datetime | None:
        """When this engine has something to do by itself."""
        claimable = await self.store.next_wake(self._owner, self.now())
        held = (activation.due for activation, _ in self._active.values())
        return min((due for due in (claimable, *held, *self._unanswered) if due is not None), default=None)

    async def settle(self) -> None:
        """Return when all that is due has been done; a step that takes long is not waited for."""
        while self._tasks:
            self._progress.clear()
            due = await self._claim_due()
            busy = [activation for activation, _ in self._active.values() if activation.is_busy(self.now())]
            if not busy and (due is None or due > self.now() or self.room.left <= 0):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE if busy else 0):
                    await self._progress.wait()

    # ── closing ──

    async def close(self) -> None:
        """Take no new work, let running steps finish for a while, release every run."""
        self._is_closing = True
        self._stalled.close()
        self._nudge.set()
        self._progress.set()
        if self._tasks:
            schedule, renew = self._tasks
            await asyncio.wait([schedule], timeout=CLOSING)  # it may be claiming: nothing claimed may be forgotten
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
                if task.done():  # cancelled before it began, so it has tidied up nothing
                    activation.run.close()
                    del self._active[run_id]
        self._is_closed = True
        self.remembered.close()


def _forget(task: asyncio.Task[Any]) -> None:
    """Nobody is left to hear how it ended."""
    if not task.cancelled():
        task.exception()


# ── How many runs one process works on at a time. ──


class Slots:
    """Room for MAX_ACTIVE runs, besides those that wait in a step for another run: if they took it all, the runs that
    they wait for would never begin."""

    def __init__(self, active: Sized, grown: Callable[[], None]) -> None:
        """`grown` is called when there is more of it than there was."""
        self._active = active
        self._grown = grown
        self._waiting: Counter[str] = Counter()  # waits for other runs, by the run whose steps wait

    @property
    def left(self) -> int:
        """For so many more."""
        return MAX_ACTIVE - len(self._active) + len(self._waiting)

    @contextmanager
    def made(self) -> Iterator[None]:
        """While this block waits for a run: if it does so in a step, the step's run takes no room."""
        context = step_context.get()
        if context is None:
            yield
            return
        run_id = context.workflow.run_id
        self._waiting[run_id] += 1
        self._grown()
        try:
            yield
        finally:
            self._waiting[run_id] -= 1
            if not self._waiting[run_id]:
                del self._waiting[run_id]


# ── Stalled runs are tried again: the code that they wait for may have come with a deployment, or come back. ──

Work = Callable[[str], Awaitable[bool]]
"""Claim this run and begin to work on it, when there is room. False if another process has it just now."""


class Stalled:
    """Each stalled run is tried once, until its log or the code of this process is another."""

    def __init__(self, store: OpenStore, registry: Registry, work: Work) -> None:
        self._store = store
        self._registry = registry
        self._work = work
        self._code = registry.additions
        self._tried: dict[str, tuple[int, int]] = {}  # the log's length and the code it was tried with
        self._next = 0.0
        self._is_closed = False

    @property
    def is_due(self) -> bool:
        """Whether this process has other code, or others may have come upon runs that it has the code for."""
        return self._code != self._registry.additions or self._next <= asyncio.get_running_loop().time()

    async def retry(self) -> None:
        """Try all that have not been tried so."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._code = self._registry.additions
        before, self._tried = self._tried, {}
        cursor: str | None = None
        while not self._is_closed:
            rows, cursor = await self._store.runs(Filter(status="stalled", cursor=cursor, limit=200))
            for row in rows:
                tried = (row.seq, self._code)
                if before.get(row.id) == tried or await self._work(row.id):
                    self._tried[row.id] = tried
            if cursor is None:
                break
        self._next = loop.time() + max(STALLED, 20 * (loop.time() - began))  # the more there are, the more seldom

    def close(self) -> None:
        self._is_closed = True


# ── Random bytes for ids and tokens. ──

SIZE = 32  # bytes a draw: as many as SHA-256 has
SUPPLY = 128  # draws that one system call brings; it costs 0.1 ms, however few bytes it is asked for


class Random:
    """The system's own random bytes, fetched in larger pieces; each is given out once."""

    def __init__(self) -> None:
        self._left = b""

    def draw(self) -> bytes:
        if not self._left:
            self._left = os.urandom(SIZE * SUPPLY)
        drawn, self._left = self._left[:SIZE], self._left[SIZE:]
        return drawn
