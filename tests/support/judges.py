"""Judges of mails and pages that we did not write, from npm; a test that needs one says so when it isn't there."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "node"
INSTALL_LIMIT = 90
"""Seconds that npm may take; pytest gives a test 120."""

NEEDED_IN_MAIL = ("no-inline-style", "no-deprecated-attr", "no-conditional-comment")
"""Rules that mail has to break: clients drop style sheets, know tables best, and Outlook reads conditional comments."""


def judge(package: str) -> Path:
    """The folder of an npm package, installed if it is not yet. Skips the test when it can't be."""
    return node_packages(FOLDER) / "node_modules" / package


def node_packages(folder: Path) -> Path:
    """Install what this folder's package.json names, if it is not yet there. Skips the test when that can't be."""
    why = _missing(folder)
    if why:
        pytest.skip(f"npm's packages of {folder.name} did not judge this: {why}")
    return folder


@cache
def _missing(folder: Path) -> str:
    """Why the packages are not there; "" when they are.

    Several pytest processes ask at once. One installs while the others wait, and only a whole installation counts:
    packages that are there in part look installed, and no compiler takes them.
    """
    wanted = (folder / "package.json").read_text()
    whole = folder / "node_modules" / ".whole"
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "Node is not installed here"
    with (folder / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if whole.exists() and whole.read_text() == wanted:
            return ""
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return "npm took too long"
        if done.returncode:
            return f"npm failed: {done.stderr[-300:]}"
        whole.write_text(wanted)
        return ""


def faults_in_html(pages: Mapping[str, str], folder: Path, *, allowed: tuple[str, ...] = ()) -> list[str]:
    """What html-validate finds in these documents, but for the rules that are allowed to be broken."""
    program = judge("html-validate") / "bin" / "html-validate.mjs"
    rules = dict.fromkeys((*allowed, "long-title"), "off")  # a title is people's own, and search engines are kept out
    settings = {"root": True, "extends": ["html-validate:standard"], "rules": rules}
    (folder / ".htmlvalidate.json").write_text(json.dumps(settings))
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    files = [f"{name}.html" for name in pages]
    command = ["node", str(program), "-c", ".htmlvalidate.json", "-f", "json", *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return [
        f"{Path(file['filePath']).name}:{fault['line']} {fault['ruleId']}: {fault['message']}"
        for file in json.loads(done.stdout)
        for fault in file["messages"]
    ]
