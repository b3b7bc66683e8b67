"""A form derived from a Python type, for a workflow's file that has no [fields] of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.field_specs import FieldName, FieldSpec

_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "decimal",
    Decimal: "decimal",
    datetime: "datetime",
    date: "date",
    timedelta: "duration",
}
_LONGEST = 50_000  # characters of a str; what the type itself bounds it says itself

_FORM: TypeAdapter[dict[str, FieldSpec]] = TypeAdapter(dict[FieldName, FieldSpec])


def derive_fields(members: Mapping[str, tuple[Any, Any, bool]]) -> dict[str, FieldSpec]:
    """Fields for these members (type, default, whether it must be given).

    {} if one of them can't be shown in a form, such as a list: then the type alone says what may be given.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, (kind, default, is_needed) in members.items():
        spec = _described(kind, default, is_needed)
        if spec is None:
            return {}
        described[name] = spec
    try:
        return _FORM.validate_python(described)
    except ValidationError:
        return {}


def _described(kind: Any, default: Any, is_needed: bool) -> dict[str, Any] | None:
    bare, takes_null = _bare(kind)
    spec = _type_of(bare)
    if spec is None:
        return None
    if is_needed:
        return spec
    if default is None and takes_null:
        return {**spec, "required": False}
    if default is None or default is PydanticUndefined:
        return None  # made anew each time: no form can show it
    shown = (
        duration_text(default)
        if isinstance(default, timedelta)
        else TypeAdapter(bare).dump_python(default, mode="json")
    )
    return {**spec, "default": shown}


def _bare(kind: Any) -> tuple[Any, bool]:
    """The type without Annotated and None, and whether None was one of its members."""
    takes_null = False
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            members = [member for member in get_args(kind) if member is not NoneType]
            takes_null = takes_null or len(members) < len(get_args(kind))
            if len(members) != 1:
                return kind, takes_null
            kind = members[0]
        else:
            return kind, takes_null


def _type_of(kind: Any) -> dict[str, Any] | None:
    if get_origin(kind) is Literal:
        return _enum(get_args(kind))
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Enum):
        return _enum([member.value for member in kind])
    if kind is str:
        return {"type": "string", "max_length": _LONGEST}
    return {"type": _TYPES[kind]} if kind in _TYPES else None


def _enum(values: Any) -> dict[str, Any] | None:
    return {"type": "enum", "values": list(values)} if all(isinstance(value, str) for value in values) else None
