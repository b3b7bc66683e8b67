"""The common cycle on DBOS, on SQLite and PostgreSQL, with default settings and with polling every 10 ms."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.others.install import PYTHON
from benchmarks.parts.cycle import of_runs
from benchmarks.parts.part import ROOT, Figures, Scale, Skipped, main, run_json, say
from benchmarks.postgres import Server, server

SCRIPT = ROOT / "benchmarks" / "others" / "dbos_cycle.py"


def measure(scale: Scale) -> Figures:
    if not PYTHON.exists():
        raise Skipped("DBOS is not installed: the registry was unreachable")
    figures: Figures = {}
    for name, more in (("dbos_sqlite", ()), ("dbos_sqlite_fast", ("--fast",))):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/dbos.db"
            many = once(url, scale(200, 10), 50, *more)
            alone = once(url, scale(30 if more else 8, 3), 1, *more)
            figures |= of_runs(f"cycle.{name}", many, alone)
            for key, at_once, cycles in (("commits", 50, scale(100, 10)), ("commits_alone", 1, scale(8, 3))):
                counted = once(url, cycles, at_once, "--commits", *more)
                figures[f"cycle.{name}.{key}"] = counted["commits"] / counted["cycles"]
        say(f"{name}: {figures[f'cycle.{name}.per_second']:.1f} cycles/s")
    try:
        with server() as there:
            for name, more in (("dbos_postgres", ()), ("dbos_postgres_fast", ("--fast",))):
                figures |= on_postgres(there, f"cycle.{name}", scale, more)
                say(f"{name}: {figures[f'cycle.{name}.per_second']:.1f} cycles/s")
    except Skipped as reason:
        say(str(reason))
    return figures


def once(url: str, cycles: int, at_once: int, *more: str) -> dict[str, Any]:
    return run_json([str(SCRIPT), url, "--cycles", str(cycles), "--at-once", str(at_once), *more], python=PYTHON)


def on_postgres(there: Server, name: str, scale: Scale, more: tuple[str, ...]) -> Figures:
    url = there.database()
    once(url, 1, 1, *more)  # the schema
    figures, cycles = Figures(), scale(200, 10)
    before, cpu = there.writes(url), there.cpu()
    many = once(url, cycles, 50, *more)
    figures[f"{name}.server_cpu_ms"] = (there.cpu() - cpu) / (cycles + 1) * 1000
    figures[f"{name}.commits"] = (there.writes(url) - before) / (cycles + 1)
    alone = scale(30 if more else 8, 3)
    before = there.writes(url)
    found = once(url, alone, 1, *more)
    figures[f"{name}.commits_alone"] = (there.writes(url) - before) / (alone + 1)
    return figures | of_runs(name, many, found)


if __name__ == "__main__":
    main(measure)
