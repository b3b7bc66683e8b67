"""The values that a Python workflow passes, as fields of a request: their types, their JSON, and whether edits fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from approvals_bot.approvals.acts import Rejection
from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.field_specs import LENGTH
from approvals_bot.approvals.fields import Fits
from approvals_bot.approvals.json_values import DEEPEST, MOST_BYTES, UnfitError
from approvals_bot.approvals.numbers import read_decimal
from approvals_bot.errors import InvalidArgumentError, InvalidPayloadError

LONGEST_STRING = 200  # characters shown on a line; a longer text is folded


def fits_in(kind: type) -> Fits | None:
    """Return the check that edited fields fit the model or dataclass they came from; None for plain values."""
    if not (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)):
        return None
    model = TypeAdapter[Any](kind)

    def fits(typed: Mapping[str, Any]) -> tuple[Rejection, ...]:
        try:
            model.validate_python(dict(typed), by_name=True)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            return tuple(_misfit(fault["loc"], fault["msg"]) for fault in faults)
        return ()

    return fits


def _misfit(loc: tuple[int | str, ...], message: str) -> Rejection:
    place = ".".join(map(str, loc[1:]))
    return Rejection(tuple(map(str, loc[:1])), "not_of_the_type", {"why": f"{place}: {message}" if place else message})


def given_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as JSON. Raises InvalidPayloadError for those that have no such form."""
    given, faults = dict[str, Any](), list[dict[str, Any]]()
    for name, value in values.items():
        try:
            given[name] = as_sent(value)
        except UnfitError as error:
            faults.append({"loc": ["fields", name], "msg": str(error)})
    if faults:
        raise InvalidPayloadError(faults, "fields")
    return given


def values_by_name(values: Any) -> dict[str, Any]:
    """Return the values by name, from a mapping, a dataclass or a pydantic model."""
    match values:
        case Mapping():
            return dict(values)
        case BaseModel():
            return {name: getattr(values, name) for name in type(values).model_fields}
        case _ if dataclasses.is_dataclass(values) and not isinstance(values, type):
            return {member.name: getattr(values, member.name) for member in dataclasses.fields(values)}
    raise InvalidArgumentError(
        f"fields must be a mapping, a dataclass or a pydantic model, not a {type(values).__name__}"
    )


def field_tables(
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    pinned: Collection[str] | None,
    editable: Collection[str],
    untrusted: Collection[str],
) -> dict[str, Any]:
    """Return the `[fields]` table: each field as given, else typed by its value. Without `pinned`, all are pinned."""
    for name in {*given, *(pinned or ()), *editable, *untrusted}:
        if name not in values:
            names = ", ".join(values) or "none"
            raise InvalidArgumentError(f"there is no field named {name!r}; the fields are {names}")
    found = {}
    for name, value in values.items():
        spec = given[name] if name in given else _type_of(name, value)
        spec = {"type": spec} if isinstance(spec, str) else dict(spec)
        spec.setdefault("pinned", pinned is None or name in pinned)
        spec.setdefault("editable", name in editable)
        spec.setdefault("untrusted", name in untrusted)
        if value is None:
            spec.setdefault("required", False)
        found[name] = spec
    return found


def as_sent(value: Any) -> Any:
    """Return the value as an API client would send it."""
    match value:
        case Enum():
            return as_sent(value.value)
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return duration_text(value)
        case Mapping() | list() | tuple() | BaseModel():
            return _nested(value)
        case _ if dataclasses.is_dataclass(value):
            return _nested(value)
        case _:  # money, a URL: as its text
            return str(value)


def _nested(value: Any, depth: int = 2) -> JsonValue:
    """Return a list or object as JSON. Numbers stay numbers; other values are as at the top. Raises UnfitError."""
    if depth > DEEPEST + 3:  # what is only just too deep gets its place below, where limits are checked
        raise UnfitError("too_deep", deepest=DEEPEST)
    match value:
        case Mapping():
            return {_key(key): _nested(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_nested(item, depth + 1) for item in value]
        case float():
            return value
        case BaseModel():
            return {name: _nested(getattr(value, name), depth + 1) for name in type(value).model_fields}
        case None | bool() | int() | str() | Decimal() | Enum() | datetime() | date() | timedelta():
            shown: JsonValue = as_sent(value)
            return shown
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {one.name: _nested(getattr(value, one.name), depth + 1) for one in dataclasses.fields(value)}
        case UUID():
            return str(value)
    raise UnfitError("not_json_type", type=type(value).__name__)


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise UnfitError("not_text_key")
    return key


def _is_number(value: float | Decimal) -> bool:
    """Return whether this number, as it is sent, is one that a decimal field may have."""
    try:
        read_decimal(str(value))
    except UnfitError:
        return False
    return True


def _type_of(name: str, value: Any) -> dict[str, Any]:
    match value:
        case Enum() if isinstance(value.value, str):
            return {"type": "enum", "values": [str(member.value) for member in type(value)]}
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float() | Decimal() if not isfinite(value) or _is_number(value):
            return {"type": "decimal"}
        case float() | Decimal():  # computed, or as models write them: shown as they are rather than refused
            return {"type": "string", "min_length": 0}
        case datetime():
            return {"type": "datetime"}
        case date():
            return {"type": "date"}
        case timedelta():
            return {"type": "duration"}
        case str() if len(value) > LENGTH["text"]:
            return {"type": "text", "min_length": 0, "max_length": MOST_BYTES}
        case str() if len(value) > LONGEST_STRING or "\n" in value:
            return {"type": "text", "min_length": 0}
        case str() | None:
            return {"type": "string", "min_length": 0}
        case list() | tuple():
            return {"type": "array"}
        case Mapping() | BaseModel():
            return {"type": "object"}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"type": "object"}
    raise InvalidArgumentError(
        f"a field can't show a {type(value).__name__} ({name!r}): pass a string, a number, a date, a timedelta, "
        "a bool, a list, a dict, a model or a dataclass"
    )
