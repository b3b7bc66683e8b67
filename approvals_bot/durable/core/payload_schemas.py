"""What a hook takes, as a JSON Schema: kept in the log when the hook opens, and compared with what newer code takes.

The comparison must not overlook anything: where it is unsure, the newer schema counts as stricter.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import PydanticUserError, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

LONGEST_SCHEMA = 8_000
"""Characters of a schema in the log. A larger one isn't kept, and then only the payloads themselves are compared."""

Schema = Mapping[str, Any]


class _Quiet(GenerateJsonSchema):
    """A generator that warns of nothing: a default that JSON lacks says nothing about what a hook takes."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as in pydantic


def schema_of(annotation: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of an annotation; None if there is none, or it is too long for the log."""
    try:
        return _cached(annotation)
    except TypeError:  # it can't be hashed
        return _made(annotation)


def _made(annotation: Any) -> dict[str, Any] | None:
    try:
        found = TypeAdapter(annotation).json_schema(schema_generator=_Quiet)
    except PydanticUserError:
        return None
    return found if len(json.dumps(found)) <= LONGEST_SCHEMA else None


_cached = lru_cache(maxsize=1024)(_made)


def stricter(old: Schema, new: Schema) -> str:
    """Return what the new schema no longer takes, as `payload.text: is required now`; "" if it takes all of the old."""
    return _Comparison(old.get("$defs", {}), new.get("$defs", {})).stricter(old, new, "payload")


_ALTERNATIVES = ("anyOf", "oneOf")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAID = ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator", "$defs")
"""Keys that say nothing about what is taken."""
_COMPARED = {
    "type", "enum", "const", "required", "properties", "additionalProperties", "items", *_ALTERNATIVES, *_LOWER, *_UPPER
}  # fmt: skip


class _Comparison:
    def __init__(self, old: Schema, new: Schema) -> None:
        """Take the definitions that the two schemas refer to."""
        self._old, self._new = old, new
        self._open: set[tuple[str, str]] = set()  # pairs that are being compared: recursive types

    def stricter(self, old: Any, new: Any, path: str) -> str:
        if new is True or new == {}:
            return ""
        if old is True or old == {}:
            return f"{path}: takes only some values now"
        if "$ref" in old and "$ref" in new:
            pair = old["$ref"], new["$ref"]
            if pair in self._open:
                return ""
            self._open.add(pair)
        if "$ref" in old:
            return self.stricter(_resolved(self._old, old), new, path)
        if "$ref" in new:
            return self.stricter(old, _resolved(self._new, new), path)
        for key in _ALTERNATIVES:
            if key in old:
                return next((why for each in old[key] if (why := self.stricter(each, new, path))), "")
        for key in _ALTERNATIVES:
            if key in new:
                found = [self.stricter(old, each, path) for each in new[key]]
                return "" if "" in found else found[0]
        return _values(old, new, path) or _bounds(old, new, path) or self._parts(old, new, path)

    def _parts(self, old: Schema, new: Schema, path: str) -> str:
        was, now = old.get("properties", {}), new.get("properties", {})
        for name in new.get("required", ()):
            if name not in old.get("required", ()):
                return f"{path}.{name}: is required now"
        for name in was:
            if name in now and (why := self.stricter(was[name], now[name], f"{path}.{name}")):
                return why
        others_were, others_are = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if others_are is False and (others_were is not False or was.keys() - now.keys()):
            return f"{path}: takes no other fields now"
        if isinstance(others_are, Mapping) and (why := self.stricter(others_were, others_are, f"{path}.*")):
            return why
        return self.stricter(old.get("items", True), new.get("items", True), f"{path}[]")


def _resolved(definitions: Schema, schema: Schema) -> Any:
    return definitions.get(str(schema["$ref"]).rpartition("/")[2], True)


def _values(old: Schema, new: Schema, path: str) -> str:
    """Compare types and listed values."""
    were = old["enum"] if "enum" in old else [old["const"]] if "const" in old else None
    are = new["enum"] if "enum" in new else [new["const"]] if "const" in new else None
    if are is not None and (were is None or any(value not in are for value in were)):
        return f"{path}: takes fewer values now"
    if "type" in new and were is None and new["type"] not in (old.get("type"), _WIDER.get(str(old.get("type")))):
        return f"{path}: was {old.get('type', 'anything')}, and is {new['type']} now"
    if "type" in new and were is not None and old.get("type", new["type"]) != new["type"]:
        return f"{path}: was {old['type']}, and is {new['type']} now"
    return ""


_WIDER = {"integer": "number"}


def _bounds(old: Schema, new: Schema, path: str) -> str:
    for key in _LOWER:
        if key in new and not (key in old and old[key] >= new[key]):
            return f"{path}: {key} is {new[key]} now"
    for key in _UPPER:
        if key in new and not (key in old and old[key] <= new[key]):
            return f"{path}: {key} is {new[key]} now"
    for key, value in new.items():
        if key not in _SAID and key not in _COMPARED and old.get(key) != value:
            return f"{path}: {key} has changed"
    return ""
