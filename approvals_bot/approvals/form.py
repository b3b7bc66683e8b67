"""The form of a request that a workflow makes: plain Python values, as fields with types, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from approvals_bot.config.durations import duration_text

LONGEST_LINE = 200  # characters of a text that is shown as a line; a longer one is folded


def named(values: Any) -> dict[str, Any]:
    """The values by name, of a mapping, a dataclass or a pydantic model."""
    match values:
        case Mapping():
            return dict(values)
        case BaseModel():
            return {name: getattr(values, name) for name in type(values).model_fields}
        case _ if dataclasses.is_dataclass(values) and not isinstance(values, type):
            return {member.name: getattr(values, member.name) for member in dataclasses.fields(values)}
    raise TypeError(f"fields must be a mapping, a dataclass or a pydantic model, not a {type(values).__name__}")


def specs(
    values: Mapping[str, Any],
    told: Mapping[str, Any],
    *,
    pinned: Collection[str] | None,
    editable: Collection[str],
    untrusted: Collection[str],
) -> dict[str, Any]:
    """A `[fields]` table: each field by what its value is, or as it was told. Without `pinned`, all are."""
    for name in {*told, *(pinned or ()), *editable, *untrusted}:
        if name not in values:
            raise ValueError(f"there is no field named {name!r}; the fields are {', '.join(values) or 'none'}")
    found = {}
    for name, value in values.items():
        spec = told[name] if name in told else _kind(name, value)
        spec = {"type": spec} if isinstance(spec, str) else dict(spec)
        spec.setdefault("pinned", pinned is None or name in pinned)
        spec.setdefault("editable", name in editable)
        spec.setdefault("untrusted", name in untrusted)
        if value is None:
            spec.setdefault("required", False)
        found[name] = spec
    return found


def plain(value: Any) -> Any:
    """The value as callers of the API give it."""
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return duration_text(value)
        case _:  # money, an URL: what is written is what is meant
            return str(value)


def _kind(name: str, value: Any) -> dict[str, Any]:
    match value:
        case Enum() if isinstance(value.value, str):
            return {"type": "enum", "values": [str(member.value) for member in type(value)]}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float() | Decimal():
            return {"type": "decimal"}
        case datetime():
            return {"type": "datetime"}
        case date():
            return {"type": "date"}
        case timedelta():
            return {"type": "duration"}
        case str() if len(value) > LONGEST_LINE or "\n" in value:
            return {"type": "text", "min_length": 0}
        case str() | None:
            return {"type": "string", "min_length": 0}
    raise TypeError(
        f"a field can't show a {type(value).__name__} ({name!r}): give it as a text, a number, a date, a length of "
        "time or yes and no"
    )
