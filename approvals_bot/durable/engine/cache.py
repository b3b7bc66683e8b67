"""The run cache: paused runs that this process worked on last, with their logs and replays.

A paused run needs nothing but its rows in the store. But most runs are resumed soon, by the process that paused them;
if the run is cached, that takes neither reading its log nor a new replay (most of the cost, see benchmarks/cycle.py).
A cached run may be out of date. That is safe because logs only grow: each write compares the log's length and the
epoch.
"""

from __future__ import annotations

from collections.abc import Callable

from approvals_bot.durable.core.events import Log
from approvals_bot.durable.core.lines import Lines
from approvals_bot.durable.core.serialization import json_text
from approvals_bot.durable.engine.batch import LogIndex, seen_before
from approvals_bot.durable.engine.limits import CACHED_RUNS, CACHED_SIZE
from approvals_bot.durable.engine.replayer import Replayed
from approvals_bot.durable.store.protocol import HookRow, RunRecord

Entropy = Callable[[], bytes]


class CachedRun:
    """A run as this process last saw it: its row, its log, and the replay of that log.

    `epoch` is that of its last claim.
    """

    __slots__ = ("_sized", "_text", "epoch", "index", "lines", "log", "replayed", "row", "size")

    def __init__(self, row: RunRecord, log: Log, epoch: int) -> None:
        self.row = row
        self.log = log
        self.epoch = epoch
        self.index = LogIndex(log)
        self.replayed: Replayed | None = None
        self.lines = Lines()  # of its body, not logged yet
        self.size = self._text = self._sized = 0  # `_text`: characters of the first `_sized` events

    def grow(self, events: Log) -> None:
        """Add events that have been appended to the log."""
        self.log += events
        self.index.add(events)

    def log_lines(self) -> None:
        """Log the lines of events that no replay had seen before. Call it before the log grows."""
        logged = self.lines.logged
        self.lines.log(seen_before(self.row, self.log) if logged is None else logged)

    def measure(self, weight: int) -> int:
        """Return the size of the log, characters of its JSON, and of its replay, which weighs as many more."""
        self._text += len(json_text([event.data for event in self.log[self._sized :]]))
        self._sized = len(self.log)
        self.size = self._text + weight
        return self.size

    def close(self) -> None:
        """Throw away the body, wherever it waits."""
        if self.replayed is not None:
            self.replayed.close()
            self.replayed = None


class RunCache:
    """The runs that this process released last."""

    def __init__(self) -> None:
        self._runs: dict[str, CachedRun] = {}  # the oldest first
        self._size = 0  # of them all
        self._by_token: dict[str, CachedRun] = {}
        self.by_hook: dict[str, CachedRun] = {}

    def add(self, run: CachedRun) -> None:
        self.forget(run.row.id)
        if run.replayed is None or run.measure(run.replayed.weight) > CACHED_SIZE:
            run.close()
            return
        self._runs[run.row.id] = run
        self._size += run.size
        for created in run.index.hooks.values():
            self._by_token[created.data["token"]] = self.by_hook[created.data["hook_id"]] = run
        while len(self._runs) > CACHED_RUNS or self._size > CACHED_SIZE:
            self.forget(next(iter(self._runs)))

    def take(self, run_id: str) -> CachedRun | None:
        """Remove this run from the cache and return it. The caller owns it from now on and closes it."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._size -= run.size
            for created in run.index.hooks.values():
                self.by_hook.pop(created.data["hook_id"], None)
                if self._by_token.get(created.data["token"]) is run:  # a freed token may belong to another run now
                    del self._by_token[created.data["token"]]
        return run

    def forget(self, run_id: str) -> None:
        run = self.take(run_id)
        if run is not None:
            run.close()

    def by_token(self, token: str) -> tuple[CachedRun, HookRow] | None:
        """Return the cached run that waits on this token, and its hook."""
        run = self._by_token.get(token)
        if run is None:
            return None
        created = next(event for event in run.index.hooks.values() if event.data["token"] == token)
        return run, HookRow.of(run.row.id, created)

    def close(self) -> None:
        for run_id in list(self._runs):
            self.forget(run_id)
