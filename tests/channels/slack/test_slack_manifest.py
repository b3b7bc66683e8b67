"""The manifest: Slack accepts it, and it asks for no more than the code calls."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator

import approvals_bot.channels.slack
import approvals_bot.channels.slack.channel
from approvals_bot.channels.slack.manifest import FEATURE_SCOPES, FUNCTION, METHODS, SCOPES, manifest
from approvals_bot.cli import app
from tests.channels.slack.test_slack_builder import STEPS

DATA = Path(__file__).parents[2] / "data"
ROOMS = (*Path(approvals_bot.channels.slack.__file__).parent.glob("*.py"),)
NAMED = re.compile(
    r'"((?:admin|auth|bots|chat|conversations|files|functions|im|oauth|team|usergroups|users|views)\.[A-Za-z.]+)"'
)


def scopes_of_slack() -> dict[str, list[str]]:
    known: dict[str, list[str]] = json.loads((DATA / "slack_scopes.json").read_text())
    return known


@pytest.mark.check(38)
def test_the_table_of_methods_names_what_the_code_calls() -> None:
    called = {
        name for file in ROOMS if file.name != "manifest.py" for name in NAMED.findall(file.read_text(encoding="utf-8"))
    }
    assert called == set(METHODS)


@pytest.mark.check(38)
def test_the_scopes_are_those_that_slack_wants_for_the_methods() -> None:
    known = scopes_of_slack()
    for method, scopes in METHODS.items():
        beyond = set(scopes) - set(known[method]) - ({"users:read.email"} if method == "users.info" else set())
        assert not beyond, f"{method} does not need {beyond}"
        assert bool(scopes) == bool(known[method]), f"{method} needs one of {known[method]}"
    assert set(SCOPES) == {scope for scopes in METHODS.values() for scope in scopes} | set(FEATURE_SCOPES)


@pytest.mark.check(38)
@pytest.mark.parametrize("socket", [True, False])
def test_slacks_own_schema_accepts_the_manifest(socket: bool) -> None:
    schema = json.loads((DATA / "slack_manifest.schema.2.0.0.json").read_text())
    errors = [error.message for error in Draft7Validator(schema).iter_errors(manifest("https://a.eu", socket=socket))]
    assert errors == []


def test_http_has_one_url_and_socket_mode_none() -> None:
    by_http = json.dumps(manifest("https://approve.acme.eu/", socket=False))
    assert by_http.count("https://approve.acme.eu/slack/events") == 3
    by_socket = manifest("https://approve.acme.eu/", socket=True)
    assert "acme" not in json.dumps(by_socket)
    assert by_socket["settings"]["socket_mode_enabled"] is True


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["slack", "manifest", *arguments])


def test_the_command_prints_the_manifest_without_a_token(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[server]\nbase_url = "https://approve.acme.eu"\n[slack]\napp_token = "env:NOT_SET"\n')
    done = run("--config", str(config), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == manifest("https://approve.acme.eu", socket=True)
    assert json.loads(run("--config", str(config), "--http", "--json").stdout) == manifest(
        "https://approve.acme.eu", socket=False
    )


def test_without_json_it_adds_instructions_on_stderr() -> None:
    done = run("--base-url", "http://127.0.0.1:8000")
    assert json.loads(done.stdout)["display_information"]["name"] == "Approvals"
    assert "From a manifest" in done.stderr
    assert "--socket needs no public URL" in done.stderr


def test_without_any_url_it_says_what_is_missing(tmp_path: Path) -> None:
    done = run("--config", str(tmp_path / "none.toml"))
    assert done.exit_code == 1
    assert "--base-url" in done.stderr


def test_steps_are_in_the_manifest_as_slack_wants_them() -> None:
    made = manifest("https://a.eu", socket=False, steps=[STEPS])
    schema = json.loads((DATA / "slack_manifest.schema.2.0.0.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(made)] == []
    inputs = made["functions"][f"{FUNCTION}deploy"]["input_parameters"]
    kinds = {name: about["type"] for name, about in inputs["properties"].items()}
    assert kinds == {
        "requester": "slack#/types/user_id",
        "service": "string",
        "version": "string",
        "count": "integer",
        "urgent": "boolean",
    }
    assert inputs["required"] == ["requester", "service", "version", "count", "urgent"]
    assert "function_executed" in made["settings"]["event_subscriptions"]["bot_events"]
    plain = manifest("https://a.eu", socket=False)
    assert "functions" not in plain
    assert "function_executed" not in json.dumps(plain)
