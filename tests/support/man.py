"""The manual page, from the commands' help: `python -m tests.support.man` updates docs/approvals-bot.1.

It is written with the macros of man(7), so that every man program reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import approvals_bot
from approvals_bot.cli.commands import COMMANDS, load
from tests.support.commands import arguments, leaves

DOCUMENT = Path(__file__).parents[2] / "docs" / "approvals-bot.1"
FILES = {
    "config.toml": "The configuration of the service. See docs/configuration.md.",
    "workflows/": "The workflows, each a TOML or Python file, and their policy tests.",
    ".approvals/": "What approvals-bot dev keeps: its configuration and its database.",
}
EXITS = {
    "0": "It was done.",
    "1": "It could not be done, or what was checked has a fault; standard error says which.",
    "2": "The command line can't be right.",
}


def page() -> str:
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield f'.TH APPROVALS\\-BOT 1 "" "approvals\\-bot {approvals_bot.__version__}" "User Commands"'
    yield ".SH NAME\napprovals\\-bot \\- approvals by Slack and email, on durable workflows"
    yield ".SH SYNOPSIS\n.B approvals\\-bot\n.I COMMAND\n.RI [ OPTIONS ]"
    yield ".SH DESCRIPTION"
    yield _text(
        "Runs the service (serve, dev), and works beside a running one, with the same configuration and database."
    )
    yield ".SH COMMANDS"
    for name, command in (each for first in COMMANDS for each in leaves(load(first), first)):
        yield f".SS {_text(' '.join([name, *arguments(command)]))}"
        yield from _paragraphs(command.help or "")
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                yield f".TP\n.B {_text(', '.join([*option.opts, *option.secondary_opts]))}"
                yield _text(option.help or "")
    yield ".SH FILES"
    yield from (f".TP\n.I {_text(name)}\n{_text(what)}" for name, what in FILES.items())
    yield ".SH EXIT STATUS"
    yield from (f".TP\n.B {code}\n{_text(what)}" for code, what in EXITS.items())


def _paragraphs(help_: str) -> Iterator[str]:
    """Yield the paragraphs of a command's help. One after a backspace is an example, whose lines stay as they are."""
    for paragraph in re.split(r"\n\s*\n", help_.strip()):
        if "\b" in paragraph:
            lines = [line.strip() for line in paragraph.replace("\b", "").strip().splitlines()]
            yield ".PP\n.nf\n" + "\n".join(map(_text, lines)) + "\n.fi"
        else:
            yield f".PP\n{_text(paragraph)}"


def _text(text: str) -> str:
    """Return text in one line, with nothing in it that roff would read as its own."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    DOCUMENT.write_text(page())
