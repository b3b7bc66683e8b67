"""What all benchmarks measure with: CPU and memory of processes, percentiles, commits. Standard library only, since
other systems' scripts use it in venvs of their own. Linux: what processes use is read from /proc.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

Cycle = Callable[[list[float], list[float]], Awaitable[None]]
"""One cycle. It adds how long it took from the resumption to the end, and in all, in seconds."""

TICK = os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Seconds of CPU, user and system, that this process has used with all its threads; without its children."""
    return time.process_time()


def cpu_of(pid: int, *, family: bool = False) -> float:
    """Seconds of CPU that another process has used; with `family` also what its children use and the dead ones used."""
    total = 0.0
    for each in _family(pid) if family else [pid]:
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now; its parent counts it from here on
        total += sum(int(field) for field in fields[11 : 15 if family else 13]) / TICK
    return total


def resident(pid: int | None = None) -> float:
    """MB of memory that a process (None: this one) keeps in RAM, what it shares with others included."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(times: Sequence[float], share: float) -> float:
    """The value that this share of the values stays at or under."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def per_second(work: Callable[[], Any], seconds: float, at_least: int = 20) -> float:
    """How often a second `work` can be done, one after the other."""
    work()
    done, began = 0, time.perf_counter()
    while done < at_least or time.perf_counter() < began + seconds:
        work()
        done += 1
    return done / (time.perf_counter() - began)


async def many(one: Cycle, cycles: int, at_once: int, commits: SqliteCommits) -> dict[str, float]:
    """Do the common cycle so many times, so many at once, and say what it took."""
    resumed, whole, room = list[float](), list[float](), asyncio.Semaphore(at_once)

    async def limited() -> None:
        async with room:
            await one(resumed, whole)

    counted, began, cpu = commits.count, time.perf_counter(), own_cpu()
    await asyncio.gather(*(limited() for _ in range(cycles)))
    return {
        "cycles": cycles,
        "seconds": time.perf_counter() - began,
        "cpu": own_cpu() - cpu,
        "resumed_p50": percentile(resumed, 0.5),
        "resumed_p99": percentile(resumed, 0.99),
        "whole_p50": percentile(whole, 0.5),
        "commits": commits.count - counted,
    }


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, new = list[int](), [pid]
    while new:
        found += new
        new = [child for each in new for child in children.get(each, ())]
    return found


class SqliteCommits:
    """Counts the commits that changed something, of all SQLite connections opened after `watch()`, whoever opens them.

    It costs time at each statement, so it is not on while anything is timed.
    """

    def __init__(self) -> None:
        self.count = 0

    def watch(self) -> None:
        connecting = self._connecting(sqlite3.connect)
        for module in ("sqlite3", "sqlite3.dbapi2"):
            setattr(sys.modules[module], "connect", connecting)  # noqa: B010  # mypy won't have it otherwise

    def _connecting(self, connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
        def connecting(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection = connect(*args, **kwargs)
            known = 0

            def before_statement(_: str) -> None:
                nonlocal known
                changes = connection.total_changes
                if changes != known and not connection.in_transaction:
                    self.count += 1
                    known = changes

            connection.set_trace_callback(before_statement)
            return connection

        return connecting
