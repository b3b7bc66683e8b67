"""The event loop that workflows run on: plain asyncio, but nothing moves unless the log says so.

It implements `asyncio.AbstractEventLoop` only as far as asyncio's own primitives need it. Sockets, threads, processes
and signals raise at once. Timers aren't kept here: they are asked of the run, which records them, so `asyncio.sleep`,
`asyncio.timeout` and `asyncio.wait_for` are durable without a word of ours.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol

from approvals_bot.errors import BlockedInWorkflowError, WorkflowSpinsError

MAX_CALLBACKS = 100_000
"""Callbacks between two events. A body that needs more spins, for example `while True: await asyncio.sleep(0)`."""


class ReplayInterrupted(KeyboardInterrupt):
    """Thrown into a replay that takes too long, by whoever watches it. asyncio lets only this family of exceptions
    through its tasks, and an author's `except Exception` doesn't catch it."""


class Timers(Protocol):
    """Who records timers: the run."""

    def start_timer(
        self, when: float, delay: float | None, callback: Callable[..., object], fire: Callable[[], None]
    ) -> int: ...
    def cancel_timer(self, number: int) -> None: ...


class _Task(asyncio.Task[Any]):
    """Tasks hash by birth: stock ones hash by address, so a set of them has another order in another process, and
    `TaskGroup` and `asyncio.wait` walk sets."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, birth: int, **options: Any) -> None:
        self.birth = birth  # before the base class puts this task into a set
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.birth


class _Future(asyncio.Future[Any]):
    def __init__(self, *, birth: int, loop: asyncio.AbstractEventLoop) -> None:
        self.birth = birth
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.birth


class _Timer(asyncio.TimerHandle):
    """A timer that the run keeps."""

    number: int

    def cancel(self) -> None:
        if not self.cancelled():
            asyncio.Handle.cancel(self)  # a TimerHandle's would tell the loop of a heap that ours doesn't have
            loop: WorkflowLoop = self._loop  # type: ignore[attr-defined]  # the loop is always ours
            if not loop.closing:
                loop.timers.cancel_timer(self.number)


class WorkflowLoop(asyncio.AbstractEventLoop):
    """Runs callbacks until none is ready. `now` (seconds since 1970) is set by whoever delivers events."""

    def __init__(self, timers: Timers) -> None:
        self.now = 0.0
        self.closing = False
        self.unhandled: list[BaseException] = []
        self.timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._births = 0
        self._tasks: list[_Task] = []  # strong references, in order of birth

    # ── what asyncio asks of a loop ──

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle = asyncio.Handle(callback, args, self, context)
        if not self.closing:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self._timer(self.now + delay, delay, callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """How `asyncio.timeout` asks: a length of time, counted from the last event like every other."""
        return self._timer(when, when - self.now, callback, args, context)

    def call_at_instant(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """A moment of the calendar, however late it was asked for."""
        return self._timer(when, None, callback, args, None)

    def _timer(
        self, when: float, delay: float | None, callback: Callable[..., object], args: Any, context: Any
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        timer.number = self.timers.start_timer(when, delay, callback, lambda: self._ready.append(timer))
        return timer

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        self._births += 1
        return _Future(birth=self._births, loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **options: Any) -> Any:
        self._births += 1
        task = _Task(coro, birth=self._births, loop=self, name=name or f"task-{self._births}", context=context)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback raised. A task that failed unseen, or that we threw away, is not an error of the run."""
        exception = context.get("exception")
        if exception is not None and not self.closing and "handle" in context:
            self.unhandled.append(exception)

    # ── what the replay asks ──

    def run_until_idle(self) -> None:
        """Run whatever is ready, and what that makes ready, until nothing is."""
        budget = MAX_CALLBACKS
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
            budget -= 1
            if not budget:
                raise WorkflowSpinsError(
                    f"The workflow made {MAX_CALLBACKS:,} steps of its own without waiting for anything. "
                    "Wait for a step, a hook or a sleep in its loop."
                )

    def throw_away(self) -> None:
        """Drop a suspended run: close every coroutine, the youngest first.

        Only `finally` runs, and asks for nothing.
        """
        self.closing = True
        self._ready.clear()
        for task in reversed(self._tasks):
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._tasks.clear()
        self._ready.clear()
        del self.timers  # the run points at us, and nobody asks for a timer any more

    def first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was started; nothing to remember, its finaliser is the next method."""

    def finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was dropped half-way: close it on this loop, not on the one around us."""
        if not self.closing:
            self.create_task(generator.aclose())


def _close(coroutine: Any) -> None:
    try:
        coroutine.close()
    except ReplayInterrupted:
        raise
    except BaseException:  # noqa: BLE001, S110  # the log never sees it:
        pass  # it awaited in `finally`, an author's `finally` raised, or a TaskGroup packed GeneratorExit into a group


def _forbid(name: str) -> Callable[..., Any]:
    def forbidden(self: WorkflowLoop, *args: Any, **options: Any) -> Any:
        raise BlockedInWorkflowError(f"A workflow can't use {name}(): do that in a @step.")

    forbidden.__name__ = name
    return forbidden


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in WorkflowLoop.__dict__:
        setattr(WorkflowLoop, _name, _forbid(_name))

context_of_run: contextvars.ContextVar[Any] = contextvars.ContextVar("approvals_bot_run")
"""The run whose body is executing, for the authoring functions."""
