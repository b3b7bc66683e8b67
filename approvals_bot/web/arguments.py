"""A Python workflow's input object, as its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import JsonValue, PydanticUserError, TypeAdapter

from approvals_bot.core.signature import Signature
from approvals_bot.errors import InvalidPayloadError

PLAIN = ("string", "integer", "number", "boolean", "array", "null")
"""What JSON has besides objects."""


def takes_it_whole(signature: Signature) -> bool:
    """Whether the input object is the workflow's one argument (a model, a dataclass, a dict), and not its arguments by
    name."""
    parameters = list(signature.called.parameters.values())
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY) for each in parameters):
        return True
    return len(parameters) == 1 and _takes_objects(signature.annotation(parameters[0].name))


def by_name(signature: Signature, given: Mapping[str, JsonValue]) -> tuple[list[Any], dict[str, Any]]:
    """The call with these arguments. InvalidPayloadError names those that are too many, and those that lack."""
    known = signature.called.parameters
    faults = [
        {"loc": ["input", name], "msg": "the workflow has no such argument"} for name in given if name not in known
    ]
    faults += [
        {"loc": ["input", name], "msg": "is required"}
        for name, parameter in known.items()
        if name not in given and parameter.default is inspect.Parameter.empty
    ]
    if faults:
        raise InvalidPayloadError(faults, "input")
    positional, named = list[Any](), dict[str, Any]()
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    return positional, named


def _takes_objects(annotation: Any) -> bool:
    """As its JSON schema says; what has none can't be known to be plain."""
    with suppress(PydanticUserError):
        return not _is_plain(TypeAdapter(annotation).json_schema())
    return True


def _is_plain(schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return all(_is_plain(each) for each in schema["anyOf"])
    return schema.get("type") in PLAIN
