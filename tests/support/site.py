"""The pages of the documentation's site, put together from docs/, the README and the code, for `make docs` to build.

In the repository, pages link to each other and to its files as they stand there. In the site, the README is the first
page, and what is outside of docs/ is copied beside the pages that link to it.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import approvals_bot
from approvals_bot.web.openapi import document

ROOT = Path(__file__).parents[2]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md", "config.example.toml")
FOLDERS = ("workflows", "deploy")

GROUPS = {
    "Approvals": ("approvals.",),
    "Workflows": ("durable.core.",),
    "The engine": ("durable.engine",),
    "Errors": ("errors",),
}
"""Chapters of the Python reference, each with the modules whose names it has."""


def assemble(to: Path) -> None:
    """Write all pages into this folder, in place of what is there."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(ROOT / "docs", to)
    for name in BESIDE:
        shutil.copy(ROOT / name, to / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for page in to.glob("*.md"):
        page.write_text(moved_up(page.read_text()))
    (to / "index.md").write_text(from_the_root((ROOT / "README.md").read_text()))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        (to / name).write_text(from_the_root((ROOT / name).read_text()))
    (to / "reference").mkdir()
    (to / "reference/python.md").write_text("\n".join(python_reference()))
    (to / "reference/api.md").write_text("\n".join(api_reference()))


def moved_up(text: str) -> str:
    """Return a page of docs/ with links as they are in the site: what was above docs/ is beside it.

    Blocks of operate.md say how a test checks them (```sh run). Markdown's extension would take them for no blocks.
    """
    return re.sub(r"^```sh [a-z].*$", "```sh", re.sub(r"(?<=\]\()\.\./", "", text), flags=re.MULTILINE)


def from_the_root(text: str) -> str:
    """Return a page of the repository's root with links as they are in the site."""
    return re.sub(r"(?<=\]\()docs/", "", text)


def python_reference() -> Iterator[str]:
    yield "# Python reference\n\nEverything that `approvals_bot` exports, by its docstrings."
    modules = {name: approvals_bot._MODULES.get(name, "approvals_bot.errors") for name in approvals_bot.__all__}
    for group, beginnings in GROUPS.items():
        yield f"\n## {group}\n"
        for name, module in modules.items():
            if module.removeprefix("approvals_bot.").startswith(beginnings):
                yield f"::: approvals_bot.{name}\n    options: {{heading_level: 3}}\n"


def api_reference() -> Iterator[str]:
    yield "# API reference\n\nEvery route, as `/openapi.json` describes it. Most need a key: `Authorization: Bearer …`."
    for path, operations in document("https://approvals.acme.eu", chat=True)["paths"].items():
        yield f"\n## `{path}`"
        for method, operation in operations.items():
            if method == "parameters":
                continue
            yield f"\n**{method.upper()}** {operation['summary']}\n"
            if operation.get("description"):
                yield f"{operation['description']}\n"
            yield "| Answer | |\n|---|---|"
            for status, response in operation["responses"].items():
                yield f"| {status} | {' '.join(response['description'].split())} |"


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
