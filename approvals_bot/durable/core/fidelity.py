"""Whether a value came back from the log as it went in, and where it didn't.

Pydantic writes what a type says. The rest is dropped silently: the fields of a subclass, excluded ones, secrets, which
member of a union a value was. So values are compared, with their types, before they are written.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import NoneType
from typing import Any, get_type_hints
from uuid import UUID

from pydantic import BaseModel, PydanticUserError, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError

SECRETS = (SecretStr, SecretBytes, Secret)

Loss = tuple[str, str]
"""The path of what doesn't come back as it was (".items[2].price"), and how it comes back."""


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """What an annotation says about the way its values are written."""

    is_plain: bool = False
    """Whether JSON has all its values, and each as one type only. They need no comparison."""
    has_floats: bool = False
    """Whether it may have floats, among them those that JSON hasn't."""
    by_name: bool = False
    """Whether a field is written under another key than it is read from, unless both use its name."""


def facts_of(schema: Mapping[str, Any]) -> SchemaFacts:
    """Return what pydantic's schema of an annotation says."""
    kinds: set[str] = set()
    fields_differ = any([_differs(*found) for found in _fields(schema, kinds, by_alias=False)])  # noqa: C419  # all
    return SchemaFacts(_is_plain(schema), not kinds <= _WITHOUT_FLOATS, fields_differ)


_WITHOUT_FLOATS = frozenset({
    "str", "int", "bool", "none", "bytes", "date", "datetime", "time", "timedelta", "decimal", "uuid", "literal",
    "enum", "url", "nullable", "default", "union", "tagged-union", "list", "dict", "tuple", "set", "frozenset",
    "definitions", "definition-ref", "model", "model-fields", "model-field", "dataclass", "dataclass-args",
    "dataclass-field", "typed-dict", "typed-dict-field", "function-before", "function-after", "function-wrap",
})  # fmt: skip
"""Pydantic's names of what is written without floats."""

_FIELDS = ("model-field", "dataclass-field", "typed-dict-field")
_NOT_SCHEMAS = ("metadata", "config", "default", "expected", "members", "ref")


def _fields(schema: Any, kinds: set[str], *, by_alias: bool, name: Any = None) -> Iterator[tuple[Any, Any, bool]]:
    """Find each field in a schema: its name, itself, whether it is written by its alias. Adds to `kinds`."""
    if isinstance(schema, list | tuple):
        for each in schema:
            yield from _fields(each, kinds, by_alias=by_alias)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str):
            kinds.add(kind)
        if kind in _FIELDS:
            yield schema.get("name", name), schema, by_alias
        if isinstance(config := schema.get("config"), dict):
            by_alias = bool(config.get("serialize_by_alias"))
        for key, part in schema.items():
            if key not in _NOT_SCHEMAS:
                yield from _fields(part, kinds, by_alias=by_alias, name=key)


def _differs(name: str, field: Mapping[str, Any], by_alias: bool) -> bool:
    written = field.get("serialization_alias", name) if by_alias else name
    read: Any = field.get("validation_alias", name)
    return bool(read != written)


def _is_plain(schema: Mapping[str, Any]) -> bool:
    if "serialization" in schema:
        return False
    match schema:
        case {"type": "str" | "int" | "bool" | "none"}:
            return True
        case {"type": "list", "items_schema": items} | {"type": "nullable", "schema": items}:
            return _is_plain(items)
        case {"type": "dict", "keys_schema": {"type": "str"} as keys, "values_schema": values}:
            return _is_plain(keys) and _is_plain(values)
        case _:
            return False


def lost(given: Any, back: Any) -> Loss | None:
    """Return the first place where `back` has another value or type than `given`. None if there is none."""
    kind = type(given)
    if kind is not type(back):
        return "", _instead(given, back)
    compare = _COMPARE.get(kind)
    if compare is not None:
        return compare(given, back)
    if isinstance(given, BaseModel):
        return _model(given, back)
    if dataclasses.is_dataclass(given):
        return _dataclass(given, back)
    return _of_another_type(given, back)


def _of_another_type(given: Any, back: Any) -> Loss | None:
    if isinstance(given, Enum):
        return None if given is back else ("", _OTHER)
    if isinstance(given, SECRETS):  # unless its author has it written, at their own risk
        is_written = given == back and str(given) != str(given.get_secret_value())
        return None if is_written else ("", f"a {type(given).__name__} isn't written to the log; {ELSEWHERE}")
    if isinstance(given, dict):
        return _mapping(given, back)
    if isinstance(given, (tuple, list)) or (isinstance(given, deque) and given.maxlen == back.maxlen):
        return _sequence(given, back)
    with suppress(Exception):  # an author's __eq__
        if given == back:
            return None
    return "", _OTHER


ELSEWHERE = "pass where the secret is, and read it in the step"
_OTHER = "it would come back from the log as another value"
_MISSING = object()


def _instead(given: Any, back: Any) -> str:
    if isinstance(given, SECRETS):
        return f"a {type(given).__name__} isn't written to the log; {ELSEWHERE}"
    text = f"a value of type {type(given).__name__} would come back from the log as a {type(back).__name__}"
    return f"{text}; annotate the type that it has" if isinstance(given, type(back)) else text


def _equal(given: Any, back: Any) -> Loss | None:
    return None if given == back else ("", _OTHER)


def _written_alike(given: Any, back: Any) -> Loss | None:
    return None if given == back or str(given) == str(back) == "nan" else ("", _OTHER)


def _decimal(given: Decimal, back: Decimal) -> Loss | None:
    return None if str(given) == str(back) else ("", _OTHER)


def _instant(given: datetime | time, back: datetime | time) -> Loss | None:
    # Not `given == back`: in the hour that daylight saving repeats, Python takes times of two zones for unequal.
    is_same = given.replace(tzinfo=None) == back.replace(tzinfo=None) and given.utcoffset() == back.utcoffset()
    return None if is_same else ("", _OTHER)


def _sequence(given: Iterable[Any], back: Iterable[Any]) -> Loss | None:
    left, right = list(given), list(back)
    if len(left) != len(right):
        return "", _OTHER
    for number, (item, other) in enumerate(zip(left, right, strict=True)):
        if (kind := type(item)) in _ATOMS and kind is type(other) and item == other:
            continue  # as `lost` says; most are such, and this makes the comparison of a card three times as fast
        if (found := lost(item, other)) is not None:
            return f"[{number}]{found[0]}", found[1]
    return None


def _mapping(given: dict[Any, Any], back: dict[Any, Any]) -> Loss | None:
    if len(given) != len(back):
        return "", "keys would be lost in the log, or added"
    for (key, item), (other_key, other) in zip(given.items(), back.items(), strict=True):
        if (
            not (type(key) is type(other_key) is str and key == other_key)
            and (found := lost(key, other_key)) is not None
        ):
            return f".{key}", f"the key can't be kept in the log: {found[1]}"
        if (kind := type(item)) in _ATOMS and kind is type(other) and item == other:
            continue
        if (found := lost(item, other)) is not None:
            return f".{key}{found[0]}", found[1]
    return None


def _set(given: Iterable[Any], back: Iterable[Any]) -> Loss | None:
    """Compare sets. Equal members of other types are other members."""
    left, right = ({(type(each), "nan" if each != each else each) for each in some} for some in (given, back))
    return None if left == right else ("{…}", _OTHER)


def _model(given: BaseModel, back: BaseModel) -> Loss | None:
    fields = type(given).__pydantic_fields__
    found = _members(fields, fields, given.__dict__, back.__dict__)
    if found is not None:
        return found
    for some, other in (
        (given.__pydantic_extra__, back.__pydantic_extra__),
        (given.__pydantic_private__, back.__pydantic_private__),
    ):
        if some is not other and (found := lost(some or {}, other or {})) is not None:
            return found
    return None


def _dataclass(given: Any, back: Any) -> Loss | None:
    kind: Any = type(given)
    names = [each.name for each in dataclasses.fields(kind)]
    values = ({name: getattr(some, name, _MISSING) for name in names} for some in (given, back))
    return _members(_hints_of(kind), names, *values)


def _members(
    hints: Mapping[str, Any], names: Iterable[str], given: Mapping[str, Any], back: Mapping[str, Any]
) -> Loss | None:
    for name in names:
        value, other = given.get(name, _MISSING), back.get(name, _MISSING)
        if (kind := type(value)) in _ATOMS and kind is type(other) and value == other:
            continue
        found = lost(value, other)
        if found is not None and not _is_validated(hints.get(name), value, other):
            return f".{name}{found[0]}", found[1]
    return None


def _is_validated(hint: Any, given: Any, back: Any) -> bool:
    """Return whether a field comes back as what its type makes of its value.

    Defaults, assignments and the fields of plain dataclasses aren't validated: `seconds: float = 5` has an int.
    """
    hint = getattr(hint, "annotation", hint)
    if hint is None:
        return False
    try:
        return lost(_adapter_of(hint, repr(hint)).validate_python(given), back) is None
    except (ValidationError, PydanticUserError, TypeError):
        return False


@lru_cache(maxsize=512)
def _adapter_of(hint: Any, shown: str) -> TypeAdapter[Any]:  # `A | B` and `B | A` are equal, but shown differently
    return TypeAdapter(hint)


@lru_cache(maxsize=512)
def _hints_of(kind: Any) -> dict[str, Any]:
    try:
        return get_type_hints(kind)
    except (NameError, TypeError):
        return {}


_ATOMS: frozenset[type] = frozenset({str, int, bool, NoneType, bytes, bytearray, date, timedelta, UUID})
_COMPARE: dict[type, Callable[[Any, Any], Loss | None]] = {
    **dict.fromkeys(_ATOMS, _equal),
    float: _written_alike,
    Decimal: _decimal,
    datetime: _instant,
    time: _instant,
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
    set: _set,
    frozenset: _set,
}
