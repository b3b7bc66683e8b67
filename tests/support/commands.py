"""The table of commands in docs/cli.md, from their help. Run it to update that table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from approvals_bot.cli.commands import COMMANDS, load

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"
BETWEEN = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- end of commands -->)", re.DOTALL)


def table() -> str:
    rows = ["| Command | What it does | Options |", "|---|---|---|"]
    for name, command in (each for first in COMMANDS for each in leaves(load(first), first)):
        what = " ".join((command.help or "").partition("\b")[0].split())  # an example follows
        rows.append(f"| `{' '.join([name, *arguments(command)])}` | {what} | {'<br>'.join(_options(command))} |")
    return "\n".join(rows) + "\n"


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each command below this one, with its whole name."""
    if hasattr(command, "commands"):
        for inner, each in command.commands.items():
            yield from leaves(each, f"{name} {inner}".strip())
    else:
        yield name, command


def arguments(command: Any) -> Iterator[str]:
    """Yield the arguments of a command as its help writes them."""
    for each in command.params:
        if each.param_type_name == "argument":
            label = (each.metavar or each.name).upper().strip("{}[]")
            yield label if each.required else f"[{label}]"


def _options(command: Any) -> Iterator[str]:
    for each in command.params:
        if each.param_type_name == "option" and each.name != "help":
            names = "/".join([*each.opts, *each.secondary_opts])
            help_ = " ".join((each.help or "").split())
            assert help_, f"{command.name} {names} has no help"
            metavar = "" if getattr(each, "is_flag", False) else f" {each.metavar or 'VALUE'}"
            needed = " *needed.*" if each.required else ""
            default = _default(each.to_info_dict()["default"])
            yield f"`{names}{metavar}`{needed} {help_}{default}"


def _default(value: Any) -> str:
    return "" if value in (None, "", False, [], ()) or callable(value) else f" (`{value}`)"


def main() -> None:
    DOCUMENT.write_text(BETWEEN.sub(lambda _: table(), DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
