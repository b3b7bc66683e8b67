"""Replays under a deadline. A body that spins is stopped and named, and blocks nothing else.

Nearly all replays take a fraction of a millisecond. Passing one to a thread costs 46 µs of processor time and 73 µs of
elapsed time (`run_in_executor` of nothing, five thousand times). So each replay is tried on the event loop first, under
a watchdog, and goes to a thread only if it takes longer.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.commands import End
from approvals_bot.durable.core.events import Log
from approvals_bot.durable.core.lines import Lines
from approvals_bot.durable.core.loop import ReplayInterrupted
from approvals_bot.durable.core.replay import Replay, ReplayResult
from approvals_bot.durable.engine.limits import ACTIVATION_TIME
from approvals_bot.errors import WorkflowSpinsError

P = ParamSpec("P")
T = TypeVar("T")

INLINE_TIME = 1.0
"""Seconds of processor time for which a replay may block the event loop. A body that spins does so once. (The first
replay of a workflow builds the validators of its types, and may take a tenth of that.)"""

INLINE_EVENTS = 64
"""A longer log goes to a thread at once: its few milliseconds on the event loop would delay everybody."""

THREADS = 2

PATIENCE = 5
"""On a busy machine, a body gets this many times ACTIVATION_TIME of elapsed time, as long as it computes less."""

IMPORT_TIME = 60.0
"""Seconds that a body may import for, which don't count. Half a library in memory would break every later import."""


class Interruptible:
    """A runner of calls, one at a time, that `interrupt` ends with ReplayInterrupted.

    The call may run on any thread. Other code uses that thread before and after it, so an interruption must not arrive
    late.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False
        self._began = math.inf
        self._must_count = math.inf  # from here on, imports count, too
        self._is_importing = False  # when `computed` was last read
        self._calls = 0
        self._looked_at = 0  # the call for which `_computed_before` was read
        self._computed_before = 0.0  # the thread's processor time when `computed` was first read during the call

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the last call began, or was last seen importing; 0 before the first."""
        return max(0.0, time.monotonic() - self._began)

    @property
    def computed(self) -> float:
        """Seconds of processor time that the call has used since this was first read during it, apart from imports.

        Infinite where that is unknown. It isn't recorded for every call, because reading that clock can take longer
        than a replay.
        """
        with self._lock:
            return self._computed()

    def run(self, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        try:
            with self._lock:
                self._is_interrupted = False
                self._calls += 1
                self._began = time.monotonic()
                self._must_count = self._began + IMPORT_TIME
                self._thread = threading.get_ident()
            try:
                return call(*given, **named)
            finally:
                self._end()
        except ReplayInterrupted:
            self._end_undisturbed()  # the interruption may have come during the first attempt to end
            raise

    def interrupt(self, beyond: float = 0.0) -> None:
        """Interrupt the call if it is running and has computed for more than `beyond` seconds.

        An interruption can be lost, because Python ignores exceptions in finalizers. Repeat it.
        """
        with self._lock:
            computed = self._computed()  # before `elapsed`, which it may set back
            if self._thread is not None and not self._is_importing and min(self.elapsed, computed) >= beyond:
                self._is_interrupted = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(ReplayInterrupted)
                )

    def _computed(self) -> float:
        if self._thread is None:
            return math.inf
        used, at = _processor_time(self._thread), time.monotonic()
        self._is_importing = at < self._must_count and _is_importing(self._thread)
        if self._is_importing:
            self._began = at
        if self._is_importing or self._looked_at != self._calls:
            self._looked_at, self._computed_before = self._calls, 0.0 if math.isinf(used) else used
        return used - self._computed_before

    def _end(self) -> None:
        with self._lock:
            self._thread = None
        if self._is_interrupted:
            # An exception that was set at the last moment arrives within a few bytecodes. (It could be cleared, but
            # CPython 3.11 then keeps all threads checking for it for ever, and hangs under a profiler.)
            with suppress(ReplayInterrupted):
                for _ in range(10_000):
                    pass

    def _end_undisturbed(self) -> None:
        while True:
            try:
                return self._end()
            except ReplayInterrupted:
                continue


def _is_importing(thread: int) -> bool:
    """Return whether this thread is in the middle of an import."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _processor_time(thread: int) -> float:
    """Return the seconds of processor time that this thread has used since it started."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return math.inf
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


class Watchdog:
    """A thread that interrupts long computations on the event loop's thread.

    It interrupts a call that computes for longer than `limit` seconds. It looks a few times within that limit, and
    sleeps when there has been no call for a second. Only processor time counts: on a busy machine even the shortest
    call may last long, and mustn't be interrupted for that. (If an interruption hits the callback of a weak reference,
    Python prints and drops it; then the next one comes.)
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._watched = Interruptible()
        self._last = 0.0
        self._is_asleep = True
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Make a call under watch. Raises ReplayInterrupted if it takes too long. Calls don't nest."""
        self._last = time.monotonic()
        if self._is_asleep:
            self._rouse()
        return self._watched.run(call, *given, **named)

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _rouse(self) -> None:
        self._is_asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="replay watchdog", daemon=True)
            self._thread.start()
        self._wake.set()

    def _is_idle(self) -> bool:
        return not self._watched.is_running and time.monotonic() - self._last > 1.0 and not self._closed.is_set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            if self._is_idle():
                self._wake.clear()
                self._is_asleep = True
                if self._is_idle():  # still idle; a call that comes now sees `_is_asleep` and wakes this thread
                    self._wake.wait()
            # The first look starts the count, so a body gets at most a quarter more than its limit.
            if self._watched.is_running and self._watched.computed > self._limit:
                self._watched.interrupt(beyond=self._limit)
            self._closed.wait(self._limit / 4)


class Replayer:
    """The runner of replays, on the event loop or in a thread."""

    def __init__(self, link: Callable[[str], str]) -> None:
        self.link = link
        self._watchdog = Watchdog(INLINE_TIME)
        self._threads = _threads()
        self._slow: set[str] = set()  # workflows that had to be interrupted once

    async def replay(self, workflow: Workflow[Any, Any], log: Log, entropy: bytes) -> ReplayResult:
        """Replay a whole log, as `replay` does.

        Raises WorkflowSpinsError if the body computes for longer than ACTIVATION_TIME.
        """
        replayed = Replayed(self, workflow, entropy)
        try:
            return await replayed.outcome(log)
        finally:
            replayed.close()

    def inline(self, workflow: Workflow[Any, Any], replay: Replay, events: Log) -> ReplayResult | None:
        """Deliver events on the event loop. Returns None if that takes too long: start again in a thread."""
        if len(events) > INLINE_EVENTS or workflow.code in self._slow:
            return None
        try:
            outcome = self._watchdog.run(replay.deliver, events)
        except ReplayInterrupted:
            replay.leave()  # the interruption may have come while the replay was leaving
            self._slow.add(workflow.code)
            return None  # a replay has no effects
        end = outcome.commands[-1] if outcome.ended else None
        if isinstance(end, End) and end.data.get("error", {}).get("type") in ("KeyboardInterrupt", "SystemExit"):
            return None  # perhaps Ctrl-C: a replay in a thread shows whether the body raised it itself
        return outcome

    def throw_away(self, replay: Replay) -> None:
        """Close a body, under watch: its `finally` blocks may spin, too."""
        try:
            self._watchdog.run(replay.close)
        except ReplayInterrupted:
            replay.leave()

    def close(self) -> None:
        self._watchdog.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, workflow: Workflow[Any, Any], replay: Replay, events: Log) -> ReplayResult:
        """Deliver events in a thread.

        If the body can't be stopped, or the caller is cancelled, the replay is closed when the thread is done with it.
        """
        watched = Interruptible()

        def deliver() -> ReplayResult:
            _ = watched.computed  # starts counting its processor time
            return replay.deliver(events)

        def run() -> ReplayResult:
            try:
                return watched.run(deliver)
            finally:
                replay.leave()  # an interruption may have come while the replay was leaving

        job = self._threads.submit(run)
        try:
            return await self._watch(watched, asyncio.wrap_future(job), workflow)
        except ReplayInterrupted:
            raise _spins(workflow) from None
        except (asyncio.CancelledError, WorkflowSpinsError):
            job.add_done_callback(lambda _: replay.close())
            raise

    async def _watch(
        self, watched: Interruptible, future: asyncio.Future[ReplayResult], workflow: Workflow[Any, Any]
    ) -> ReplayResult:
        if not (await asyncio.wait([future], timeout=ACTIVATION_TIME))[0]:
            interruptions = 0
            while not future.done():
                if (left := ACTIVATION_TIME - _used(watched)) > 0:
                    await asyncio.wait([future], timeout=left)
                elif interruptions < 3:
                    interruptions += 1
                    watched.interrupt()
                    await asyncio.wait([future], timeout=ACTIVATION_TIME / 10)
                else:
                    # It is in C code or swallows the exception: leave it this thread, and start new ones for others.
                    self._threads.shutdown(wait=False)
                    self._threads = _threads()
                    raise _spins(workflow)
        return future.result()


class Replayed:
    """The replay of one run, kept while somebody works on the run.

    A log that begins with the one replayed before is continued from there. Any other log is replayed from the start.
    """

    def __init__(
        self, replayer: Replayer, workflow: Workflow[Any, Any], entropy: bytes, lines: Lines | None = None
    ) -> None:
        self.workflow = workflow
        self._lines = lines
        self._replayer = replayer
        self._entropy = entropy
        self._replay: Replay | None = None
        self.delivered: Log = []  # the events so far
        self.schemas: dict[int, Any] | None = None  # of the run's hooks, by number; None before the first replay
        self.weight = 0  # as `RunState.weight`
        self.unread: dict[int, int] = {}  # payloads that the body hasn't taken, by hook

    async def outcome(self, log: Log) -> ReplayResult:
        """Replay this log. Raises WorkflowSpinsError if the body computes for longer than ACTIVATION_TIME."""
        outcome = self.at_once(log)
        if outcome is not None:
            return outcome
        replay, events = self._continued(log)
        self._replay = None  # the other thread owns it until it is done
        outcome = await self._replayer.in_thread(self.workflow, replay, events)
        self._replay, self.delivered, self.schemas, self.unread = replay, log[:], outcome.schemas, outcome.unread
        self.weight = outcome.weight
        return outcome

    def at_once(self, log: Log) -> ReplayResult | None:
        """Replay this log on the event loop. Returns None if that takes too long."""
        replay, events = self._continued(log)
        outcome = self._replayer.inline(self.workflow, replay, events)
        if outcome is not None:
            self.delivered, self.schemas, self.unread = log[:], outcome.schemas, outcome.unread
            self.weight = outcome.weight
        return outcome

    def close(self) -> None:
        """Throw away the body, wherever it waits."""
        if self._replay is not None and not self._replay.is_closed:
            self._replayer.throw_away(self._replay)
        self._replay = None

    def _continued(self, log: Log) -> tuple[Replay, Log]:
        """Return a replay that has seen the beginning of this log, and the events it hasn't seen."""
        replay, delivered = self._replay, len(self.delivered)
        if replay is None or replay.is_closed or log[:delivered] != self.delivered:
            self.close()
            if self._lines:
                self._lines.clear()  # the new replay keeps them again
            link = self._replayer.link
            replay = self._replay = Replay(self.workflow, log[0], entropy=self._entropy, link=link, lines=self._lines)
            self.delivered, delivered = [], 0
        return replay, log[delivered:]


def _used(watched: Interruptible) -> float:
    """Return how many seconds of its time a body has used.

    That is its processor time, or a fifth of the elapsed time if that is more. It is 0 until a thread is free for it.
    """
    computed = watched.computed  # before `elapsed`, which it may set back
    return min(watched.elapsed, max(computed, watched.elapsed / PATIENCE))


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="replay")


def _spins(workflow: Workflow[Any, Any]) -> WorkflowSpinsError:
    return WorkflowSpinsError(
        f"The workflow {workflow.name!r} computed for more than {ACTIVATION_TIME:g} s without waiting. "
        "Move the computation into a @step."
    )


class EntropyPool:
    """Random bytes for ids and tokens, fetched from the system for many draws at once.

    `os.urandom` lets go of the interpreter's lock, and beside a busy SQLite thread getting it back costs more than the
    bytes do: with one call for every draw, a cycle took 0.81 instead of 0.73 CPU ms (benchmarks/cycle.py; medians of
    six interleaved rounds, two cores). A pool belongs to one engine and its loop, which no fork survives.
    """

    SIZE = 32  # bytes of a draw
    SUPPLY = 256  # draws that one call fetches

    def __init__(self) -> None:
        self._draws: list[bytes] = []

    def draw(self) -> bytes:
        """Return 32 random bytes that were never returned before."""
        if not self._draws:
            fetched = os.urandom(self.SIZE * self.SUPPLY)
            self._draws = [fetched[at : at + self.SIZE] for at in range(0, len(fetched), self.SIZE)]
        return self._draws.pop()
