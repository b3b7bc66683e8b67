"""An event loop in virtual time that several simulated processes share.

Within a process callbacks run in the order in which they became ready, as asyncio promises; between processes the seed
chooses. A seed may also ask for more disorder than asyncio allows: then it chooses within a process, too.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Process:
    """Tasks that die together. A stalled process (SIGSTOP, a paused machine) runs nothing until it resumes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Turn] = deque()
        self.tasks: list[asyncio.Task[Any]] = []  # strong references: nothing of a dead process may run `finally`
        self.is_stalled = False
        self.is_dead = False
        self.context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process] = ContextVar("simulated process")


class Turn:
    """A callback that is to run: what asyncio calls a handle, timers included."""

    __slots__ = ("_args", "_at", "_callback", "context", "is_cancelled", "process")

    def __init__(self, callback: Callable[..., object], args: Any, context: Context, at: float = 0.0) -> None:
        self._callback = callback
        self._args = args
        self._at = at
        self.context = context
        self.process = context[_process]
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._at

    def take(self) -> None:
        self.context.run(self._callback, *self._args)


MOST_TURNS = 100_000
"""At one moment. More, and somebody spins."""


class StandstillError(Exception):
    """Nothing is left to do, but the simulation isn't over."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time stops while any process is ready, and then jumps to the next timer."""

    def __init__(self, random: Random, *, shuffled: bool = False) -> None:
        super().__init__()
        self.outside = Process("outside")  # people, and the faults: never dies
        self.processes = [self.outside]  # that live
        self._born_processes = [self.outside]
        self.failure: BaseException | None = None  # ends the simulation
        self._random = random
        self._shuffled = shuffled
        self._now = 0.0
        self._timers: list[tuple[float, float, int, Turn]] = []
        self._born = 0
        self._turns = 0  # since time has moved
        self.is_over = False

    # ── what asyncio asks of a loop ──

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        turn = Turn(callback, args, context if context is not None else copy_context())
        if not self.is_over:
            turn.process.ready.append(turn)
        return turn

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        turn = Turn(callback, args, context if context is not None else copy_context(), when)
        if not self.is_over:
            self._born += 1
            # Of two timers for one moment the seed chooses the first.
            heapq.heappush(self._timers, (when, self._random.random(), self._born, turn))
        return turn

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        (context if context is not None else copy_context())[_process].tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self.is_over and self.failure is None:
            self.failure = error if error is not None else RuntimeError(context["message"])

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        raise RuntimeError("a thread in the simulation")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError("a thread in the simulation")

    # ── playing ──

    def play(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until `main` has ended, then drop every process."""
        around = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task: asyncio.Task[T] = self.outside.context.copy().run(self.create_task, main)
            while not task.done() and self.failure is None:
                self._turn()
            if self.failure is not None:
                raise self.failure
            return task.result()
        finally:
            self._throw_away()
            asyncio._set_running_loop(around)
            self.close()

    def join(self, process: Process) -> None:
        self.processes.append(process)
        self._born_processes.append(process)

    def bury(self, process: Process) -> None:
        """Remove a process; none of its callbacks run any more."""
        process.is_dead = True
        process.ready.clear()
        self.processes.remove(process)

    def _turn(self) -> None:
        able = [process for process in self.processes if process.ready and not process.is_stalled]
        if not able:
            self._wake()
            return
        ready = (able[0] if len(able) == 1 else able[int(self._random.random() * len(able))]).ready
        if self._shuffled and len(ready) > 1:
            ready.rotate(int(self._random.random() * len(ready)))
        turn = ready.popleft()
        if not turn.is_cancelled:
            turn.take()
        self._turns += 1
        if self._turns > MOST_TURNS:
            raise StandstillError(f"somebody spins: {turn._callback}")

    def _wake(self) -> None:
        """Move on to the next moment for which anybody has planned something."""
        timers, is_first = self._timers, True
        while timers and (is_first or timers[0][0] <= self._now):
            when, _, _, turn = heapq.heappop(timers)
            if turn.is_cancelled or turn.process.is_dead:
                continue
            if when > self._now:
                self._now, self._turns = when, 0
            turn.process.ready.append(turn)
            is_first = False
        if is_first:
            raise StandstillError

    def _throw_away(self) -> None:
        self.is_over = True
        for process in self.processes:
            process.ready.clear()
        self._timers.clear()
        for process in reversed(self._born_processes):
            process.context.run(_discard, process.tasks)


def virtual_loop() -> VirtualLoop:
    """Return the running loop of a simulated world."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def _discard(tasks: list[asyncio.Task[Any]]) -> None:
    """Drop suspended tasks, the youngest first, so that the garbage collector has nothing to say about them."""
    for task in reversed(tasks):
        if not task.done():
            task._log_destroy_pending = False
            with suppress(BaseException):
                task.get_coro().close()
    tasks.clear()
