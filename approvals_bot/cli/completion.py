"""`--install-completion` and `--show-completion`: what a shell needs to complete commands and options.

click generates the scripts: `_APPROVALS_BOT_COMPLETE=bash_source approvals-bot` prints the one of Bash.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

PROGRAM, VARIABLE = "approvals-bot", "_APPROVALS_BOT_COMPLETE"

LINES = {
    "bash": (".bashrc", f'eval "$({VARIABLE}=bash_source {PROGRAM})"'),
    "zsh": (".zshrc", f'eval "$({VARIABLE}=zsh_source {PROGRAM})"'),
    "fish": (".config/fish/completions/approvals-bot.fish", f"{VARIABLE}=fish_source {PROGRAM} | source"),
}
"""For each shell: the file in the home folder that it reads at its start, and the line that it needs there."""


def install() -> None:
    """Add the line to the shell's file, unless it is there."""
    name, line = LINES[_shell()]
    file = Path.home() / name
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text("utf-8") if file.exists() else ""
    if line not in before.splitlines():
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n")
    click.echo(f"{file} has this line now, for new terminals: {line}")


def script(app: click.Command) -> str:
    """Return the script that the shell reads."""
    found = get_completion_class(_shell())
    assert found is not None, "click has one for each of LINES"
    return found(app, {}, PROGRAM, VARIABLE).source()


def _shell() -> str:
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in LINES:
        raise click.UsageError(f"$SHELL must be one of {', '.join(LINES)}, and is {shell!r}.")
    return shell
