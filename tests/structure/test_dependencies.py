"""What `pip install approvals-bot` brings along, and what says so where an extra is missing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from approvals_bot.cli import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MOST = 40  # packages besides ours; fewer is better
MOST_BYTES = 75_000_000
LOADED_BY_OTHERS = {"python-multipart"}  # by Starlette, for forms
NOT_COUNTED = {"approvals-bot", "pip", "setuptools"}
KEY = "a-key-of-these-tests-that-has-32-bytes!"
EXTRAS = PROJECT["optional-dependencies"]


def brought_by(requirements: list[str]) -> set[str]:
    """Return the packages that these bring, with all that they need in turn."""
    found, todo = set[str](), [Requirement(each) for each in requirements]
    while todo:
        one = todo.pop()
        extras = [{"extra": extra} for extra in (one.extras or {""})]
        if (name := canonicalize_name(one.name)) in found and not one.extras:
            continue
        found.add(name)
        for line in requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                todo.append(needed)
    return found


def test_a_plain_install_brings_few_packages() -> None:
    found = brought_by(PROJECT["dependencies"])
    assert len(found) <= MOST, sorted(found)
    assert not found & {"typer", "rich", "email-validator", "aiosmtpd", "httpx2", "pydantic-ai-slim", "asyncpg"}


def test_each_dependency_is_imported_somewhere() -> None:
    trees = (ast.parse(file.read_text()) for file in (ROOT / "approvals_bot").rglob("*.py"))
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    packages = packages_distributions()
    imported = {canonicalize_name(package) for name in modules for package in packages.get(name.partition(".")[0], ())}
    needed = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
    assert needed - imported == LOADED_BY_OTHERS


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_in_the_table_of_the_readme(extra: str) -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| `{extra}` |")]
    assert len(rows) == 1


def test_dev_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd", None)
    done = CliRunner().invoke(app, ["dev"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "The playground's mailbox needs one more package: pip install 'approvals-bot[dev]'\n"


def test_listening_for_mail_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd", None)
    config = tmp_path / "config.toml"
    config.write_text(
        '[server]\nbase_url = "http://127.0.0.1:8000"\ndatabase = "sqlite:///a.db"\nsigning_keys = ["env:KEY"]\n'
        '[email]\nhost = "127.0.0.1"\nport = 25\nsecurity = "none"\nsender = "a@acme.eu"\n'
        '[email.bounces]\naddress = "bounces@acme.eu"\nlisten = "127.0.0.1:2526"\n'
    )
    done = CliRunner().invoke(app, ["check", "--config", str(config)], env={"KEY": KEY})
    needs = "needs one more package: pip install 'approvals-bot[listen]'"
    assert (done.exit_code, done.stdout) == (1, f"{config}:12: email.bounces.listen: {needs}\n")


def test_the_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from approvals_bot.client import Approvals, SyncApprovals

    monkeypatch.setitem(sys.modules, "httpx2", None)
    for client in (Approvals, SyncApprovals):
        with pytest.raises(ImportError, match=r"pip install 'approvals-bot\[client\]'"):
            client("http://127.0.0.1:8000", "dev")


LOOK = """
import json, sys
from click.testing import CliRunner
import approvals_bot, approvals_bot.client
from approvals_bot.cli import app
from approvals_bot.cli.commands import COMMANDS, load

for name in COMMANDS:
    load(name)
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, (name, done.output)
from approvals_bot.client import Approvals, digest_of
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_plain_install_is_light_and_works(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT], check=True, timeout=500)
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True)
    names = {canonicalize_name(each["name"]) for each in json.loads(listed.stdout)} - NOT_COUNTED
    assert len(names) <= MOST, sorted(names)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    counted = [each for each in packages.iterdir() if not each.name.startswith(("pip", "setuptools"))]
    assert sum(each.stat().st_blocks * 512 for folder in counted for each in folder.rglob("*")) <= MOST_BYTES

    subprocess.run([python, "-c", LOOK], cwd=tmp_path, check=True, timeout=200)
    example = ROOT / "config.example.toml"
    secrets = {name: f"{KEY} {name}" for name in re.findall(r"env:(\w+)", example.read_text())}
    check = [str(tmp_path / "venv/bin/approvals-bot"), "check", "--config", str(example)]
    done = subprocess.run(check, env=os.environ | secrets, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
