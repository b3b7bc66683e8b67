"""Replays under a deadline: a body that spins is stopped and named, and holds up nobody.

Nearly all take a fraction of a millisecond, less than a thread costs; so each is tried on the event loop first, and
only one that takes longer goes to a thread.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events as asyncio_events
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.commands import End
from approvals_bot.core.events import Log
from approvals_bot.core.loop import ReplayInterrupted, context_of_run
from approvals_bot.core.replay import Outcome, replay
from approvals_bot.engine.interrupting import Interruptible, Watchdog
from approvals_bot.engine.limits import ACTIVATION_TIME
from approvals_bot.errors import WorkflowSpinsError

INLINE_TIME = 1.0
"""Seconds of computing that a replay may hold up the event loop: once for a body that spins. (The first replay of a
workflow builds the validators of its types, and may take a tenth of that.)"""

INLINE_EVENTS = 64
"""A longer log goes to a thread at once: a few milliseconds of an event loop are everybody's."""

THREADS = 2

PATIENCE = 5
"""On a machine that is busy, a body gets this many times ACTIVATION_TIME on the clock, as long as it computes less."""


class Replayer:
    """Runs `replay`, on the event loop or off it."""

    def __init__(self, link: Callable[[str], str]) -> None:
        self._link = link
        self._watchdog = Watchdog(INLINE_TIME)
        self._threads = _threads()
        self._slow: set[str] = set()  # workflows that had to be interrupted once

    async def replay(self, workflow: Workflow[Any, Any], log: Log, entropy: bytes) -> Outcome:
        """WorkflowSpinsError if the body computes for longer than ACTIVATION_TIME; else as `replay`."""

        def call() -> Outcome:
            return replay(workflow, log, entropy=entropy, link=self._link)

        return self.at_once(workflow, log, entropy) or await self._in_thread(call, workflow)

    def at_once(self, workflow: Workflow[Any, Any], log: Log, entropy: bytes) -> Outcome | None:
        """On the event loop. None: it takes too long for that."""
        if len(log) > INLINE_EVENTS or workflow.code in self._slow:
            return None
        try:
            outcome = self._inline(lambda: replay(workflow, log, entropy=entropy, link=self._link))
        except ReplayInterrupted:
            self._slow.add(workflow.code)
            return None  # a replay has no effects, so it can begin again elsewhere
        return None if _may_be_a_signal(outcome) else outcome

    def close(self) -> None:
        self._watchdog.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _inline(self, call: Callable[[], Outcome]) -> Outcome:
        around, hooks = asyncio.get_running_loop(), sys.get_asyncgen_hooks()
        try:
            return self._watchdog.run(call)
        except ReplayInterrupted:
            # It may have come while the replay was tidying up after itself.
            asyncio_events._set_running_loop(around)
            sys.set_asyncgen_hooks(*hooks)
            context_of_run.set(None)
            raise

    async def _in_thread(self, call: Callable[[], Outcome], workflow: Workflow[Any, Any]) -> Outcome:
        watched = Interruptible()

        def watched_call() -> Outcome:
            _ = watched.computed  # its processor time is counted from here on
            return call()

        future = asyncio.get_running_loop().run_in_executor(self._threads, watched.run, watched_call)
        if not (await asyncio.wait([future], timeout=ACTIVATION_TIME))[0]:
            while not future.done() and (left := ACTIVATION_TIME - _used(watched)) > 0:
                await asyncio.wait([future], timeout=left)
            for _ in range(3):
                watched.interrupt()
                if (await asyncio.wait([future], timeout=ACTIVATION_TIME / 10))[0]:
                    break
            else:
                # It is in C code, or swallows the exception: leave it that thread, and let the others have new ones.
                self._threads.shutdown(wait=False)
                self._threads = _threads()
                raise _spins(workflow)
        try:
            return future.result()
        except ReplayInterrupted:
            raise _spins(workflow) from None


def _may_be_a_signal(outcome: Outcome) -> bool:
    """Whether the body was ended by what Ctrl-C raises on this thread, at whatever it does just then. In another thread
    it shows whether the body raised it itself."""
    end = outcome.commands[-1] if outcome.ended else None
    return isinstance(end, End) and end.data.get("error", {}).get("type") in ("KeyboardInterrupt", "SystemExit")


def _used(watched: Interruptible) -> float:
    """How much of its time a body has used: what it has computed; and if it waits without computing, a fifth of that.
    Nothing while it waits for a thread."""
    return min(watched.elapsed, max(watched.computed, watched.elapsed / PATIENCE))


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="replay")


def _spins(workflow: Workflow[Any, Any]) -> WorkflowSpinsError:
    return WorkflowSpinsError(
        f"The workflow {workflow.name!r} computed for more than {ACTIVATION_TIME:g} s without waiting. "
        "Move the computation into a @step."
    )
