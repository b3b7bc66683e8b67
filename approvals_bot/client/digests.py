"""The digests of tool calls and requests: what was shown, decided, and is about to be done are compared by them.

SHA-256 over the canonical JSON of RFC 8785, so neither the order of keys nor `1` or `1.0` makes a difference.
Everything else does: invisible characters, Unicode forms, an empty list instead of null. A request's digest names its
workflow, version and kind, so the same values in another workflow, or as a tool's arguments, have another digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import rfc8785
from pydantic import JsonValue

MISSING = object()
"""Stands for the value of a leaf that is only on the other side of a comparison."""


def canonical_json(value: Any) -> bytes:
    """Return the canonical form of RFC 8785. Raises ValueError for what isn't JSON, or what JSON can't say exactly."""
    try:
        return rfc8785.dumps(value)
    except RecursionError:
        raise ValueError("too deep for JSON") from None


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
