"""Replays on a thread of their own, under a deadline: a body that spins is stopped and named, and holds up nobody."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.events import Log
from approvals_bot.core.replay import Outcome, replay
from approvals_bot.engine.limits import ACTIVATION_TIME
from approvals_bot.errors import WorkflowSpinsError


class _Stop(BaseException):
    """Thrown into a thread whose replay takes too long."""


class Replayer:
    """Runs `replay` off the event loop."""

    def __init__(self, link: Callable[[str], str]) -> None:
        self._link = link
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="replay")

    async def replay(self, workflow: Workflow[Any, Any], log: Log, entropy: bytes) -> Outcome:
        """WorkflowSpinsError if the body computes for longer than ACTIVATION_TIME; else as `replay`."""
        thread: list[int] = []

        def work() -> Outcome:
            thread.append(threading.get_ident())
            try:
                return replay(workflow, log, entropy=entropy, link=self._link)
            except _Stop:
                raise WorkflowSpinsError(
                    f"The workflow {workflow.name!r} computed for more than {ACTIVATION_TIME:g} s without waiting. "
                    "Move the computation into a @step."
                ) from None

        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        while True:
            done, _ = await asyncio.wait([future], timeout=ACTIVATION_TIME)
            if done:
                return future.result()
            if thread:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread[0]), ctypes.py_object(_Stop))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
