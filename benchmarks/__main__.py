"""`make bench`: measures every part, each in its own process, and writes results.json and docs/performance.md.

    python -m benchmarks [--parts cycle,paused] [--scale 1] [--runs 1000000]

If a part fails, hangs or can't be measured here, the table shows the reason, and the other parts continue. Results are
written after each part. `--parts` measures only these parts again and keeps the results of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

from benchmarks import report
from benchmarks.machine import load, this_machine
from benchmarks.parts.part import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
PARTS = {  # with the timeout of each, in seconds
    "raw": 90,
    "replay": 60,
    "cycle": 120,
    "postgres": 180,
    "dbos": 150,
    "langgraph": 120,
    "restate": 120,
    "clicks": 240,
    "approval": 150,
    "startup": 90,
    "slack_ack": 300,
    "lists": 240,
    "paused": 600,
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parts", default="", help=f"some of {','.join(PARTS)}; all if absent")
    options.add_argument("--scale", type=float, default=1.0, help="1 for published figures; less for a trial")
    options.add_argument("--runs", type=int, help="the number of paused runs; by default 1,000,000 times the scale")
    given = options.parse_args()
    parts = [part for part in given.parts.split(",") if part] or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        options.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if given.runs is not None:
        os.environ["BENCH_RUNS"] = str(given.runs)
    began = time.perf_counter()
    bad = [part for part in parts if not _measure(part, given.scale)]
    print(
        f"{time.perf_counter() - began:.0f} s; {report.PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} written"
    )
    if bad:
        sys.exit(f"not measured: {', '.join(bad)}")


def _measure(part: str, scale: float) -> bool:
    """Measure one part and write its figures. Returns False if it failed; a skipped part hasn't."""
    print(f"{part} …", flush=True)
    entry: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "scale": scale, "load": load()}
    began = time.perf_counter()
    entry |= _found(part, scale)
    entry["seconds"] = round(time.perf_counter() - began, 1)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": {}}
    results["machine"] = this_machine()
    results["parts"][part] = entry
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    report.write(json.loads(RESULTS.read_text()))  # in the file's order
    outcome = entry.get("failed") or entry.get("skipped") or f"{len(entry['figures'])} figures"
    print(f"{part}: {outcome} ({entry['seconds']} s)", flush=True)
    return "failed" not in entry


def _found(part: str, scale: float) -> dict[str, Any]:
    line = [sys.executable, "-m", f"benchmarks.parts.{part}", "--scale", str(scale)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=PARTS[part])
        except subprocess.TimeoutExpired:
            _end(process)
            return {"failed": f"it was still running after {PARTS[part]} s"}
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        return {"failed": f"its process exited with {process.returncode}; the terminal has its output"}
    try:
        found: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": "it printed no figures"}
    return {"figures": {k: round(v, 6) for k, v in found["figures"].items()}} if "figures" in found else found


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a part with all the processes it started."""
    os.killpg(process.pid, 15)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


if __name__ == "__main__":
    main()
