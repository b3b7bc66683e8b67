"""Completion in shells: what click offers for our commands, and the line that a shell's file gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from approvals_bot.cli import app
from approvals_bot.cli.completion import LINES


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("se", {"serve", "sessions"}),
        ("sessions e", {"end"}),
        ("audit export --o", {"--output"}),
        ("schema te", {"tests"}),
    ],
)
def test_commands_and_options_are_completed(typed: str, offered: set[str]) -> None:
    words = f"approvals-bot {typed}"
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    environment["_APPROVALS_BOT_COMPLETE"] = "bash_complete"
    done = CliRunner().invoke(app, env=environment, prog_name="approvals-bot")
    assert {line.removeprefix("plain,") for line in done.stdout.split()} >= offered
    assert all(line.removeprefix("plain,").startswith(typed.split()[-1]) for line in done.stdout.split())


@pytest.mark.parametrize("shell", LINES)
def test_install_completion_adds_one_line(tmp_path: Path, shell: str) -> None:
    name, line = LINES[shell]
    environment = {"HOME": str(tmp_path), "SHELL": f"/usr/bin/{shell}"}
    (file := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# mine")
    for _ in range(2):
        assert CliRunner().invoke(app, ["--install-completion"], env=environment).exit_code == 0
    assert file.read_text() == f"# mine\n{line}\n"
    shown = CliRunner().invoke(app, ["--show-completion"], env=environment)
    assert f"_APPROVALS_BOT_COMPLETE={shell}_complete" in shown.stdout


def test_shells_without_completion_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--install-completion"], env={"HOME": str(tmp_path), "SHELL": "/bin/ksh"})
    assert (done.exit_code, [*tmp_path.iterdir()]) == (2, [])
    assert "$SHELL must be one of bash, zsh, fish, and is 'ksh'." in done.stderr
