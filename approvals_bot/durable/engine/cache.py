"""Runs as this process knows them, and those it has let go of and still remembers.

A paused run costs nothing but its rows. But most are resumed by the process that paused them, and soon; so the last few
are remembered with their replays, and who resumes one of them needs neither its log nor a new replay. What is
remembered may be out of date: a log only grows, so the store can tell by its length, and by the epoch, as it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Log, NewEvent
from approvals_bot.durable.core.replay import ReplayResult
from approvals_bot.durable.engine.batch import Batch, RunStanding, decide, plan
from approvals_bot.durable.engine.limits import REMEMBERED_RUNS, REMEMBERED_SIZE
from approvals_bot.durable.engine.replayer import Replayed, Replayer
from approvals_bot.durable.store.protocol import HookRow, RunRow

Entropy = Callable[[], bytes]


class CachedRun:
    """A run: its row as it was read once, its log, what that says, and the replay that has come as far. `epoch` is that
    of its last claim."""

    __slots__ = ("_size", "_sized", "epoch", "log", "replayed", "row", "schemas", "standing")

    def __init__(self, row: RunRow, log: Log, epoch: int) -> None:
        self.row = row
        self.log = log
        self.epoch = epoch
        self.standing = RunStanding(log)
        self.replayed: Replayed | None = None
        self.schemas: dict[int, Any] | None = None  # of its hooks, by number; None: not replayed yet
        self._size = self._sized = 0  # characters of so many events

    def grow(self, events: Log) -> None:
        """The log says more."""
        self.log += events
        self.standing.add(events)

    def size(self) -> int:
        """Characters of text in the log, and 8 for each of the other values; about."""
        for event in self.log[self._sized :]:
            self._size += _size(event.data)
        self._sized = len(self.log)
        return self._size

    def is_of(self, workflow: Workflow[Any, Any]) -> bool:
        """Whether it has been replayed with this code."""
        return self.replayed is not None and self.replayed.workflow is workflow

    async def replay(
        self, log: Log, workflow: Workflow[Any, Any], replayer: Replayer, entropy: Entropy
    ) -> ReplayResult:
        """Go on to this log, which begins with ours. As `Replayed.outcome`."""
        outcome = await self._replay_of(workflow, replayer, entropy).outcome(log)
        self.schemas = outcome.schemas
        return outcome

    def _replay_of(self, workflow: Workflow[Any, Any], replayer: Replayer, entropy: Entropy) -> Replayed:
        """The replay that goes on; a new one, if there is none yet or the code is another."""
        if self.replayed is None or not self.is_of(workflow):
            self.close()
            self.replayed = replayer.begin(workflow, entropy())
        return self.replayed

    def ahead(
        self,
        fact: NewEvent | None,
        workflow: Workflow[Any, Any] | None,
        replayer: Replayer,
        now: datetime,
        entropy: Entropy,
    ) -> Batch | None:
        """The turn that follows from this fact (None: from the log alone), before that is written. No turn, if it isn't
        plain and quick, or the code isn't here: then it is decided, and told what is wrong, once the write is safe."""
        if workflow is None:
            return None
        try:
            log = self.log if fact is None else plan(self.log, [fact], now)
            outcome = self._replay_of(workflow, replayer, entropy).at_once(log)
            if outcome is None:
                return None
            self.schemas = outcome.schemas
            return decide(self.standing, [], outcome, now)
        except Exception:  # noqa: BLE001  # whatever it is, the run hears of it when it is worked on
            return None

    def close(self) -> None:
        """Throw the body away, wherever it waits."""
        if self.replayed is not None:
            self.replayed.close()
            self.replayed = None


class RunCache:
    """The runs that this process has let go of last."""

    def __init__(self) -> None:
        self._runs: dict[str, CachedRun] = {}  # the oldest first
        self._by_token: dict[str, CachedRun] = {}
        self._by_hook: dict[str, CachedRun] = {}

    def add(self, run: CachedRun) -> None:
        if run.replayed is None or run.size() > REMEMBERED_SIZE:
            run.close()
            return
        self.forget(run.row.id)
        self._runs[run.row.id] = run
        for created in run.standing.hooks.values():
            self._by_token[created.data["token"]] = self._by_hook[created.data["hook_id"]] = run
        if len(self._runs) > REMEMBERED_RUNS:
            self.forget(next(iter(self._runs)))

    def take(self, run_id: str) -> CachedRun | None:
        """This run, for somebody who works on it from now on, and closes it."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            for created in run.standing.hooks.values():
                self._by_hook.pop(created.data["hook_id"], None)
                if self._by_token.get(created.data["token"]) is run:  # it may have been freed, and be another run's
                    del self._by_token[created.data["token"]]
        return run

    def forget(self, run_id: str) -> None:
        run = self.take(run_id)
        if run is not None:
            run.close()

    def of_hook(self, hook_id: str) -> CachedRun | None:
        """The run that has this hook, as far as is known here."""
        return self._by_hook.get(hook_id)

    def by_token(self, token: str) -> tuple[CachedRun, HookRow] | None:
        """The run that waits on this token, as far as is known here, and its hook."""
        run = self._by_token.get(token)
        if run is None:
            return None
        created = next(event for event in run.standing.hooks.values() if event.data["token"] == token)
        return run, HookRow.of(run.row.id, created)

    def close(self) -> None:
        for run_id in list(self._runs):
            self.forget(run_id)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    size = 8
    if isinstance(value, dict):
        for name, item in value.items():
            size += len(name) + _size(item)
    elif isinstance(value, list):
        for item in value:
            size += _size(item)
    return size
