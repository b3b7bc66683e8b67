"""The startup time of `approvals-bot serve`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.measures import cpu_of
from benchmarks.parts.part import ROOT, Figures, Scale, main, say

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
workflows = "workflows"
[api_keys]
ci = "env:KEY"
"""
WORKFLOW = """
[workflow]
id = "deploy"
title = "Deploy {{ version }}"
request = ["*", "app:ci"]
[fields]
version = { type = "string", pinned = true }
[[stage]]
id = "go"
from = ["ann@acme.eu"]
"""
IMPORTS = "import approvals_bot.cli, approvals_bot.app.service, approvals_bot.cli.serving"


def measure(scale: Scale) -> Figures:
    tries = scale(5, 2)
    environment = os.environ | {"KEY": "a-key-of-the-benchmark-that-has-32-bytes!", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        found = [ready(Path(folder), environment) for _ in range(tries)]
        bare = median(python(environment, "pass") for _ in range(tries))
        imports = median(python(environment, IMPORTS) for _ in range(tries)) - bare
    say(f"ready after {median(seconds for seconds, _ in found):.2f} s")
    return {
        "startup.ready_s": median(seconds for seconds, _ in found),
        "startup.cpu_s": median(cpu for _, cpu in found),
        "startup.imports_s": imports,
    }


def write(folder: Path) -> None:
    (folder / "workflows").mkdir()
    (folder / "workflows" / "deploy.toml").write_text(WORKFLOW)
    (folder / "config.toml").write_text(CONFIG)


def ready(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Start the service. Returns the seconds, and the seconds of CPU, until it is ready."""
    line = [sys.executable, "-m", "approvals_bot", "serve", "--config", "config.toml", "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        assert service.stderr is not None
        printed = service.stdout.readline()
        took, cpu = time.perf_counter() - began, cpu_of(service.pid)
        service.terminate()
        if "http" not in printed:
            raise RuntimeError(f"it printed {printed!r} and {service.stderr.read()[-1000:]!r}")
    return took, cpu


def python(environment: dict[str, str], code: str) -> float:
    """Return the seconds that a Python process takes to run this."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(measure)
