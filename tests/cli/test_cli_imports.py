"""What commands import: a quick start is held by which modules are loaded, not by timing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

import pytest

CONFIG = """
[server]
base_url = "http://127.0.0.1:8000"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
[api_keys]
ci = "env:KEY"
[slack]
bot_token = "env:KEY"
signing_secret = "env:KEY"
"""
WORKFLOW = """
[workflow]
id = "deploy"
title = "Deploy {{ version }}"
request = ["*", "app:ci"]
[fields]
version = "string"
[[stage]]
id = "go"
when = 'version != "0"'
from = ["ann@acme.eu"]
"""
PROGRAM = """
from approvals_bot import workflow

@workflow
async def imported_by_check() -> None:
    pass
"""
ENVIRONMENT = {"KEY": "a-key-of-these-tests-that-has-32-bytes!", "PATH": ""}

ENGINE = (
    "approvals_bot.durable.engine",
    "approvals_bot.durable.store",
    "approvals_bot.durable.core.api",
    "approvals_bot.approvals.workflow",
)
SERVING = ("approvals_bot.app", "approvals_bot.channels", "approvals_bot.web", "approvals_bot.outgoing", "starlette")
LIBRARIES = ("aiohttp", "aiosmtplib", "asyncpg", "prometheus_client", "slack_bolt", "slack_sdk", "sqlite3", "uvicorn")
PYTHON_FILES = ("approvals_bot.durable.lint", "approvals_bot.service.python_workflows")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "deploy.toml").write_text(WORKFLOW)
    return tmp_path


def imported(folder: Path, words: list[str], among: Collection[str]) -> set[str]:
    """Run a command, and return which of these modules it imported."""
    code = f"""
import sys
from approvals_bot.cli import app
try:
    app({words!r})
except SystemExit as done:
    assert not done.code, done.code
print(*sys.modules, file=sys.stderr)
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {*done.stderr.splitlines()[-1].split()} & {*among}


def test_check_imports_neither_engine_nor_service(folder: Path) -> None:
    assert imported(folder, ["check"], [*ENGINE, *SERVING, *LIBRARIES, *PYTHON_FILES]) == set()


def test_check_imports_the_core_for_python_files_alone(folder: Path) -> None:
    (folder / "workflows" / "program.py").write_text(PROGRAM)
    found = imported(folder, ["check"], [*ENGINE, *SERVING, *LIBRARIES, *PYTHON_FILES])
    assert found == {"approvals_bot.durable.core.api", *PYTHON_FILES}


NEVER_SERVED = (
    *("aiohttp", "aiosmtpd", "aiosmtplib", "asyncpg", "css_inline", "httpx2", "slack_bolt", "slack_sdk"),
    *("approvals_bot.durable.lint", "approvals_bot.playground", "approvals_bot.testing"),
)


NEEDED = [
    (CONFIG.partition("[slack]")[0], set[str]()),
    (CONFIG, {"slack_sdk", "aiohttp"}),  # whose app this is, is asked at the start
]


@pytest.mark.parametrize(("config", "needed"), NEEDED)
def test_serve_loads_what_it_needs_until_it_is_ready(folder: Path, config: str, needed: set[str]) -> None:
    (folder / "config.toml").write_text(config)
    code = f"""
import click, os, sys
from approvals_bot.cli import app

def ready(text):
    print(*({ {*NEVER_SERVED} - needed!r} & sys.modules.keys()), text, flush=True)
    os._exit(0)

click.echo = ready
app(["serve", "--port", "0"])
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("Approvals Bot is ready"), done.stdout + done.stderr


def test_version_is_that_of_the_installed_package() -> None:
    line = [sys.executable, "-m", "approvals_bot", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"approvals-bot {version('approvals-bot')}\n"


def test_version_and_help_read_no_metadata(folder: Path) -> None:
    for words in (["--version"], ["--help"]):
        assert imported(folder, words, ["importlib.metadata", "pydantic", "asyncio"]) == set()


def test_models_are_built_when_they_are_used(folder: Path) -> None:
    code = """
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Request
from approvals_bot.config.service import ServiceSettings
for model in (Definition, Request, ServiceSettings):
    assert not model.__pydantic_complete__, model
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=60, check=True)
