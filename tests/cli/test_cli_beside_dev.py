"""Commands beside a running playground whose clock was moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from approvals_bot.cli import app
from tests.support.journey import Service

ROOT = Path(__file__).parents[2]


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Service]:
    shutil.copy(ROOT / "config.example.toml", tmp_path)
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    service = Service(tmp_path)
    try:
        yield service.start("--config", str(tmp_path / "config.example.toml"))
    finally:
        if service.process is not None:
            service.stop()
        service.http.close()


def typed(service: Service, *words: str) -> Any:
    config = str(service.folder / ".approvals" / "config.toml")
    result = CliRunner().invoke(app, [*words, "--json", "--config", config])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_commands_use_the_playgrounds_clock(playground: Service) -> None:
    playground.play("POST", "/clock", json={"advance": "2d"})
    given = ("--input", '{"service": "api", "version": "2.1", "env": "prod", "risk": "high"}')
    run = typed(playground, "start", "deploy", *given, "--requester", "bo@acme.eu")["run_id"]
    playground.settled(run)
    first = typed(playground, "vote", run, "--by", "ann@acme.eu", "--choice", "approve")
    assert first["text"] == "Counted: 1 of 3. Waiting for two more from SRE."
    waiting = {each["person"] for each in typed(playground, "explain", run)["waiting_for"]}
    assert waiting == {"cy@acme.eu", "di@acme.eu"}
    moments = [event["at"] for event in playground.events(run)]
    assert moments == sorted(moments), "commands write with the playground's clock"
    simulated = typed(playground, "simulate", "deploy", *given, "--requester", "bo@acme.eu")
    assert simulated["timers"][0]["at"] > moments[-1]
    assert typed(playground, "doctor")["findings"]
    file = playground.folder / "audit.jsonl"
    typed(playground, "audit", "export", "--output", str(file))
    config = str(playground.folder / ".approvals" / "config.toml")
    checked = CliRunner().invoke(app, ["audit", "verify", str(file), "--config", config])
    assert checked.stdout.startswith("✅ Unchanged")
