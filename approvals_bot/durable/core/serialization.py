"""Values in the log. What goes in must come out the same.

Where the author gave a type, pydantic validates and dumps the value. Without a type, or with one that says nothing
about its contents (`dict`, `list[dict]`), JSON's own values are kept as they are, and a few other common ones under a
tag (`{"$": "datetime", "v": …}`). Anything else is refused with its path. All values are copied: a step can't change
its caller's objects.
"""

from __future__ import annotations

import builtins
import collections.abc
import dataclasses
import importlib
import json
import sys
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from approvals_bot.errors import InvalidPayloadError, LimitExceededError, SerializationError, StepFailedError

MAX_VALUE_BYTES = 1_000_000
"""The size of one payload, argument list or result, in bytes of JSON.

A replay reads the whole log, so keep files elsewhere and pass a reference.
"""

_UNTYPED: tuple[Any, ...] = (Any, object)
_OPEN: tuple[Any, ...] = (dict, list, Mapping, bytes, bytearray)
"""Types that say nothing about their contents. (Bytes are among them because JSON has none.)"""


class Codec:
    """The conversion to JSON and back for one annotation."""

    __slots__ = ("_adapter", "_is_itself", "_is_open")

    def __init__(self, annotation: Any) -> None:
        self._adapter = _adapter(annotation)
        # JSON has these types. Without this shortcut, benchmarks/cycle.py calls pydantic 12 times more, 0.8 µs each.
        self._is_itself = annotation if annotation in (int, bool) else None
        self._is_open = _is_open(annotation)

    def encode(self, value: Any, path: str = "value") -> Any:
        """Return the JSON form of `value`.

        Raises InvalidPayloadError if it doesn't fit its type, SerializationError if the log can't keep it.
        """
        adapter = self._adapter
        if adapter is None:
            return _tag(value, path, 0)
        if type(value) is self._is_itself:
            return value
        try:
            valid = _validated(adapter, value)
            return _tag(valid, path, 0) if self._is_open else adapter.dump_python(valid, mode="json")
        except ValidationError as error:
            raise InvalidPayloadError(problems(error), what=path) from error
        except (PydanticSerializationError, UnicodeDecodeError) as error:
            raise SerializationError(path, str(error)) from error

    def decode(self, encoded: Any) -> Any:
        """Return the value that `encode` took, as its type.

        Raises InvalidPayloadError if the type has changed and the value no longer fits.
        """
        adapter = self._adapter
        if adapter is None:
            return _untag(encoded)
        if type(encoded) is self._is_itself:
            return encoded
        try:
            return _validated(adapter, _untag(encoded) if self._is_open else _copied(encoded))
        except ValidationError as error:
            raise InvalidPayloadError(problems(error)) from error


def _validated(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Return the value as its type. If a strict type refuses it, try it as JSON, which has no dates and no sets."""
    try:
        return adapter.validate_python(value)
    except ValidationError:
        try:
            return adapter.validate_json(json.dumps(value, allow_nan=False))
        except (ValidationError, TypeError, ValueError, RecursionError):
            pass  # the first error says more
        raise


def _copied(encoded: Any) -> Any:
    """Copy a JSON value. Where a type says Any, pydantic passes on the same object. If the author's code then changed
    it, the log would change with it, even before it is written."""
    if type(encoded) is dict:
        return {name: _copied(item) for name, item in encoded.items()}
    if type(encoded) is list:
        return [_copied(item) for item in encoded]
    return encoded


def codec(annotation: Any) -> Codec:
    """Return the codec of an annotation, made once if it can be hashed."""
    try:
        return _cached_codec(annotation)
    except TypeError:  # an annotation that can't be hashed
        return Codec(annotation)


_cached_codec = lru_cache(maxsize=4096)(Codec)


def encode(value: Any, annotation: Any = Any, path: str = "value") -> Any:
    """Encode a value, as `Codec.encode` does."""
    return _tag(value, path, 0) if annotation is Any else codec(annotation).encode(value, path)


def decode(encoded: Any, annotation: Any = Any) -> Any:
    """Decode a value, as `Codec.decode` does."""
    return _untag(encoded) if annotation is Any else codec(annotation).decode(encoded)


def _made_once() -> Callable[[Any], str]:
    """Make a `json.dumps` without its setup: 1.8 µs for a small event instead of 5.7 (JSONEncoder.encode: 3.3).

    json.JSONEncoder calls `c_make_encoder` with the same arguments for each value. Where it doesn't exist, JSONEncoder
    is used. (`python -m timeit`; every event is written through here.)
    """
    plain = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    write = make(None, plain.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return lambda value: "".join(write(value, 0))


_dump = _made_once()


def to_json(value: Any, path: str = "value") -> str:
    """Return a value as JSON text.

    The text is ASCII, so NUL and lone surrogates pass through any store. Raises SerializationError, or
    LimitExceededError for more than MAX_VALUE_BYTES.
    """
    try:
        text = _dump(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise SerializationError(path, str(error)) from error
    if len(text) > MAX_VALUE_BYTES:
        raise LimitExceededError(f"size of {path}", MAX_VALUE_BYTES, len(text), "bytes of JSON")
    return text


def problems(error: ValidationError) -> list[dict[str, Any]]:
    """Return each place and what is wrong there, without the values, which may be secret."""
    return [{"loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors(include_input=False, include_url=False)]


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Return pydantic's adapter, or None for a type that counts as untyped.

    Types that pydantic doesn't support are among those; their values are then refused with their path.
    """
    if isinstance(annotation, TypeVar) or any(annotation is untyped for untyped in _UNTYPED):
        return None
    try:
        return TypeAdapter(annotation)
    except PydanticUserError:
        return None


def _is_open(annotation: Any) -> bool:
    """Return whether this consists of lists and string-keyed dicts of values of any type."""
    if any(annotation is each for each in (*_UNTYPED, *_OPEN)):
        return True
    match get_origin(annotation), get_args(annotation):
        case builtins.list, (items,):
            return _is_open(items)
        case ((builtins.dict | collections.abc.Mapping), (names, items)):
            return names is str and _is_open(items)
        case _:
            return False


_MAX_DEPTH = 200  # nesting; far above any real value, far below Python's recursion limit


def _tag(value: Any, path: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise SerializationError(path, f"nested more than {_MAX_DEPTH} deep (or refers to itself)")
    if value is None or type(value) in (str, bool, int):
        return value
    match value:
        case Enum():
            return _tag(value.value, path, depth + 1)
        case str():
            return str.__str__(value)  # a subclass of it is not what comes back
        case int():
            return int(value)
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise SerializationError(path, f"{value} is not a JSON number")
            return float(value)
        case dict() | Mapping():
            return _tag_mapping(value, path, depth)
        case list():
            return [_tag(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        case tuple():
            return _tagged("tuple", [_tag(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)])
        case set() | frozenset():
            items = [_tag(item, f"{path}{{…}}", depth + 1) for item in value]
            return _tagged(type(value).__name__, sorted(items, key=repr))
        case bytes() | bytearray():
            return _tagged("bytes", b64encode(value).decode())
        case datetime() | date() | time():
            return _tagged(type(value).__name__, value.isoformat())
        case timedelta():
            return _tagged("timedelta", [value.days, value.seconds, value.microseconds])
        case Decimal() | UUID():
            return _tagged(type(value).__name__, str(value))
        case BaseModel():
            return _tag(value.model_dump(mode="json"), path, depth + 1)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return encode(value, type(value), path)
        case _:
            raise SerializationError(
                path, f"a {type(value).__name__} can't be kept in the log; pass plain data, or annotate its type"
            )


def _tag_mapping(value: Mapping[Any, Any], path: str, depth: int) -> Any:
    pairs: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise SerializationError(path, f"the key {key!r} is a {type(key).__name__}; keys must be strings")
        pairs[key] = _tag(item, f"{path}.{key}", depth + 1)
    return _tagged("dict", pairs) if "$" in pairs else pairs  # a "$" of the user's must not be read as a tag


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {"$": tag, "v": value}


def _untag(encoded: Any) -> Any:
    if encoded is None or type(encoded) in (str, bool, int):
        return encoded
    match encoded:
        case {"$": "dict", "v": dict(pairs)}:
            return {key: _untag(item) for key, item in pairs.items()}
        case {"$": str(tag), "v": value}:
            return _UNTAG[tag](value)
        case dict():
            return {key: _untag(item) for key, item in encoded.items()}
        case list():
            return [_untag(item) for item in encoded]
        case _:
            return encoded


_UNTAG: dict[str, Any] = {
    "tuple": lambda v: tuple(_untag(i) for i in v),
    "set": lambda v: {_untag(i) for i in v},
    "frozenset": lambda v: frozenset(_untag(i) for i in v),
    "bytes": b64decode,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda v: timedelta(*v),
    "Decimal": Decimal,
    "UUID": UUID,
}


MAX_TEXT = 10_000  # characters of a message or traceback; the rest is cut off


def encode_error(error: BaseException) -> dict[str, Any]:
    """Return the type, message and traceback of an error, as the log keeps them."""
    kind = type(error)
    try:
        message, trace = str(error), "".join(traceback.format_exception(error))
    except Exception as unprintable:  # noqa: BLE001  # an author's __str__ may raise anything
        message, trace = f"(its text can't be read: {type(unprintable).__name__})", ""
    return {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "message": message[:MAX_TEXT],
        "traceback": trace[-MAX_TEXT:],
    }


class RemoteError(Exception):
    """An error whose class this process can't make from its message alone. `kind` names that class."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def decode_error(error: dict[str, Any]) -> Exception:
    """Return the error as its own class, or as a RemoteError.

    The latter if its class can't be imported, or can't be made from one message.
    """
    message, name = error["message"], error["type"]
    kind = getattr(_module(error["module"]), name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except Exception:  # noqa: BLE001  # it takes other arguments, and the log has only its name and message
            return RemoteError(name, message)
    return RemoteError(name, message)


def _module(name: str) -> Any:
    """Return the module, importing it if need be: a body that tests an error's class must see the same one in every
    process, and perhaps only the step that raised has imported it."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001  # it doesn't exist here, or its import fails
        return builtins


def step_error(step: str, data: dict[str, Any]) -> StepFailedError:
    """Return the error that the workflow sees when a step has failed for good."""
    cause = data["error"]
    error = StepFailedError(step, data["attempts"], cause["type"], cause["message"])
    error.__cause__ = decode_error(cause)
    return error
