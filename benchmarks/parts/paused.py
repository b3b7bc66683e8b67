"""A million paused runs in one SQLite file, and how costs grow with their number.

The engine starts and pauses one run. SQL copies its rows under other IDs for the others, because the engine would take
a quarter of an hour. (Paused runs have no state in any process, so the copies are as good.)
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from approvals_bot import Engine
from benchmarks import cycle
from benchmarks.parts.part import Figures, Scale, main, run_json, say

TEMPLATE = "a-token-to-replace"
CHUNK = 10_000  # runs in one transaction


def measure(scale: Scale) -> Figures:
    runs = int(os.environ.get("BENCH_RUNS", 0)) or scale(1_000_000, 2_000)
    sizes = sorted({max(10, runs // part) for part in (1000, 100, 10, 1)})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "runs.db"
        template = asyncio.run(pause(file))
        filled, writing, figures = 1, 0.0, Figures()
        fill(file, template, 1, 3)
        empty = look(file, [1, 2], scale.seconds(5), 0)
        filled, found = 3, dict[int, dict[str, Any]]()
        for size in sizes:
            began = time.perf_counter()
            fill(file, template, filled, size + 1)
            writing += time.perf_counter() - began
            say(f"{size:,} paused runs, {file.stat().st_size / 1e6:,.0f} MB")
            some = Random(size).sample(range(filled, size + 1), min(size + 1 - filled, scale(300, 5)))
            filled = size + 1
            found[size] = look(file, some, scale.seconds(20) if size == runs else 0.0, scale(1000, 50))
            figures |= {
                f"growth.{size}.cycle_ms": found[size]["cycle_cpu"] * 1000,
                f"growth.{size}.resume_ms": found[size]["resumed_p50"] * 1000,
                f"growth.{size}.restart_s": found[size]["restart"],
            }
        most, few, disk = found[runs], found[sizes[0]], file.stat().st_size
    return figures | {
        "paused.runs": runs,
        "paused.create_s": writing,
        "paused.empty_mb": empty["memory"],
        "paused.memory_mb": most["memory"] - empty["memory"],
        "paused.idle_cpu_percent": most["idle_cpu"] * 100,
        "paused.resume_ms": most["resumed_p50"] * 1000,
        "paused.resume_few_ms": few["resumed_p50"] * 1000,
        "paused.resume_ratio": most["resumed_p50"] / few["resumed_p50"],
        "paused.restart_s": most["restart"],
        "paused.restart_imports_s": most["imports"],
        "paused.disk_mb": disk / 1e6,
        "paused.bytes_per_run": disk / runs,
    }


def token(number: int) -> str:
    """Return a unique token, scattered like random ones, so lookups hit all parts of the index."""
    return f"token-{number * 2654435761 % 2**32:012x}"


def look(file: Path, numbers: list[int], idle: float, cycles: int) -> dict[str, Any]:
    tokens = ",".join(token(number) for number in numbers)
    line = ["-m", "benchmarks.paused_store", "--url", f"sqlite:///{file}", "--tokens", tokens, "--idle", str(idle)]
    return run_json([*line, "--cycles", str(cycles), "--started", str(time.monotonic())])


async def pause(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Pause one run, and return its rows by table."""
    async with Engine.open(f"sqlite:///{file}") as engine:
        run = await engine.start(cycle.cycle, TEMPLATE)
        await cycle.hook_is_open(engine, run.id, TEMPLATE)
        await engine.settle()
    with closing(sqlite3.connect(file)) as db:
        db.row_factory = sqlite3.Row
        return {
            name: [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY {order}")]
            for name, order in (("runs", "id"), ("hooks", "id"), ("events", "seq"))
        }


def fill(file: Path, template: dict[str, list[dict[str, Any]]], first: int, after: int) -> None:
    """Write the runs with these numbers, without syncing until the end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -400000")
        for start in range(first, after, CHUNK):
            numbers = range(start, min(after, start + CHUNK))
            db.execute("BEGIN IMMEDIATE")
            for name, rows in template.items():
                marks = ", ".join("?" * len(rows[0]))
                db.executemany(
                    f"INSERT INTO {name} ({', '.join(rows[0])}) VALUES ({marks})", copies(template, rows, numbers)
                )
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.sync()


def copies(
    template: dict[str, list[dict[str, Any]]], rows: list[dict[str, Any]], numbers: range
) -> Iterator[list[Any]]:
    """Yield the rows once for each number, with its own IDs and token."""
    run, hook = template["runs"][0]["id"], template["hooks"][0]["id"]
    shapes = [list(row.values()) for row in rows]
    for number in numbers:
        own = token(number)
        for shape in shapes:
            yield [
                value.replace(run, f"{run[:-16]}{number:016x}")
                .replace(hook, f"{hook[:-12]}{own[-12:]}")
                .replace(TEMPLATE, own)
                if isinstance(value, str)
                else value
                for value in shape
            ]


if __name__ == "__main__":
    main(measure)
