"""What a caller sent under an idempotency key or a `resume_id`, and how a repeat differs from it.

Repeats are compared by what was sent, not by what validation made of it: a release may add a default or an optional
field, and the same call is still the same. What was sent is kept as JSON, so 1, 1.0 and true are three values.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Set
from enum import Enum
from itertools import zip_longest
from math import isfinite
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from approvals_bot.durable.core.serialization import encode
from approvals_bot.durable.core.signature import Signature
from approvals_bot.errors import InvalidArgumentError

MAX_SENT = 20_000
"""Characters of what was sent that the log keeps besides the input, to name a difference. Longer values are digests."""

_MISSING = object()
_FILE = re.compile("file_[0-9a-f]{32}")  # as the store names them


class SentKey(str):
    """A key, and what its caller sent under it where that isn't the arguments or the payload that come with it."""

    sent: Any

    def __new__(cls, key: str, sent: Any) -> SentKey:
        made = super().__new__(cls, key)
        made.sent = sent
        return made


def sent_under(
    key: str, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any], encoded: dict[str, Any]
) -> dict[str, Any]:
    """Return what the caller of a workflow sent. `encoded` is what validation made of the arguments.

    Positional and keyword arguments are the same call. A model or dataclass counts with the fields that were given,
    without those that have their default. Raises InvalidArgumentError for an empty key, which callers would share.
    """
    if isinstance(key, SentKey):
        return dict(key.sent)
    if not isinstance(key, str) or not key:
        raise InvalidArgumentError(f"idempotency_key must be a string that is not empty, or None, not {key!r}")
    given: dict[str, Any] = {}
    for name, value in signature.called.bind(*args, **kwargs).arguments.items():
        if signature.called.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            given |= {each: as_sent(item, encoded[name][each]) for each, item in value.items()}
        else:
            given[name] = as_sent(value, encoded[name])
    return {"input": given}


def as_sent(value: Any, encoded: Any) -> Any:
    """Return a value as JSON, without the defaults in it. `encoded` stands for a value that only its type can write."""
    try:
        return _plain(value)
    except Exception:  # noqa: BLE001  # a value's own methods may raise anything; validation has accepted it
        return encoded


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return _plain(value.value)
        case None | bool():
            return value
        case int():
            return int(value)
        case float() if not isfinite(value):
            return encode(float(value))  # JSON has no such numbers
        case str():
            return str.__str__(value)  # as with int: a subclass isn't what the log gives back
        case BaseModel():
            names = [*type(value).model_fields, *(value.model_extra or ())]
            return {name: _plain(getattr(value, name)) for name in names if name in value.model_fields_set}
        case Mapping():
            return {str(_plain(name)): _plain(item) for name, item in value.items()}
        case tuple() if hasattr(value, "_field_defaults"):
            usual = value._field_defaults
            pairs = zip(value._fields, value, strict=True)  # type: ignore[attr-defined]  # a NamedTuple's
            return {name: _plain(item) for name, item in pairs if name not in usual or usual[name] != item}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Set():
            return sorted((_plain(item) for item in value), key=json.dumps)
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case _ if dataclasses.is_dataclass(value):
            given = (field for field in dataclasses.fields(value) if not _has_default(value, field))
            return {field.name: _plain(getattr(value, field.name)) for field in given}
        case _:
            return to_jsonable_python(value, inf_nan_mode="strings")


def _has_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(getattr(value, field.name) == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(getattr(value, field.name) == field.default)


def abridged(value: Any, most: int = MAX_SENT) -> Any:
    """Return a JSON value in about `most` characters, with digests in place of long parts."""
    text = json.dumps(value, sort_keys=True)
    if len(text) <= most:
        return value
    match value:
        case dict() if len(value) <= most // 200:
            return {name: abridged(item, most // len(value)) for name, item in value.items()}
        case list() if len(value) <= most // 200:
            return [abridged(item, most // len(value)) for item in value]
        case _:
            return {"$sha256": hashlib.sha256(text.encode()).hexdigest()}


def find_difference(first: Mapping[str, Any], workflow: str, sent: Mapping[str, Any]) -> str | None:
    """Return how a start differs from the run that its key started, by path and value. None if it doesn't.

    `first` is the data of that run's `run_created`.
    """
    if first["workflow"] != workflow:
        return _changed("workflow", first["workflow"], workflow)
    kept = first["sent"] if "sent" in first else abridged({"input": first["input"]})
    return difference(kept, abridged(dict(sent)), "")


def find_difference_of_payload(first: Mapping[str, Any], sent: Any) -> str | None:
    """Return how a payload differs from the first with its `resume_id`, by path and value. None if it doesn't.

    `first` is the data of that one's `hook_received`. The headers of a webhook's calls aren't compared: a sender dates
    and signs each attempt.
    """
    if "sent" in first:
        return difference(first["sent"], abridged(sent), "payload")
    return difference(_without_headers(first["payload"]), _without_headers(sent), "payload")


def _without_headers(payload: Any) -> Any:
    match payload:
        case {"method": _, "url": _, "headers": list(), **rest}:
            return rest
        case _:
            return payload


def difference(first: Any, second: Any, path: str) -> str | None:
    """Return where two JSON values differ first, by path and value. None if they are the same."""
    pairs: list[tuple[str, Any, Any]]
    match first, second:
        case ({"$sha256": str()}, _) | (_, {"$sha256": str()}) if first != second:
            return f"{path} was another value (one of the two is too long to show)"
        case dict(), dict():
            names = [*first, *(name for name in second if name not in first)]
            pairs = [
                (f"{path}.{name}" if path else name, first.get(name, _MISSING), second.get(name, _MISSING))
                for name in names
            ]
        case list(), list():
            items = zip_longest(first, second, fillvalue=_MISSING)
            pairs = [(f"{path}[{i}]", one, other) for i, (one, other) in enumerate(items)]
        case _:
            return None if type(first) is type(second) and first == second else _changed(path, first, second)
    for where, one, other in pairs:
        if (found := difference(one, other, where)) is not None:
            return found
    return None


def _changed(path: str, first: Any, second: Any) -> str:
    return f"{path} was {_short(first)}, and is now {_short(second)}"


def _short(value: Any) -> str:
    text = "missing" if value is _MISSING else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def digest_of_start(created: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a start sent under its key. `created` is the data of the run's `run_created`."""
    return _digest(created["workflow"], created["sent"] if "sent" in created else abridged({"input": created["input"]}))


def digest_of_sent(workflow: str, sent: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a start sends now; equal to that of the first one if it is the same."""
    return _digest(workflow, abridged(dict(sent)))


def _digest(workflow: str, kept: Any) -> str:
    return hashlib.sha256(json.dumps([workflow, _with_files_by_id(kept)], sort_keys=True).encode()).hexdigest()


def _with_files_by_id(value: Any) -> Any:
    """Return a JSON value in which a file is its ID alone: the store may not know any more what it was."""
    match value:
        case {"id": str() as id, "name": _, "sha256": _} if _FILE.fullmatch(id):
            return id
        case dict():
            return {name: _with_files_by_id(each) for name, each in value.items()}
        case list():
            return [_with_files_by_id(each) for each in value]
        case _:
            return value
