"""Threads for steps written as `def`: one thread for each attempt, which nothing else waits for.

asyncio's own threads (`asyncio.to_thread`) are few, look up hosts as well, and are waited for when the process ends. A
step that blocks would hold up all of that. These are daemon threads: they end with the process, whatever they do.

Some libraries are imported in a thread, too, since that takes a second: see `import_alone`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from importlib import import_module
from threading import RLock, Thread
from types import ModuleType
from typing import Any, TypeVar

from approvals_bot.errors import FatalError

R = TypeVar("R")

NO_THREAD = 1.0
"""Seconds until the next try when the system gives us no more threads. Until then the call hasn't begun."""


_IMPORTING = RLock()


def import_alone(name: str) -> ModuleType:
    """Import a module while no other thread imports one by this function.

    A library that is imported in a thread is imported by it everywhere. Two threads that enter a package by different
    modules may each hold what the other waits for. Python then passes one of them a half-imported module, and what
    comes of that is an ImportError.
    """
    with _IMPORTING:
        return import_module(name)


class Threaded(Awaitable[R]):
    """A call in a thread of its own. Awaiting it gives the result; cancelling that leaves the thread running."""

    def __init__(self, function: Callable[..., R], args: Any, kwargs: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = copy_context()
        self.began_at: asyncio.Future[float] = self._loop.create_future()  # seconds of the monotonic clock
        self.result: asyncio.Future[R] = self._loop.create_future()
        self.is_over = True  # no thread is running it
        self.when_over: Callable[[], None] | None = None

    async def begin(self) -> float:
        """Start the thread, and return when it began. Waits for as long as the system has no thread."""
        while True:
            thread = Thread(target=self._run, name=f"step {self._function.__name__}", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                await asyncio.sleep(NO_THREAD)
            else:
                self.is_over = False
                return await self.began_at

    def __await__(self) -> Any:
        return self.result.__await__()

    def _run(self) -> None:
        self._report(self._has_begun, time.monotonic())
        try:
            result = self._context.run(self._function, *self._args, **self._kwargs)
            if inspect.isawaitable(result):
                raise _not_awaited(self._function.__name__, result)
        except StopIteration as error:
            # A future can't hold it: the caller that awaits it would never wake up. (PEP 479 does the same.)
            raised = RuntimeError(f"{self._function.__name__}() raised StopIteration")
            raised.__cause__ = error
            self._report(self._has_ended, self.result.set_exception, raised)
        except BaseException as error:  # noqa: BLE001  # whatever it raises is its outcome
            self._report(self._has_ended, self.result.set_exception, error)
        else:
            self._report(self._has_ended, self.result.set_result, result)

    def _report(self, call: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(call, *args)

    def _has_begun(self, at: float) -> None:
        if not self.began_at.done():
            self.began_at.set_result(at)

    def _has_ended(self, settle: Callable[[Any], None], outcome: Any) -> None:
        self.is_over = True
        if not self.result.done():
            settle(outcome)
        if self.when_over is not None:
            self.when_over()


def _not_awaited(name: str, result: Any) -> FatalError:
    if inspect.iscoroutine(result):
        result.close()  # Python would warn of it
    return FatalError(
        f"{name}() is a plain `def`, but returned a {type(result).__name__}, which nobody awaits. Make it an "
        f"`async def {name}(…)`, and `await` the call in it."
    )


async def call_in_thread(function: Callable[..., R], args: Any, kwargs: Any) -> R:
    """Call a function in a thread of its own, and return its result."""
    call = Threaded(function, args, kwargs)
    await call.begin()
    result: R = await call
    return result
