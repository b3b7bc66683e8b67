"""What a tool takes, as a JSON Schema: whether edited arguments fit it.

A schema comes from an agent, so it is checked with limits: it fetches nothing, its patterns take linear time, and
the work is bounded. The tool checks its arguments again before it runs; here people learn at once what doesn't fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Annotated, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from pydantic import JsonValue, StringConstraints, TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic_core import SchemaError as PatternError
from referencing import Registry
from referencing.exceptions import Unresolvable

from approvals_bot.approvals.acts import Rejection
from approvals_bot.approvals.json_values import UnfitError, check_json, check_whole_size
from approvals_bot.approvals.leaves import joined_address
from approvals_bot.client.digests import canonical

MOST_CHECKS = 30_000  # keywords of the schema, each on one value: less than a second
MOST_FAULTS = 20
LONGEST_REASON = 200

Keyword = Callable[[Any, Any, Any, Any], Any]


class TooMuchError(Exception):
    """The schema asks for more work than is done for it."""


def check_schema(schema: Mapping[str, JsonValue]) -> None:
    """Check that this is a JSON Schema that edits can be checked against. Raises UnfitError."""
    check_json(schema, depth=1)
    check_whole_size(dict(schema))
    try:
        best = best_match(Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema))
        if best is not None:
            raise UnfitError("no_schema", why=f"{'/'.join(map(str, best.absolute_path)) or 'its top level'} is wrong")
        next(_errors(schema, {}), None)
    except (Unresolvable, TooMuchError, RecursionError) as error:
        raise UnfitError("no_schema", why=_why(error)) from None


def unexpected(schema: Mapping[str, JsonValue], arguments: Mapping[str, JsonValue]) -> tuple[Rejection, ...]:
    """Return what doesn't fit, each fault at the address of its leaf."""
    found = dict[tuple[str, ...], Rejection]()
    try:
        for error in _errors(schema, arguments):
            rejection = _rejection(error)
            found.setdefault(rejection.path, rejection)
            if len(found) >= MOST_FAULTS:
                break
    except (Unresolvable, TooMuchError, RecursionError):
        return (Rejection((), "not_checkable"),)
    return tuple(found.values())


def _errors(schema: Mapping[str, JsonValue], arguments: Mapping[str, JsonValue]) -> Iterator[ValidationError]:
    left = [MOST_CHECKS]
    keywords = {**Draft202012Validator.VALIDATORS, **_OWN}
    kind: Any = extend(  # type: ignore[no-untyped-call]  # its stubs have no types here
        Draft202012Validator, {name: partial(_counted, left, check) for name, check in keywords.items()}
    )
    found: Iterator[ValidationError] = kind(schema, registry=Registry()).iter_errors(dict(arguments))
    return found


def _counted(left: list[int], check: Keyword, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    left[0] -= 1
    if left[0] < 0:
        raise TooMuchError
    yield from check(validator, value, instance, schema) or ()


def _why(error: Exception) -> str:
    match error:
        case Unresolvable():
            return "a $ref leads out of it"
        case _:
            return "it is too much to check"


# Our own forms of keywords that could take too long.


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError("pattern")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    patterns = schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in schema.get("properties", {}) or any(_matches(pattern, key) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("additionalProperties", path=[key])
        else:
            yield from validator.descend(value, allowed, path=key)


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len({canonical(item) for item in instance}) < len(instance):
        yield ValidationError("uniqueItems")


def _matches(pattern: str, text: str) -> bool:
    """Search in linear time. What this kind of regular expression can't say is left to the tool's own check."""
    kind = _compiled(pattern)
    if kind is None:
        return True
    try:
        kind.validate_python(text)
    except PydanticError:
        return False
    return True


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> TypeAdapter[str] | None:
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except PatternError:
        return None


_OWN: dict[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "uniqueItems": _unique,
}


# Words


def _rejection(error: ValidationError) -> Rejection:
    while error.validator in ("anyOf", "oneOf") and error.context and not error.context[0].path:
        error = error.context[0]  # of `int | null`, what is wrong with it as a number
    address = ""
    for part in error.absolute_path:
        address = joined_address(address, part)
    code, params = _worded(error)
    return Rejection((address,) if address else (), code, params)


def _worded(error: ValidationError) -> tuple[str, dict[str, JsonValue]]:
    limit: Any = error.validator_value
    instance: Any = error.instance
    match error.validator:
        case "type" if isinstance(limit, str):
            return _TYPES.get(limit, "not_expected"), {}
        case "minimum" | "maximum":
            return ("below_min" if error.validator == "minimum" else "above_max"), {_SHORT[error.validator]: str(limit)}
        case "maxLength":
            return "too_long", {"length": len(str(error.instance)), "longest": limit}
        case "minLength":
            return ("too_short", {"shortest": limit}) if limit > 1 else ("required", {})
        case "enum" if all(isinstance(each, str) for each in limit):
            return "not_listed", {"values": limit, "near": None}
        case "pattern":
            return "pattern", {"pattern": str(limit)[:LONGEST_REASON]}
        case "required":
            missing = next((key for key in limit if key not in instance), "")
            return "missing_key", {"key": missing[:LONGEST_REASON]}
        case _:
            return "not_expected", {}


_SHORT = {"minimum": "min", "maximum": "max"}
_TYPES = {
    "string": "not_text",
    "integer": "not_integer",
    "number": "not_a_number",
    "boolean": "not_boolean",
    "array": "not_list",
    "object": "not_object",
}
