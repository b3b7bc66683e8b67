"""`make bench`: measures every part, each in its own process, and writes results.json and docs/performance.md.

    python -m benchmarks [--parts cycle,paused] [--scale 1] [--runs 1000000] [--old COMMIT]

What people feel, and the floor beside it, is measured in three rounds: all of these parts in turn, then all again. A
figure is the median of its rounds, so load that comes and goes disturbs all of them alike. `--old` measures the code of
another commit in the same rounds, each part right before ours, with the benchmarks of that commit.

If a part fails, hangs or can't be measured here, the table shows the reason, and the other parts continue. `--parts`
measures only these parts again and keeps the results of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import report
from benchmarks.machine import load, this_machine
from benchmarks.parts.part import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
ROUNDS = 3
IN_ROUNDS = ("floor", "cycle", "approval", "slack_approval", "clicks", "startup")
BESIDE_OLD = frozenset(IN_ROUNDS) - {"floor"}
PARTS = {  # with the timeout of each, in seconds
    "floor": 60,
    "cycle": 120,
    "approval": 150,
    "slack_approval": 150,
    "clicks": 240,
    "startup": 180,
    "raw": 90,
    "replay": 60,
    "postgres": 180,
    "dbos": 150,
    "langgraph": 120,
    "restate": 120,
    "slack_ack": 300,
    "lists": 240,
    "retention": 900,
    "directory": 240,
    "chats": 300,
    "paused": 600,
}

Found = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parts", default="", help=f"some of {','.join(PARTS)}; all if absent")
    options.add_argument("--scale", type=float, default=1.0, help="1 for published figures; less for a trial")
    options.add_argument("--runs", type=int, help="the number of paused runs; by default 1,000,000 times the scale")
    options.add_argument("--old", help="a commit to measure beside this code")
    given = options.parse_args()
    parts = [part for part in given.parts.split(",") if part] or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        options.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if given.runs is not None:
        os.environ["BENCH_RUNS"] = str(given.runs)
    began = time.perf_counter()
    in_rounds = [part for part in parts if part in IN_ROUNDS]
    with _tree(given.old) if given.old else nullcontext() as old:
        bad = _measure(in_rounds, given.scale, ROUNDS, old)
    for part in parts:
        if part not in IN_ROUNDS:
            bad += _measure([part], given.scale, 1, None)
    print(
        f"{time.perf_counter() - began:.0f} s; {report.PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} written"
    )
    if bad:
        sys.exit(f"not measured: {', '.join(bad)}")


@contextmanager
def _tree(commit: str) -> Iterator[Path]:
    """Check another commit out into a folder, for the time of the block."""
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def _measure(parts: list[str], scale: float, rounds: int, old: Path | None) -> list[str]:
    """Measure parts in turn, and write their figures. Returns those that failed; a skipped part hasn't."""
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "scale": scale, "load": load()}
    found: dict[str, list[Found]] = {part: [] for part in parts}
    before: dict[str, list[Found]] = {part: [] for part in parts}
    for number in range(1, rounds + 1):
        for part in parts:
            print(f"{part} …" if rounds == 1 else f"{part}, round {number} of {rounds} …", flush=True)
            if old is not None and part in BESIDE_OLD:
                before[part].append(_found(part, scale, old))
            found[part].append(_found(part, scale, ROOT))
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"parts": {}}
    results["machine"] = this_machine()
    for part in parts:
        result = median_of(found[part])
        if before[part]:
            result["old"] = median_of(before[part]).get("figures", {})
        results["parts"][part] = entry | result
        outcome = result.get("failed") or result.get("skipped") or f"{len(result['figures'])} figures"
        print(f"{part}: {outcome} ({result['seconds']:.1f} s)", flush=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    report.write(json.loads(RESULTS.read_text()))  # in the file's order
    return [part for part in parts if "failed" in results["parts"][part]]


def median_of(rounds: list[Found]) -> Found:
    """Return the median of each figure, with what the rounds took in total; or the first failure."""
    seconds = round(sum(found["seconds"] for found in rounds), 1)
    for found in rounds:
        if "figures" not in found:
            return found | {"seconds": seconds}
    every = {key: sorted(found["figures"][key] for found in rounds) for key in rounds[0]["figures"]}
    figures = {key: round(median(values), 6) for key, values in every.items()}
    if len(rounds) == 1:
        return {"figures": figures, "seconds": seconds}
    spread = {key: [round(values[0], 6), round(values[-1], 6)] for key, values in every.items()}
    return {"figures": figures, "spread": spread, "seconds": seconds}


def _found(part: str, scale: float, tree: Path) -> Found:
    """Measure one part once, with the code and the benchmarks of this tree."""
    began = time.perf_counter()
    found = _run(part, scale, tree)
    return found | {"seconds": time.perf_counter() - began}


def _run(part: str, scale: float, tree: Path) -> Found:
    line = [sys.executable, "-m", f"benchmarks.parts.{part}", "--scale", str(scale)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    with subprocess.Popen(
        line, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
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
        found: Found = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": "it printed no figures"}
    return found


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
