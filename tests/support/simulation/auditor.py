"""Reads along: looks at every commit as it happens, and objects to what may never be written."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from approvals_bot.durable.core.events import ENDINGS, FACTS

MOST_EVENTS = 400
"""No run here needs nearly so many."""


class Violation(AssertionError):
    """A rule was broken."""


class Line(NamedTuple):
    """One line of a log, as it became durable. `at` in microseconds; `wrote`: the process."""

    seq: int
    type: str
    at: int
    data: dict[str, Any]
    wrote: str
    batch: int  # lines of one piece of work have one number


class Change(NamedTuple):
    """What one piece of work did to one run."""

    run_id: str
    epoch: int
    events: list[tuple[int, str, int, str]]


@dataclass
class RunHistory:
    """What the auditor knows of one run, from its log alone."""

    lines: list[Line] = field(default_factory=list)
    epoch: int = 0
    holder: str = ""  # the process whose claim made the epoch
    end: Line | None = None
    hooks: dict[int, str] = field(default_factory=dict)  # open ones, and their tokens
    waits: dict[int, dict[str, Any]] = field(default_factory=dict)  # open ones
    steps: dict[int, int] = field(default_factory=dict)  # open ones, and how often each failed
    once: set[tuple[Any, ...]] = field(default_factory=set)
    cancellation: Line | None = None  # `cancel_requested`


DECISIONS = frozenset({"step_created", "step_started", "hook_created", "hook_conflict", "hook_disposed"}) | {
    "hook_responded", "wait_created", "wait_cancelled", "attributes_set", "run_started", "run_completed", "run_failed",
    "step_cancelled", "run_cancelled",
}  # fmt: skip


class Auditor:
    def __init__(self) -> None:
        self.runs: defaultdict[str, RunHistory] = defaultdict(RunHistory)
        self.tokens: dict[str, tuple[str, int]] = {}  # live ones, and whose they are
        self.waking: set[str] = set()  # runs whose sleeps somebody has asked to end
        self.woken: set[tuple[str, int]] = set()  # sleeps that may have ended by that
        self.takeovers = 0
        self._rows: dict[str, tuple[int, int]] = {}
        self._writes: dict[int, int] = {}
        self._batches = 0

    def look(self, db: sqlite3.Connection) -> list[Change]:
        """What has changed since the last look, in the same transaction."""
        writes = db.total_changes
        if self._writes.get(id(db)) == writes:
            return []
        self._writes[id(db)] = writes
        changes = []
        for run_id, seq, epoch in db.execute("SELECT id, seq, epoch FROM runs").fetchall():
            was = self._rows.get(run_id, (0, 0))
            if was == (seq, epoch):
                continue
            self._rows[run_id] = (seq, epoch)
            events = db.execute(
                "SELECT seq, type, at, data FROM events WHERE run_id = ? AND seq > ? ORDER BY seq", (run_id, was[0])
            ).fetchall()
            changes.append(Change(run_id, epoch, events))
        return changes

    def committed(self, changes: list[Change], process: str, clock: int) -> list[tuple[str, Line]]:
        """These have become durable, written by this process, whose clock shows so many microseconds."""
        self._batches += 1
        lines = []
        for run_id, epoch, events in changes:
            history = self.runs[run_id]
            if epoch != history.epoch:
                if epoch < history.epoch:
                    raise Violation(f"{run_id}: the epoch went back from {history.epoch} to {epoch}")
                self.takeovers += history.holder not in ("", process)
                history.epoch, history.holder = epoch, process
            for seq, type, at, data in events:
                line = Line(seq, type, at, json.loads(data), process, self._batches)
                self._judge(run_id, history, line, clock)
                history.lines.append(line)
                lines.append((run_id, line))
        return lines

    def _judge(self, run_id: str, history: RunHistory, line: Line, clock: int) -> None:
        where = f"{run_id}: event {line.seq} ({line.type} {line.data})"
        last = history.lines[-1] if history.lines else None
        if line.seq != (last.seq if last else 0) + 1:
            raise Violation(f"{where} leaves a gap")
        if last is not None and line.at < last.at:
            raise Violation(f"{where}: time went back")
        if line.seq > MOST_EVENTS:
            raise Violation(f"{where}: it goes round in circles")
        if history.end is not None:
            raise Violation(f"{where} came after the end")
        asked = history.cancellation
        is_of_a_stalled_run = line.type == "run_cancelled" and asked is not None and asked.batch == line.batch
        if line.type in DECISIONS and history.holder != line.wrote and not is_of_a_stalled_run:
            raise Violation(
                f"{where} was decided by {line.wrote}, but epoch {history.epoch} is {history.holder}'s: a zombie"
            )
        self._count_once(where, history, line)
        self._follow(where, run_id, history, line, clock)

    def _count_once(self, where: str, history: RunHistory, line: Line) -> None:
        data = line.data
        match line.type:
            case "run_created" | "run_started":
                what: tuple[Any, ...] = (line.type,)
            case "hook_received":
                what = ("received", data["id"], data["resume_id"])
            case "hook_responded":
                what = ("responded", data["to"])
            case "step_started" | "step_retrying":
                what = (line.type, data["id"], data["attempt"])
            case "step_created" | "hook_created" | "hook_conflict" | "wait_created" | "attributes_set":
                what = ("created", data["id"])
            case "step_completed" | "step_failed" | "step_cancelled" | "wait_completed" | "wait_cancelled":
                what = ("done", data["id"])
            case "cancel_requested":
                what = ("cancel",)
            case "hook_disposed":
                what = ("disposed", data["id"])
            case _:
                what = ("end",)
        if what in history.once:
            raise Violation(f"{where} is there twice")
        history.once.add(what)

    def _follow(self, where: str, run_id: str, history: RunHistory, line: Line, clock: int) -> None:
        data = line.data
        number = data.get("id", 0)
        match line.type:
            case "hook_created":
                if data["token"] in self.tokens:
                    raise Violation(f"{where}: the token belongs to {self.tokens[data['token']]}")
                self.tokens[data["token"]] = (run_id, number)
                history.hooks[number] = data["token"]
            case "hook_conflict":
                owner = self.tokens.get(data["token"])
                if owner is None or owner[0] != data["owner"]:
                    raise Violation(f"{where}: the token's owner is {owner}")
            case "hook_disposed":
                self.tokens.pop(history.hooks.pop(number), None)
            case "hook_received":
                if number not in history.hooks:
                    raise Violation(f"{where}: the hook was not open")
            case "wait_created":
                history.waits[number] = data
            case "wait_completed":
                wait = history.waits.pop(number)
                if run_id in self.waking and wait["kind"] == "sleep":
                    self.woken.add((run_id, number))
                elif wait["resume_at"] > clock:
                    raise Violation(f"{where} is {(wait['resume_at'] - clock) / 1e6:.3f} s early")
            case "wait_cancelled":
                history.waits.pop(number)
            case "step_created":
                history.steps[number] = 0
            case "step_started":
                if history.steps.get(number) != data["attempt"] - 1:
                    raise Violation(f"{where}: it had failed {history.steps.get(number)} times")
            case "step_retrying":
                if history.steps.get(number) != data["attempt"] - 1:
                    raise Violation(f"{where}: it had failed {history.steps.get(number)} times")
                history.steps[number] += 1
            case "step_completed" | "step_failed" | "step_cancelled":
                history.steps.pop(number)
            case "cancel_requested":
                history.cancellation = line
            case type if type in ENDINGS:
                history.end = line
                self._judge_end(where, history, line)
                for token in history.hooks.values():
                    self.tokens.pop(token, None)
                history.hooks.clear()
            case _:
                pass
        assert line.type in FACTS or line.type in DECISIONS or line.type == "run_created"

    def _judge_end(self, where: str, history: RunHistory, end: Line) -> None:
        """A run ends as cancelled if, and only if, somebody has asked for it, and for their reason."""
        asked = history.cancellation
        if (end.type == "run_cancelled") != (asked is not None):
            raise Violation(f"{where}: {asked} was asked for")
        if asked is not None and end.data["reason"] != asked.data["reason"]:
            raise Violation(f"{where}: the reason that was asked for is {asked.data['reason']!r}")
        if end.type == "run_completed" and history.steps:
            raise Violation(f"{where}: its steps {[*history.steps]} are neither done nor given up")
