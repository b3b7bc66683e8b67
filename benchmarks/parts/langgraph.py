"""The common cycle on LangGraph with its SQLite checkpointer, at each of its three durability levels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.others.install import PYTHON
from benchmarks.parts.cycle import of_runs
from benchmarks.parts.part import ROOT, Figures, Scale, Skipped, main, run_json, say

SCRIPT = ROOT / "benchmarks" / "others" / "langgraph_cycle.py"


def measure(scale: Scale) -> Figures:
    if not PYTHON.exists():
        raise Skipped("LangGraph is not installed: the registry was unreachable")
    figures: Figures = {}
    for durability in ("async", "sync", "exit"):
        name = f"cycle.langgraph_{durability}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoints.db"
            figures |= of_runs(
                name,
                once(file, durability, scale(500, 10), 50),
                once(file, durability, scale(100, 10), 1),
            )
            for key, at_once in (("commits", 50), ("commits_alone", 1)):
                counted = once(file, durability, scale(100, 10), at_once, "--commits")
                figures[f"{name}.{key}"] = counted["commits"] / counted["cycles"]
        say(f"{durability}: {figures[f'{name}.per_second']:.1f} cycles/s")
    return figures


def once(file: Path, durability: str, cycles: int, at_once: int, *more: str) -> dict[str, Any]:
    sizes = ["--cycles", str(cycles), "--at-once", str(at_once), "--durability", durability]
    return run_json([str(SCRIPT), str(file), *sizes, *more], python=PYTHON)


if __name__ == "__main__":
    main(measure)
