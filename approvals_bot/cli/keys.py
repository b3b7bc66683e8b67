"""`keys`: make the key of a program that calls the API."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from approvals_bot.cli.common import config_option, fail, json_option, misuse, write_whole
from approvals_bot.cli.terminal import say
from approvals_bot.cli.toml_text import inline
from approvals_bot.config.api_keys import ApiKeyEntry

PREFIX = "apb_"  # so that scanners of repositories find what was committed by mistake
RANDOM = 32  # bytes

keys = click.Group("keys", help="Make API keys.")


@keys.command()
@click.argument("name", help="The program's name: ci is app:ci in requests.")
@config_option
@click.option("--may", multiple=True, metavar="RIGHT", help="A right; repeatable. Without it: start and read.")
@click.option("--workflow", multiple=True, metavar="NAME", help="A workflow that the key is limited to; repeatable.")
@click.option(
    "--requester",
    multiple=True,
    metavar="ADDRESS",
    help="Whom it may name as requester: @group, an address, or *; repeatable.",
)
@click.option("--expires", metavar="YYYY-MM-DD", help="The first day on which it is refused.")
@click.option("--write", is_flag=True, help="Also write the key to secrets/NAME.key.")
@json_option
def new(
    name: str,
    config: Path,
    may: tuple[str, ...],
    workflow: tuple[str, ...],
    requester: tuple[str, ...],
    expires: str | None,
    write: bool,
    as_json: bool,
) -> None:
    """Make an API key. Prints it once, with the line for [api_keys].

    Nothing is changed, unless --write puts the key into a file that only its owner can read.

    \b
    Example: approvals-bot keys new ci --may start --may read --workflow deploy --expires 2027-06-30 --write
    """
    value = PREFIX + secrets.token_urlsafe(RANDOM)
    variable = name.upper().replace("-", "_") + "_KEY"
    reference = f"file:secrets/{name}.key" if write else f"env:{variable}"
    given = {"may": may, "workflows": workflow, "requesters": requester, "expires": expires}
    options = {option: text for option, text in given.items() if text}
    line = _line(name, reference, options, value)
    file = config.parent / "secrets" / f"{name}.key"
    if write:
        if file.exists():
            fail(f'{file} exists, and was left alone. Move it away, or name both files: key = ["file:…", "file:…"].')
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, value + "\n")
    where = f"It is in {file}, which nobody else can read" if write else f"Set {variable} to it"
    text = "\n".join(
        [
            f"The key, which is shown only now: {value}",
            "",
            f"{where}. For [api_keys] of {config}:",
            line,
        ]
    )
    say({"name": name, "key": value, "line": line, "file": str(file) if write else None}, text, as_json)


def _line(name: str, reference: str, options: dict[str, tuple[str, ...] | str], value: str) -> str:
    """Return the line of the file, once it is sure that the service would take it."""
    from pydantic import SecretStr, TypeAdapter, ValidationError

    from approvals_bot.approvals.base import Slug

    try:
        TypeAdapter(Slug).validate_python(name)
    except ValidationError:
        misuse(f"{name!r} can't be a name: use letters, digits, dashes and dots, like ci or travel-agent.")
    try:
        ApiKeyEntry.model_validate({"key": SecretStr(value)} | options)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        misuse(f"--{fault['loc'][0]}: {fault['msg']}")
    name = f'"{name}"' if "." in name else name
    if not options:
        return f'{name} = "{reference}"'
    table = {"key": reference} | options
    pairs = [f"{key} = {inline(each)}" for key, each in table.items()]
    return f"{name} = {{ {', '.join(pairs)} }}"
