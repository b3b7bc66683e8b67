"""What all commands share: no tracebacks, no unwanted colour, and a quick start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from approvals_bot.cli import terminal
from approvals_bot.cli.commands import COMMANDS, TRACEBACK, Commands, load
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.refusals import OpeningRefused
from tests.support.small_site import Site

NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

SERVICE_ONLY = ("rule_engine", "aiohttp", "slack_bolt", "uvicorn", "jinja2", "aiosmtplib")


@pytest.mark.parametrize("words", [["--help"], ["runs"], ["show", "run_0"]], ids=" ".join)
def test_read_only_commands_import_no_service_modules(site: Site, words: list[str]) -> None:
    code = f"""
import sys
from approvals_bot.cli import app
try:
    app({[*words, *(["--config", str(site.config)] if words != ["--help"] else [])]!r})
except SystemExit:
    pass
print(*(name for name in {SERVICE_ONLY!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == ""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["no-such-command"]], ids=" ".join)
def test_what_runs_no_command_imports_none(words: list[str]) -> None:
    code = f"""
import sys
from approvals_bot.cli import app
try:
    app({words!r})
except SystemExit:
    pass
print(*(name for name in sys.modules if name.startswith("approvals_bot.")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {*done.stderr.splitlines()[-1].split()} == {"approvals_bot.cli", "approvals_bot.cli.commands"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_in_help_is_its_own_first_line(name: str) -> None:
    line, command = COMMANDS[name][1], load(name)
    assert (command.name, (command.help or "").splitlines()[0]) == (name, line)


def _failing(error: Exception) -> click.Group:
    app = Commands()

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (StoreUnavailableError("The database is away."), "The database is away.\n"),
        (
            OpeningRefused("input_not_storable", ("input", "a"), error="is odd"),
            "Invalid input. Nothing was started.\n  input.a: is odd\n",
        ),
        (FileNotFoundError(2, "No such file or directory", "a.toml"), "a.toml: No such file or directory\n"),
        (OSError(28, "No space left on device"), "The operating system reported an error: No space left on device.\n"),
        (KeyError("x"), "This is a bug in Approvals Bot: KeyError: 'x'\n"),
    ],
)
def test_errors_are_a_sentence_on_standard_error(error: Exception, printed: str) -> None:
    result = CliRunner().invoke(_failing(error), ["fail"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(printed)
    assert "Traceback" not in result.stderr


def test_environment_variable_turns_tracebacks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACK, "1")
    assert "Traceback" in CliRunner().invoke(_failing(KeyError("x")), ["fail"]).stderr


def test_closed_pipe_ends_the_command_quietly(site: Site) -> None:
    command = f"{sys.executable} -m approvals_bot schema service | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert "Traceback" not in done.stderr


def test_unopenable_database_is_one_sentence(site: Site) -> None:
    site.write("config.toml", site.config.read_text().replace("approvals.db", "workflows"))
    command = [sys.executable, "-m", "approvals_bot", "runs", "--config", str(site.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("workflows can't be opened: unable to open database file\n")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONIOENCODING": "latin-1"}, NO_UTF8])
def test_terminal_without_icons_is_not_an_error(site: Site, settings: dict[str, str]) -> None:
    site.start(days=3, why="\N{SNOWMAN} caf\xe9 \N{PILE OF POO}")
    site.work()

    def typed(*words: str) -> bytes:
        command = [sys.executable, "-m", "approvals_bot", *words, "--config", str(site.config)]
        environment = {**os.environ, **settings}
        return subprocess.run(command, capture_output=True, timeout=60, check=True, env=environment).stdout

    assert b"Waiting: 3 days off" in typed("runs")
    if settings is NO_UTF8:  # the least that a terminal can do
        fields = json.loads(typed("runs", "--json"))["runs"][0]["request"]["fields"]
        assert fields["why"] == "\N{SNOWMAN} caf\xe9 \N{PILE OF POO}"
        typed("check")


def test_unknown_command_is_explained_by_click(site: Site) -> None:
    result = CliRunner().invoke(_failing(KeyError("x")), ["fial"])
    assert result.exit_code == 2
    assert "fial" in result.stderr


def test_headings_are_bold_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.bold("x") == "\x1b[1mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.bold("x") == "x"


def test_piped_output_has_no_escapes(site: Site) -> None:
    command = [sys.executable, "-m", "approvals_bot", "runs", "--config", str(site.config)]
    site.start()
    environment: Any = {**os.environ, "TERM": "xterm-256color"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout.startswith("RUN ")
