"""Stopping Python code from outside: one call on one thread, as long as it runs, and not a moment longer."""

from __future__ import annotations

import ctypes
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from approvals_bot.durable.core.loop import ReplayInterrupted

P = ParamSpec("P")
T = TypeVar("T")


class Interruptible:
    """Makes calls, one after the other, that `interrupt` ends with ReplayInterrupted, whichever thread they run on. The
    thread belongs to others before and after, so nothing may arrive there late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False
        self._began = math.inf
        self._calls = 0
        self._looked_at = 0  # the call for which the next was read
        self._computed_before = 0.0  # by this thread, when somebody first looked at the call

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the last call began; 0 before the first."""
        return max(0.0, time.monotonic() - self._began)

    @property
    def computed(self) -> float:
        """Seconds of processor time that the call has used since this was first asked during it; infinite where that
        can't be known. (Asked, not kept for every call: reading that clock can take longer than a replay.)"""
        with self._lock:
            return self._computed()

    def run(self, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        try:
            with self._lock:
                self._is_interrupted = False
                self._calls += 1
                self._began = time.monotonic()
                self._thread = threading.get_ident()
            try:
                return call(*given, **named)
            finally:
                self._end()
        except ReplayInterrupted:
            self._end_undisturbed()  # it may have come in the midst of the first attempt to end
            raise

    def interrupt(self, beyond: float = 0.0) -> None:
        """Only while it runs, and has computed for more than so many seconds. One interruption may be lost (in a
        finalizer, Python ignores exceptions): repeat it."""
        with self._lock:
            if self._thread is not None and min(self.elapsed, self._computed()) >= beyond:
                self._is_interrupted = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(ReplayInterrupted)
                )

    def _computed(self) -> float:
        if self._thread is None:
            return math.inf
        used = _processor_time(self._thread)
        if self._looked_at != self._calls:
            self._looked_at, self._computed_before = self._calls, 0.0 if math.isinf(used) else used
        return used - self._computed_before

    def _end(self) -> None:
        with self._lock:
            self._thread = None
        if self._is_interrupted:
            # An exception that was asked for at the last moment comes within a few bytecodes. (It could be taken
            # back, but CPython 3.11 then keeps all threads looking for it for ever, and hangs under a profiler.)
            with suppress(ReplayInterrupted):
                for _ in range(10_000):
                    pass

    def _end_undisturbed(self) -> None:
        while True:
            try:
                return self._end()
            except ReplayInterrupted:
                continue


def _processor_time(thread: int) -> float:
    """Seconds of processor time that this thread has used since it began."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return math.inf
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


class Watchdog:
    """Interrupts what computes for longer than `limit` seconds on the event loop's thread. It looks a few times in that
    time, and sleeps while nothing has been watched for a second.

    What counts is processor time: on a busy machine the shortest call may last long, and must not be interrupted for
    that. (An interruption that meets the callback of a weak reference is printed and lost, then the next one comes.)
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
        """ReplayInterrupted if it takes too long. Calls don't nest."""
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
                if self._is_idle():  # still: whoever comes from now on sees that we sleep
                    self._wake.wait()
            # Looking at it begins the count; so a body has a quarter more than its limit at the most.
            if self._watched.is_running and self._watched.computed > self._limit:
                self._watched.interrupt(beyond=self._limit)
            self._closed.wait(self._limit / 4)
