"""Slots: how many runs a process works on at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager

from approvals_bot.durable.core.context import step_context
from approvals_bot.durable.engine.limits import MAX_ACTIVE


class Slots:
    """The slots of a process: one for each of the MAX_ACTIVE runs that it works on at a time.

    A run whose step waits for another run gives up its slot for that time. Otherwise such runs could take all slots,
    and the runs that they wait for would never begin.
    """

    def __init__(self, active: Sized, freed: Callable[[], None]) -> None:
        """`freed` is called when a slot becomes free."""
        self._active = active
        self._freed = freed
        self._waiting: Counter[str] = Counter()  # number of waits for other runs, by the run whose steps wait

    @property
    def free(self) -> int:
        """The number of runs that this process can still take."""
        return MAX_ACTIVE - len(self._active) + len(self._waiting)

    def rest(self, run_id: str, only_waits: bool) -> None:
        """Give up this run's slot while it only waits, and claim it again."""
        self._waiting[run_id] += 1 if only_waits else -1
        if not self._waiting[run_id]:
            del self._waiting[run_id]
        if only_waits:
            self._freed()

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Give up the calling step's slot, if there is one, while the block waits for another run."""
        context = step_context.get()
        if context is None:
            yield
            return
        run_id = context.workflow.run_id
        self.rest(run_id, True)
        try:
            yield
        finally:
            self.rest(run_id, False)
