"""What several commands take, and how what was typed is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

CONFIG = Path("config.toml")

Config = Annotated[Path, typer.Option("--config", help="The service's file.", metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")]
Input = Annotated[str, typer.Option(help="The input, as a JSON object.", metavar="JSON")]
OnBehalfOf = Annotated[str | None, typer.Option(help="The person for whom it is asked.", metavar="ADDRESS")]


def fail(text: str) -> NoReturn:
    """One sentence on standard error, and exit 1."""
    typer.echo(text, err=True)
    raise typer.Exit(1)


def read_json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        fail(f"{option} is not JSON: {error}")


def read_object(text: str, option: str) -> dict[str, Any]:
    value = read_json(text, option)
    if not isinstance(value, dict):
        fail(f'{option} must be a JSON object, like \'{{"version": "2.1"}}\'')
    return value


def read_pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`name=value`, as often as it was given."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"{option} is written {option} name=value, not {text!r}")
        pairs[name] = value
    return pairs
