"""Measuring tools of all benchmarks: CPU and memory of processes, percentiles, commits.

Standard library only, because the other systems' scripts use it in their own venv. Linux only, because it reads /proc.
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
"""Runs one cycle, and appends its seconds from resume to completed and in total."""

TICK = os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Return this process's seconds of CPU, user and system, with all threads but without its children."""
    return time.process_time()


def cpu_of(pid: int, *, family: bool = False) -> float:
    """Return another process's seconds of CPU; with `family`, including its living and dead children."""
    total = 0.0
    for each in _family(pid) if family else [pid]:
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it just ended, and its parent counts it from now on
        total += sum(int(field) for field in fields[11 : 15 if family else 13]) / TICK
    return total


def resident(pid: int | None = None) -> float:
    """Return the MB of RAM of a process (by default this one), including shared memory."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(times: Sequence[float], share: float) -> float:
    """Return the value that this share of the values doesn't exceed."""
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def per_second(work: Callable[[], Any], seconds: float, at_least: int = 20) -> float:
    """Return how many times per second `work` can be done, one after the other."""
    work()
    done, began = 0, time.perf_counter()
    while done < at_least or time.perf_counter() < began + seconds:
        work()
        done += 1
    return done / (time.perf_counter() - began)


async def many(one: Cycle, cycles: int, at_once: int, commits: SqliteCommits) -> dict[str, float]:
    """Run the common cycle `cycles` times, `at_once` at a time, and return the figures."""
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
    """Counts the commits with changes of all SQLite connections that are opened after `watch()`.

    It slows every statement down, so it is off while anything is timed.
    """

    def __init__(self) -> None:
        self.count = 0

    def watch(self) -> None:
        connecting = self._connecting(sqlite3.connect)
        for module in ("sqlite3", "sqlite3.dbapi2"):
            setattr(sys.modules[module], "connect", connecting)  # noqa: B010  # for mypy

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
