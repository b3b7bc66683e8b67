"""`approvals-bot sessions`: where somebody is signed in, and signing them out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from approvals_bot.cli.commands import app
from approvals_bot.durable.engine import Engine
from approvals_bot.service.sessions import Sessions

CONFIG = """
[server]
base_url = "https://approve.acme.eu"
database = "sqlite:///runs.db"
signing_keys = ["env:SESSIONS_KEY"]
"""
KEY = "a signing key of the tests: 0123456789abcdef"


def run(folder: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["sessions", *words, "--config", str(folder / "config.toml")], env={"SESSIONS_KEY": KEY}
    )
    return result.exit_code, result.output


async def sign_in(folder: Path, person: str, browser: str) -> None:
    async with Engine.open(f"sqlite:///{folder}/runs.db") as engine:
        await Sessions(engine).begin(person, method="code", browser=browser)


def test_sessions_are_listed_and_ended(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    for person, browser in (("ann@acme.eu", "Firefox on Linux"), ("ann@acme.eu", ""), ("bo@acme.eu", "Chrome")):
        asyncio.run(sign_in(tmp_path, person, browser))
    code, listed = run(tmp_path, "list", "Ann@ACME.eu")
    assert code == 0
    assert "Firefox on Linux: signed in" in listed
    assert "unknown browser: signed in" in listed
    assert len(json.loads(run(tmp_path, "list", "ann@acme.eu", "--json")[1])) == 2
    assert run(tmp_path, "end", "ann@acme.eu") == (0, "Ended 2 sessions of ann@acme.eu.\n")
    assert run(tmp_path, "list", "ann@acme.eu") == (0, "ann@acme.eu isn't signed in anywhere.\n")
    assert len(json.loads(run(tmp_path, "list", "bo@acme.eu", "--json")[1])) == 1
    assert run(tmp_path, "end", "nobody")[0] == 1
