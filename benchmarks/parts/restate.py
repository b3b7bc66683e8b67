"""The common cycle on Restate: its server from npm, the service by its Python SDK."""

from __future__ import annotations

import tempfile

from benchmarks.others.install import NODE, PYTHON
from benchmarks.parts.cycle import of_runs
from benchmarks.parts.part import ROOT, Figures, Scale, Skipped, main, run_json, say

SCRIPT = ROOT / "benchmarks" / "others" / "restate_cycle.py"
SERVER = "node_modules/@restatedev/restate-server-*/bin/restate-server"


def measure(scale: Scale) -> Figures:
    found = sorted(NODE.glob(SERVER))
    if not PYTHON.exists() or not found:
        raise Skipped("Restate is not installed: npm or the registries were unreachable")
    with tempfile.TemporaryDirectory() as folder:
        line = [str(SCRIPT), str(found[0]), folder, "--cycles", str(scale(1000, 20)), "--at-once", "50"]
        measured = run_json(line, seconds=110, python=PYTHON)
    many = measured["many"]
    say(f"{many['cycles'] / many['seconds']:.1f} cycles/s")
    served = many["server_cpu"] / many["cycles"] * 1000
    return of_runs("cycle.restate", many, measured["alone"]) | {"cycle.restate.server_cpu_ms": served}


if __name__ == "__main__":
    main(measure)
