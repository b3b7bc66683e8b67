"""The floor of a cycle: an event log in SQLite that writes the same rows in the same transactions, without an engine.

A cycle writes nine events in four commits (created; started, with the step and the hook; the call; the end), has a row
for the run and one for the hook, and looks up the hook once. With fifty at a time, commits are shared.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measures import own_cpu

SCHEMA = """
CREATE TABLE runs (id TEXT PRIMARY KEY, status TEXT NOT NULL, seq INTEGER NOT NULL) STRICT;
CREATE TABLE events (run_id TEXT NOT NULL, seq INTEGER NOT NULL, type TEXT NOT NULL, at INTEGER NOT NULL,
  key TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY (run_id, seq)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX events_once ON events (run_id, key);
CREATE TABLE hooks (id TEXT PRIMARY KEY, run_id TEXT NOT NULL, token TEXT NOT NULL, is_live INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX hooks_live ON hooks (token) WHERE is_live = 1;
"""
LEGS = (
    ("run_created", "run_started", "step_started"),
    ("step_completed", "hook_created"),
    ("hook_received", "step_started"),
    ("step_completed", "run_completed"),
)


@dataclass
class Found:
    """Seconds, seconds of CPU, and commits."""

    seconds: float
    cpu: float
    commits: int


def floor(file: Path, cycles: int, at_once: int) -> Found:
    """Run `cycles` cycles, `at_once` at a time; those run each leg in one shared commit."""
    with closing(sqlite3.connect(file, isolation_level=None, cached_statements=256)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(SCHEMA)
        commits, began, cpu = 0, time.perf_counter(), own_cpu()
        for first in range(0, cycles, at_once):
            together = [f"run_{number:020}" for number in range(first, min(cycles, first + at_once))]
            for leg in range(len(LEGS)):
                db.execute("BEGIN IMMEDIATE")
                for run in together:
                    _LEGS[leg](db, run, leg)
                db.execute("COMMIT")
                commits += 1
        return Found(time.perf_counter() - began, own_cpu() - cpu, commits)


def _start(db: sqlite3.Connection, run: str, leg: int) -> None:
    db.execute("INSERT INTO runs VALUES (?, 'running', 3)", (run,))
    _add(db, run, leg, 0)


def _open(db: sqlite3.Connection, run: str, leg: int) -> None:
    db.execute("INSERT INTO hooks VALUES (?, ?, ?, 1)", (f"hook-{run}", run, f"token-{run}"))
    _go_on(db, run, leg)


def _resume(db: sqlite3.Connection, run: str, leg: int) -> None:
    db.execute("SELECT id, run_id FROM hooks WHERE token = ? AND is_live = 1", (f"token-{run}",)).fetchone()
    _go_on(db, run, leg)


def _end(db: sqlite3.Connection, run: str, leg: int) -> None:
    db.execute("UPDATE hooks SET is_live = 0 WHERE id = ?", (f"hook-{run}",))
    _go_on(db, run, leg)


def _go_on(db: sqlite3.Connection, run: str, leg: int) -> None:
    (seq,) = db.execute("SELECT seq FROM runs WHERE id = ?", (run,)).fetchone()
    _add(db, run, leg, seq)
    status = "completed" if leg == len(LEGS) - 1 else "running"
    db.execute("UPDATE runs SET seq = ?, status = ? WHERE id = ?", (seq + len(LEGS[leg]), status, run))


def _add(db: sqlite3.Connection, run: str, leg: int, after: int) -> None:
    for seq, type in enumerate(LEGS[leg], after + 1):
        data = json.dumps({"id": seq, "run": run, "payload": {"approved": True, "comment": "fine"}})
        given = (run, seq, type, time.time_ns() // 1000, f"{type}:{seq}", data)
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", given)


_LEGS: tuple[Callable[[sqlite3.Connection, str, int], None], ...] = (_start, _open, _resume, _end)
