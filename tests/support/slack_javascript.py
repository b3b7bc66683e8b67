"""Slack's own JavaScript and TypeScript packages, installed once into a folder that git ignores."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.judges import node_packages

FOLDER = Path(__file__).parent.parent / "playground" / "node"
COMPILE_LIMIT = 60


def node_folder() -> Path:
    """Where they are. Without Node, npm or the registry the test is skipped, and says so."""
    return node_packages(FOLDER)


def refused_by_compiler(folder: Path, imports: str, given: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Which of these values are not of their TypeScript types, and what the compiler says.

    `given`: name → (type, value). They are written as literals, because only then are keys that no type knows refused.
    """
    names = list(given)
    lines = [imports]
    lines += [f"export const v{n}: {kind} = {json.dumps(value)};" for n, (kind, value) in enumerate(given.values())]
    file = folder / f"judged_{abs(hash(tuple(names)))}.ts"
    file.write_text("\n".join(lines), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    try:
        done = subprocess.run(
            ["node", "node_modules/typescript/bin/tsc", *options, file.name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=COMPILE_LIMIT,
            check=False,
        )
    finally:
        file.unlink()
    refused: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith(file.name):
            number = int(line.partition("(")[2].partition(",")[0])
            refused.setdefault(names[number - 2] if number > 1 else "imports", line)
    assert bool(refused) == bool(done.returncode), done.stdout + done.stderr
    return refused
