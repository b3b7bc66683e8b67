"""Secrets: references in the file (`env:NAME`, `file:path`), values only in memory.

A value never appears in a repr, a dump or an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, SecretStr, ValidationInfo, WithJsonSchema

from approvals_bot.approvals.base import refuse

_LONGEST = 16_384  # characters of a secret file: a key or token, not a mistaken path to a log


def look_up(value: object, info: ValidationInfo) -> SecretStr:
    """Look up `env:NAME` or `file:path`. Refuses references to nothing and secrets in the file itself."""
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise refuse('refer to a secret as "env:NAME" or "file:path"')
    context: Mapping[str, object] = info.context or {}
    scheme, _, name = value.partition(":")
    if scheme == "env" and name:
        environment = context.get("env")
        found = environment.get(name) if isinstance(environment, Mapping) else None
        if not found:
            raise refuse(f"the environment variable {name} is not set" if found is None else f"{name} is set but empty")
        return SecretStr(found)
    if scheme == "file" and name:
        return SecretStr(_read(Path(str(context.get("folder", "."))) / name, name))
    raise refuse('secrets don\'t belong in this file; refer to it as "env:NAME" or "file:path"')


def secret_files(config: Path) -> list[Path]:
    """Return the files that a configuration refers to as secrets; [] if it can't be read."""
    try:
        status = config.stat()
        return list(_named_files(config, status.st_mtime_ns, status.st_size))
    except (OSError, ValueError):  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        return []


@lru_cache(maxsize=8)
def _named_files(config: Path, modified_at: int, size: int) -> tuple[Path, ...]:
    """Return them for this state of the file, which is looked at once a second."""
    return tuple(config.parent / name for name in _references(tomllib.loads(config.read_text("utf-8-sig"))))


def _references(value: object) -> Iterator[str]:
    match value:
        case dict():
            for each in value.values():
                yield from _references(each)
        case list():
            for each in value:
                yield from _references(each)
        case str() if value.startswith("file:"):
            yield value.removeprefix("file:")


def _read(path: Path, name: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not a text file"
        raise refuse(f"the secret's file {name} can't be read: {reason}") from None
    text = text.strip()
    if not text or len(text) > _LONGEST:
        raise refuse(f"the secret's file {name} is " + ("empty" if not text else f"over {_LONGEST:,} characters"))
    return text


Secret = Annotated[
    SecretStr,
    BeforeValidator(look_up),
    PlainSerializer(lambda secret: str(secret), return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^(env|file):.+", "examples": ["env:NAME", "file:path"]}),
]
"""A secret by reference. `.get_secret_value()` returns it; everything else shows asterisks."""
