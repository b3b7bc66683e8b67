"""The digests of tool calls and requests: what was shown, decided, and is about to be done are compared by them.

SHA-256 over the canonical JSON of RFC 8785, so neither the order of keys nor `1` or `1.0` makes a difference.
Everything else does: invisible characters, Unicode forms, an empty list instead of null. A request's digest names its
workflow, version and kind, so the same values in another workflow, or as a tool's arguments, have another digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import JsonValue

LARGEST_INTEGER = 2**53 - 1  # every JSON parser reads it exactly

MISSING = object()
"""Stands for the value of a leaf that is only on the other side of a comparison."""


def canonical_json(value: Any) -> bytes:
    """Return the canonical form of RFC 8785. Raises ValueError for what isn't JSON, or what JSON can't say exactly."""
    try:
        return canonical(value).encode()
    except RecursionError:
        raise ValueError("too deep for JSON") from None
    except (AttributeError, TypeError):
        raise ValueError("this isn't JSON") from None


def canonical(value: Any) -> str:
    """Return the value as RFC 8785 has it: keys in the order of their UTF-16 code units, numbers as JavaScript's.

    Raises ValueError for numbers that JSON can't say exactly.
    """
    match value:
        case dict():
            items = sorted(value.items(), key=lambda item: by_utf16(item[0]))
            return "{" + ",".join(f"{canonical(key)}:{canonical(item)}" for key, item in items) + "}"
        case list() | tuple():
            return "[" + ",".join(map(canonical, value)) + "]"
        case int() if abs(value) > LARGEST_INTEGER:
            raise ValueError(f"JSON has no room for {value}")
        case float():
            return _number(value)
        case _:
            return json.dumps(value, ensure_ascii=False)


def by_utf16(key: str) -> bytes:
    """Return what RFC 8785 sorts keys by."""
    return key.encode("utf-16-be")


def _number(number: float) -> str:
    """Write a number as ECMAScript's `Number::toString` does."""
    if number == 0:
        return "0"
    _sign, digits_of, exponent = Decimal(repr(abs(number))).as_tuple()
    digits = "".join(map(str, digits_of))
    point = len(digits) + int(exponent)
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        text = digits.ljust(point, "0")[:point] + (f".{digits[point:]}" if len(digits) > point else "")
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        text = f"{mantissa}e{point - 1:+d}"
    return f"-{text}" if number < 0 else text


def digest_of(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return the digest of this tool call, in hex. Raises ValueError for arguments that aren't JSON.

    >>> digest_of("pay", {"price": 640}) == digest_of("pay", {"price": 640.0})
    True
    """
    return hashlib.sha256(canonical_json({"tool": tool, "arguments": dict(arguments)})).hexdigest()


def request_digest(workflow: str, version: str, pinned: Mapping[str, Any]) -> str:
    """Return the digest, in hex, that approvers of a workflow's request sign. Raises ValueError for what isn't JSON.

    `version`: the digest of the workflow's file, as results and `{{ workflow.version }}` have it. `pinned`: the pinned
    fields in the request's canonical JSON, null for those that were left out.

    >>> sandbox, deploy = (request_digest(id, "1f0c", {"version": "7"}) for id in ("sandbox", "deploy"))
    >>> sandbox == deploy
    False
    """
    signed = {"kind": "approval", "workflow": workflow, "version": version, "fields": dict(pinned)}
    return hashlib.sha256(canonical_json(signed)).hexdigest()


def leaves_of(arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return each value that isn't a filled list or object, by its place: `items.0.sku`.

    >>> leaves_of({"items": [{"sku": "a"}], "to": {}})
    {'items.0.sku': 'a', 'to': {}}
    """
    return dict(_leaves("", dict(arguments))) if arguments else {}


def _leaves(place: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner or not value:
        yield place, value
        return
    for name, one in inner:
        yield from _leaves(f"{place}.{name}" if place else str(name), one)


def changes_between(
    before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]
) -> list[tuple[str, object, object]]:
    """Return the leaves that differ, with both values; `MISSING` for a leaf that one side doesn't have.

    >>> changes_between({"price": 640, "seat": "1A"}, {"price": 600, "seat": "1A"})
    [('price', 640, 600)]
    """
    old, new = leaves_of(before), leaves_of(after)
    found = []
    for place in dict.fromkeys((*old, *new)):
        pair = (old.get(place, MISSING), new.get(place, MISSING))
        if MISSING in pair or canonical_json(pair[0]) != canonical_json(pair[1]):
            found.append((place, *pair))
    return found
