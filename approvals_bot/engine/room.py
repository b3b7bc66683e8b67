"""How many runs one process works on at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager

from approvals_bot.core.current import step_context
from approvals_bot.engine.limits import MAX_ACTIVE


class Room:
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
