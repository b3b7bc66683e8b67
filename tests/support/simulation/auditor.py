"""Reads along: looks at every commit as it happens, and objects to what may never be written."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from approvals_bot.durable.core.events import CREATIONS, ENDINGS, FACTS
from tests.support.simulation.relatives import Relatives
from tests.support.simulation.violation import Violation

__all__ = ["Auditor", "Change", "Line", "RunHistory", "Violation", "is_lookup"]

MOST_EVENTS = 400
"""No run here needs nearly so many."""


class Line(NamedTuple):
    """One line of a log, as it became durable. `at` in microseconds; `wrote`: the process."""

    seq: int
    type: str
    at: int
    data: dict[str, Any]
    wrote: str
    batch: int  # lines of one piece of work have one number


def is_lookup(line: Line) -> bool:
    """Whether it is all that the log has of a step."""
    return line.type == "step_completed" and "name" in line.data


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
    copied: int = 0  # lines that it began with, from the run in whose place it is
    next: str | None = None  # the run in its place
    drops: bool = False  # whether payloads may have been left behind by the reset that has made it


DECISIONS = frozenset({"step_created", "step_started", "hook_created", "hook_conflict", "hook_disposed"}) | {
    "hook_responded", "wait_created", "wait_cancelled", "attributes_set", "run_started", "run_completed", "run_failed",
    "step_cancelled", "run_cancelled", "hook_refused", "run_continued", "child_started", "child_cancelled",
}  # fmt: skip


class Auditor:
    def __init__(self) -> None:
        self.runs: defaultdict[str, RunHistory] = defaultdict(RunHistory)
        self.tokens: dict[str, tuple[str, int]] = {}  # live ones, and whose they are
        self.waking: set[str] = set()  # runs whose sleeps somebody has asked to end
        self.woken: set[tuple[str, int]] = set()  # sleeps that may have ended by that
        self.dropping: set[str] = set()  # runs that somebody resets without the payloads that came later
        self.relatives = Relatives()
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
        # A run that ends comes before the one that takes its place, which gets what it has.
        for run_id, epoch, events in sorted(changes, key=lambda change: change.run_id not in self.runs):
            history = self.runs[run_id]
            if epoch != history.epoch:
                if epoch < history.epoch:
                    raise Violation(f"{run_id}: the epoch went back from {history.epoch} to {epoch}")
                self.takeovers += history.holder not in ("", process)
                history.epoch, history.holder = epoch, process
            for seq, type, at, data in events:
                line = Line(seq, type, at, json.loads(data), process, self._batches)
                if seq == 1:
                    history.copied = _copied(line.data, [type for _, type, *_ in events])
                self._judge(run_id, history, line, clock)
                history.lines.append(line)
                lines.append((run_id, line))
            if history.copied and history.lines[0].batch == self._batches:
                self._move(run_id, history)
        self.relatives.judge(self.runs, lines)
        return lines

    def _move(self, run_id: str, history: RunHistory) -> None:
        """A run has taken the place of another, with its hooks: those that are open have their tokens again."""
        history.drops = history.lines[0].data.get("reset_of", {}).get("run_id") in self.dropping
        for number, token in history.hooks.items():
            if token in self.tokens:
                raise Violation(f"{run_id}: it has got {token!r}, which belongs to {self.tokens[token]}")
            self.tokens[token] = (run_id, number)

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
        is_copied = line.seq <= history.copied
        if (
            (line.type in DECISIONS or is_lookup(line))
            and history.holder != line.wrote
            and not (is_of_a_stalled_run or is_copied)
        ):
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
            case "hook_refused":
                what = ("refused", data["to"])
            case type if type in CREATIONS:
                what = ("created", data["id"])
            case "step_completed" if is_lookup(line) and ("created", data["id"]) in history.once:
                raise Violation(f"{where} is there twice")
            case "step_completed" | "step_failed" | "step_cancelled" | "wait_completed" | "wait_cancelled":
                what = ("done", data["id"])
            case "child_ended" | "child_cancelled":
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
        if is_lookup(line):
            history.once.add(("created", data["id"]))

    def _follow(self, where: str, run_id: str, history: RunHistory, line: Line, clock: int) -> None:
        data = line.data
        number = data.get("id", 0)
        is_copied = line.seq <= history.copied
        match line.type:
            case "run_created":
                for hook in data.get("hooks", ()):
                    self._open(where, run_id, history, hook)
            case "hook_created" if "adopts" in data:
                if history.hooks.get(data["adopts"]) != data["token"]:
                    raise Violation(f"{where}: it has no such hook")
            case "hook_created":
                self._open(where, run_id, history, data)
            case "hook_conflict" if is_copied:
                pass
            case "hook_conflict":
                owner = self.tokens.get(data["token"])
                if owner is None or owner[0] != data["owner"]:
                    raise Violation(f"{where}: the token's owner is {owner}")
            case "hook_disposed" | "hook_responded" | "wait_cancelled":
                for closed in data.get("closes", ()) if line.type == "hook_responded" else (number,):
                    self._close(history, closed, is_copied=is_copied)
            case "hook_received":
                if number not in history.hooks:
                    raise Violation(f"{where}: the hook was not open")
            case "wait_created":
                history.waits[number] = data
            case "wait_completed":
                wait = history.waits.pop(number)
                if run_id in self.waking and wait["kind"] == "sleep":
                    self.woken.add((run_id, number))
                elif wait["resume_at"] > clock and not is_copied:
                    raise Violation(f"{where} is {(wait['resume_at'] - clock) / 1e6:.3f} s early")
            case "step_created":
                history.steps[number] = 0
            case "step_started":
                if history.steps.get(number) != data["attempt"] - 1:
                    raise Violation(f"{where}: it had failed {history.steps.get(number)} times")
            case "step_retrying":
                if history.steps.get(number) != data["attempt"] - 1:
                    raise Violation(f"{where}: it had failed {history.steps.get(number)} times")
                history.steps[number] += 1
            case "step_completed" | "step_failed" | "step_cancelled" if not is_lookup(line):
                history.steps.pop(number)
            case "cancel_requested":
                history.cancellation = line
            case type if type in ENDINGS:
                history.end = line
                history.next = data.get("next")
                self._judge_end(where, history, line)
                for token in history.hooks.values():
                    self.tokens.pop(token, None)
                history.hooks.clear()
            case _:
                pass
        assert line.type in FACTS or line.type in DECISIONS or line.type in ("run_created", "run_reset")

    def _close(self, history: RunHistory, number: int, *, is_copied: bool) -> None:
        if number in history.waits:
            history.waits.pop(number)
            return
        token = history.hooks.pop(number)
        if not is_copied:
            self.tokens.pop(token, None)

    def _open(self, where: str, run_id: str, history: RunHistory, hook: dict[str, Any]) -> None:
        token = hook["token"]
        if not history.copied:
            if token in self.tokens:
                raise Violation(f"{where}: the token belongs to {self.tokens[token]}")
            self.tokens[token] = (run_id, hook["id"])
        history.hooks[hook["id"]] = token

    def last(self, run_id: str) -> str:
        """Return the run that is in the place of this one now."""
        while (following := self.runs[run_id].next) is not None:
            run_id = following
        return run_id

    def before(self, run_id: str) -> list[str]:
        """Return this run, and those in whose place it is, the latest first."""
        runs = [run_id]
        while (data := self.runs[runs[-1]].lines[0].data) and (was := data.get("reset_of") or data.get("continues")):
            runs.append(was["run_id"])
        return runs

    def chain(self, run_id: str) -> list[RunHistory]:
        """Return this run, and those that came in its place, in that order."""
        chain = [self.runs[run_id]]
        while (following := chain[-1].next) is not None:
            chain.append(self.runs[following])
        return chain

    def _judge_end(self, where: str, history: RunHistory, end: Line) -> None:
        """A run ends as cancelled if, and only if, somebody has asked for it, and for their reason."""
        asked = history.cancellation
        if end.type in ("run_reset", "run_continued"):
            return  # a request to cancel is for the run in its place, or dropped by a reset
        if (end.type == "run_cancelled") != (asked is not None):
            raise Violation(f"{where}: {asked} was asked for")
        if asked is not None and end.data["reason"] != asked.data["reason"]:
            raise Violation(f"{where}: the reason that was asked for is {asked.data['reason']!r}")
        if end.type == "run_completed" and history.steps:
            raise Violation(f"{where}: its steps {[*history.steps]} are neither done nor given up")


def _copied(created: dict[str, Any], types: list[str]) -> int:
    """Return how many of the lines with which a run begins were in the log of the run before."""
    kinds: tuple[str, ...]
    if "reset_of" in created:
        number, kinds = int(created["reset_of"]["seq"]), ("hook_received", "wait_completed")
    elif "continues" in created:
        number, kinds = 1, ("cancel_requested", "hook_received")
    else:
        return 0
    while number < len(types) and types[number] in kinds:
        number += 1
    return number
