"""Writes TOML: what `dev` derives from another file, and the line that `keys new` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def document(table: Mapping[str, Any]) -> str:
    """Return a table as a file. Tables get a header each, and those in lists are written inline.

    >>> print(document({"server": {"port": 8000}, "people": {"bo@acme.eu": {"name": "Bo"}}}), end="")
    [server]
    port = 8000
    <BLANKLINE>
    [people."bo@acme.eu"]
    name = "Bo"
    """
    return "\n".join(_sections(table, ()))


def inline(value: Any) -> str:
    """Return a value in one line. Raises TypeError for what TOML has no form for, such as None."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case Mapping():
            return f"{{ {', '.join(_pairs(value))} }}" if value else "{}"
        case list() | tuple():
            return f"[{', '.join(map(inline, value))}]"
        case _:
            raise TypeError(f"TOML has no {type(value).__name__}")


def _sections(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    lines = [*_pairs({name: value for name, value in table.items() if name not in tables})]
    if lines or not tables:
        header = [f"[{'.'.join(map(_key, path))}]"] if path else []
        yield "".join(f"{line}\n" for line in header + lines)
    for name, value in tables.items():
        yield from _sections(value, (*path, name))


def _pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield f"{_key(name)} = {inline(value)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else inline(name)
