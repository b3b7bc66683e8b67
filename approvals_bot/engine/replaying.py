"""Replays on a thread of their own, under a deadline: a body that spins is stopped and named, and holds up nobody."""

from __future__ import annotations

import asyncio
import ctypes
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.events import Log
from approvals_bot.core.loop import ReplayInterrupted
from approvals_bot.core.replay import Outcome, replay
from approvals_bot.engine.limits import ACTIVATION_TIME
from approvals_bot.errors import WorkflowSpinsError

THREADS = 2

PATIENCE = 5
"""On a machine that is busy, a body gets this many times ACTIVATION_TIME on the clock, as long as it computes less."""


class Replayer:
    """Runs `replay` off the event loop."""

    def __init__(self, link: Callable[[str], str]) -> None:
        self._link = link
        self._threads = _threads()

    async def replay(self, workflow: Workflow[Any, Any], log: Log, entropy: bytes) -> Outcome:
        """WorkflowSpinsError if the body computes for longer than ACTIVATION_TIME; else as `replay`."""
        watched = _Watched()
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, watched.run, lambda: replay(workflow, log, entropy=entropy, link=self._link)
        )
        if not (await asyncio.wait([future], timeout=ACTIVATION_TIME))[0]:
            while not future.done() and watched.seconds < ACTIVATION_TIME:  # it had to wait for a thread
                await asyncio.wait([future], timeout=ACTIVATION_TIME - watched.seconds)
            watched.interrupt()
            if not (await asyncio.wait([future], timeout=ACTIVATION_TIME / 4))[0]:
                # It is in C code, or swallows the exception: leave it that thread, and let the others have new ones.
                self._threads.shutdown(wait=False)
                self._threads = _threads()
                raise _spins(workflow)
        try:
            return future.result()
        except ReplayInterrupted:
            raise _spins(workflow) from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Watched:
    """One call on a thread of a pool, which can be interrupted from outside: as long as it runs, and not a moment
    longer, since the thread belongs to others afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_interrupted = False
        self._began = math.inf
        self._computed: Callable[[], float] = lambda: math.inf

    @property
    def seconds(self) -> float:
        """How long it has computed; a body that waits without computing counts a fifth of that."""
        elapsed = max(0.0, time.monotonic() - self._began)
        return min(elapsed, max(self._computed(), elapsed / PATIENCE))

    def run(self, call: Callable[[], Outcome]) -> Outcome:
        self._thread = threading.get_ident()
        self._began = time.monotonic()
        try:
            return call()
        finally:
            with self._lock:
                self._thread = None
            if self._is_interrupted:
                self._let_it_arrive()

    def interrupt(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._is_interrupted = True
                _raise_in(self._thread, ReplayInterrupted)

    def _let_it_arrive(self) -> None:
        """An exception that was asked for at the last moment comes within a few bytecodes. (It could be taken back,
        but CPython 3.11 then keeps all threads looking for it for ever, and hangs under a profiler.)"""
        with suppress(ReplayInterrupted):
            for _ in range(10_000):
                pass


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """CPython's own way to raise in another thread. It is delivered between two bytecodes."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="replay")


def _spins(workflow: Workflow[Any, Any]) -> WorkflowSpinsError:
    return WorkflowSpinsError(
        f"The workflow {workflow.name!r} computed for more than {ACTIVATION_TIME:g} s without waiting. "
        "Move the computation into a @step."
    )
