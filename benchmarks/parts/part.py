"""What all parts share: sizes by a scale, progress on standard error, figures on standard output."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
OTHERS = ROOT / "benchmarks" / ".venv"  # the other systems have their own venv

Figures = dict[str, float]

_began = time.perf_counter()


class Scale:
    """The size of a measurement: 1 for published figures, less for trying out the benchmarks."""

    def __init__(self, of: float) -> None:
        self.of = of

    def __call__(self, full: float, least: float = 1) -> int:
        return int(max(least, full * self.of))

    def seconds(self, full: float) -> float:
        return max(0.2, full * min(1.0, self.of))


class Skipped(Exception):  # not an error
    """This part can't be measured here; the message says why."""


def say(text: str) -> None:
    sys.stderr.write(f"   {time.perf_counter() - _began:6.1f} s  {text}\n")
    sys.stderr.flush()


def main(measure: Callable[[Scale], Figures]) -> None:
    """Measure, and print the figures. A skipped part prints the reason and also exits with 0."""
    options = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    options.add_argument("--scale", type=float, default=1.0, help="1 for published figures")
    scale = Scale(options.parse_args().scale)
    try:
        found: dict[str, Any] = {"figures": measure(scale)}
    except Skipped as reason:
        found = {"skipped": str(reason)}
    sys.stdout.write(json.dumps(found) + "\n")


def run_json(line: Sequence[str], seconds: float = 240.0, python: Path | None = None) -> dict[str, Any]:
    """Run a process and parse its last line as JSON. Raises RuntimeError with its output if it fails."""
    command = [str(python or sys.executable), *line]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{' '.join(line)} exited with {done.returncode}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
