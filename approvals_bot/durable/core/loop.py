"""The event loop of workflows: plain asyncio, but only events from the log make progress.

It implements as much of `asyncio.AbstractEventLoop` as asyncio's own primitives need. Sockets, threads, processes and
signals raise at once. The run keeps and records the timers, which makes `asyncio.sleep`, `asyncio.timeout` and
`asyncio.wait_for` durable as they are.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any, Protocol

from approvals_bot.errors import BlockedInWorkflowError, WorkflowSpinsError

MAX_CALLBACKS = 100_000
"""Callbacks between two events. A body that needs more is spinning: `while True: await asyncio.sleep(0)`."""

NEVER = datetime.max.replace(tzinfo=UTC).timestamp()
"""A timer for this time or later, such as that of `anyio.sleep_forever()`, never fires and isn't recorded."""

MAX_AWAITS_ON_THE_WAY_OUT = 100
"""Awaits that each task of a run that is thrown away may reach in its `finally` blocks; all of them raise at once."""


class RunThrownAway(BaseException):
    """Raised where a run waits when it is thrown away. It never reaches the log.

    `coroutine.close()` would raise GeneratorExit there, but in front of a `finally` that awaits, Python replaces that
    with a RuntimeError in the callers, whose `except Exception` would then run.
    """


class ContinuesAsNew(BaseException):
    """Raised by `continue_as_new` to end the body. No `except Exception` catches it, and `finally` blocks run."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__("the run continues as a new one")
        self.given = (args, kwargs)


def is_continuation(error: BaseException | None) -> bool:
    """Return whether this error of a body is no more than the end that it asked for. A TaskGroup wraps that."""
    match error:
        case None | ContinuesAsNew():
            return True
        case BaseExceptionGroup(exceptions=members):
            return all(is_continuation(member) for member in members)
        case _:
            return False


class ReplayInterrupted(KeyboardInterrupt):
    """Thrown by the watchdog into a replay that takes too long.

    asyncio's tasks let only KeyboardInterrupt and its subclasses through, and an author's `except Exception` doesn't
    catch them.
    """


class Timers(Protocol):
    """The part of a run that its loop needs: it keeps and records the timers."""

    def start_timer(
        self, when: float, delay: float | None, callback: Callable[..., object], fire: Callable[[], None]
    ) -> int: ...
    def cancel_timer(self, number: int) -> None: ...
    def fails_unseen(self, what: str, error: BaseException, *, is_late: bool) -> None: ...


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number of birth.

    asyncio's own tasks hash by address, so a set of them has a different order in each process; `TaskGroup` and
    `asyncio.wait` iterate over such sets.
    """

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, birth: int, context: contextvars.Context, **options: Any
    ) -> None:
        self.birth = birth  # before the base class puts this task into a set
        self.context = context  # asyncio's own tasks hide theirs before Python 3.12
        super().__init__(coro, context=context, **options)

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
            asyncio.Handle.cancel(self)  # TimerHandle.cancel would call a method for a heap that this loop doesn't have
            loop: WorkflowLoop = self._loop  # type: ignore[attr-defined]  # the loop is always ours
            if not loop.closing:
                loop.timers.cancel_timer(self.number)


class AtOnce(Executor):
    """An executor whose functions run where a workflow hands them in, instead of in a thread.

    It is for libraries that run every plain function in an executor. The functions have to be as pure as the body.
    """


class WorkflowLoop(asyncio.AbstractEventLoop):
    """An event loop that runs callbacks until none is ready. `deliver` sets `now`, in seconds since 1970."""

    def __init__(self, timers: Timers) -> None:
        self.now = 0.0
        self.closing = False
        self.unhandled: list[BaseException] = []
        self.timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._births = 0
        self._tasks: dict[int, _Task] = {}  # strong references to those that aren't done, by birth
        self.failed: list[weakref.ref[_Task]] = []  # tasks that failed; most of them are awaited soon

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
        """Set a timer as `asyncio.timeout` does: a length of time, counted from the last event like all others."""
        return self._timer(when, when - self.now, callback, args, context)

    def call_at_instant(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Set a timer for a point in time, however late it is asked for."""
        return self._timer(when, None, callback, args, None)

    def _timer(
        self, when: float, delay: float | None, callback: Callable[..., object], args: Any, context: Any
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        if when >= NEVER:
            timer.number = 0  # commands are numbered from 1
        else:
            timer.number = self.timers.start_timer(when, delay, callback, lambda: self._ready.append(timer))
        return timer

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        self._births += 1
        return _Future(birth=self._births, loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **options: Any) -> Any:
        self._births += 1
        context = contextvars.copy_context() if context is None else context
        task = _Task(coro, birth=self._births, loop=self, name=name or f"task-{self._births}", context=context)
        self._tasks[task.birth] = task
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: _Task) -> None:
        """Let go of a task. If it failed and nobody else holds it, asyncio reports it as it is freed."""
        self._tasks.pop(task.birth, None)
        if task._log_traceback:  # it failed, and nobody has looked at its error
            self.failed.append(weakref.ref(task))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        if not isinstance(executor, AtOnce):
            raise BlockedInWorkflowError("A workflow can't use run_in_executor(): do that in a @step.")
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # for the one that awaits the call
            future.set_exception(error)
        return future

    # Questions about the loop itself, with no effect. Libraries ask them: anyio wants to know the task factory.

    slow_callback_duration = 0.1  # seconds; asyncio's default, and without debug mode nothing looks at it

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what a callback raised. A task that failed unseen is no error of the run, but it is logged."""
        exception = context.get("exception")
        if exception is None or self.closing:
            return
        if "handle" in context:
            self.unhandled.append(exception)
        else:
            self._failed_unseen(context.get("task") or context.get("future"), exception)

    def report_failed(self) -> None:
        """Log the tasks that failed and that nothing has awaited, now that the body has ended."""
        for each in self.failed:
            task = each()
            if task is not None and task._log_traceback and (error := task.exception()) is not None:
                self._failed_unseen(task, error)

    def _failed_unseen(self, failed: Any, error: BaseException) -> None:
        what = f"task {failed.get_name()!r}" if isinstance(failed, asyncio.Task) else "a future"
        # Python may free a task that is part of a reference cycle at any time.
        self.timers.fails_unseen(what, error, is_late=asyncio._get_running_loop() is not self)

    # ── what the replay asks ──

    def run_until_idle(self) -> None:
        """Run ready callbacks, and those they make ready, until none is left."""
        budget = MAX_CALLBACKS
        while self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()
            del handle  # an error's traceback may hold this frame, and so the failed task that nobody else holds
            budget -= 1
            if not budget:
                raise WorkflowSpinsError(
                    f"The workflow made {MAX_CALLBACKS:,} steps of its own without waiting for anything. "
                    "Wait for a step, a hook or a sleep in its loop."
                )

    def throw_away(self) -> None:
        """Drop a suspended run: make each task leave its coroutine, the youngest first.

        Only `finally` blocks run, and their commands are ignored.
        """
        self.closing = True
        self._ready.clear()
        while self._tasks:  # a `finally` may create tasks
            task = self._tasks.popitem()[1]
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._throw_out(task)
        self._ready.clear()
        del self.timers  # breaks the reference cycle with the run; no timer is set after this

    def _throw_out(self, task: _Task) -> None:
        """Make a suspended task leave its coroutine, as that task and in its context.

        A `finally` may ask for the current task: the scopes of anyio do, and complain if it isn't the one that entered
        them.
        """
        coroutine: Any = task.get_coro()
        asyncio.tasks._enter_task(self, task)
        try:
            for _ in range(MAX_AWAITS_ON_THE_WAY_OUT):
                task.context.run(coroutine.throw, RunThrownAway())
        except ReplayInterrupted:
            raise
        except BaseException:  # noqa: BLE001, S110  # it has left, with whatever its `finally` raised or returned
            pass
        finally:
            asyncio.tasks._leave_task(self, task)

    def first_iteration(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Do nothing: asyncio would register the new async generator here for shutdown."""

    def finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close an async generator that was dropped half-way, on this loop."""
        if not self.closing:
            self.create_task(generator.aclose())


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
