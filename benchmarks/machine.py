"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib import metadata
from pathlib import Path

PACKAGES = ("approvals-bot", "aiosqlite", "asyncpg", "httptools", "pydantic", "starlette", "uvicorn", "uvloop")


def this_machine() -> dict[str, str]:
    """CPU, memory, kernel and versions, as the page tells them. Neither names nor addresses."""
    model = _line("/proc/cpuinfo", "model name") or platform.machine()
    memory = int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6
    return {
        "CPU": f"{os.cpu_count()} × {model}",
        "memory": f"{memory:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    } | {name: _version(name) for name in PACKAGES}


def load() -> float:
    """Processes that wanted a CPU in the last minute: how idle the machine was before a part began."""
    return round(os.getloadavg()[0], 2)


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
