"""Values in the log. What goes in must come out the same.

Where the author gave a type, pydantic validates and dumps the value, and what comes back is compared with it. Without a
type, or with one that says nothing about its contents (`dict`, `list[dict]`), JSON's own values are kept as they are,
and a few other common ones under a tag (`{"$": "datetime", "v": …}`). Anything that would come back as another value,
or as another type, is refused with its path. All values are copied: a step can't change its caller's objects.
"""

from __future__ import annotations

import builtins
import collections.abc
import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, reduce
from math import isfinite
from operator import is_, or_
from types import NoneType, UnionType
from typing import Annotated, Any, ForwardRef, Self, TypeVar, Union, get_args, get_origin
from uuid import UUID

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from pydantic_core import to_json as _compiled

from approvals_bot.durable.core.bugs import bug_of_author
from approvals_bot.durable.core.fidelity import ELSEWHERE, SECRETS, Loss, SchemaFacts, facts_of, lost
from approvals_bot.durable.core.hooks import Owner
from approvals_bot.durable.core.typed_dicts import rewritten
from approvals_bot.errors import DeserializationError, InvalidPayloadError, LimitExceededError, SerializationError

MAX_VALUE_BYTES = 1_000_000
"""The size of one payload, argument list or result, in bytes of JSON.

A replay reads the whole log, so keep files elsewhere and pass a reference.
"""

_UNTYPED: tuple[Any, ...] = (Any, object)
_OPEN: tuple[Any, ...] = (dict, list, Mapping, bytes, bytearray)
"""Types that say nothing about their contents. (Bytes are among them because JSON has none.)"""


T = TypeVar("T")

SURVIVES = object()
Proven = Annotated[T, SURVIVES]
"""`Proven[T]`: values of T come back as they were, as copies, which tests prove, so they needn't be compared or copied.

For arguments and results of our own hot steps: writing a card takes 28 µs, and 170 with the comparison (`timeit`). A
value whose parts have other types than T says is still refused.
"""


class Codec:
    """The conversion to JSON and back for one annotation.

    What `encode` accepts, `decode` returns with the same value and type. A value is written as pydantic's JSON, which
    people can read. If that would lose something, it is written with tags, and if those would, too, it is refused.
    """

    __slots__ = ("_adapter", "_by_name", "_has_floats", "_is_itself", "_is_open", "_is_plain", "_read")

    def __init__(self, annotation: Any) -> None:
        self._adapter = _adapter(annotation)
        # JSON has these types. Without this shortcut, benchmarks/cycle.py calls pydantic 12 times more, 0.8 µs each.
        self._is_itself = annotation if annotation in (int, bool, str, float, NoneType) else None
        self._is_open = _is_open(annotation)
        schema = SchemaFacts() if self._adapter is None else facts_of(self._adapter.core_schema)
        self._is_plain = schema.is_plain or SURVIVES in get_args(annotation)
        self._has_floats, self._by_name = schema.has_floats, schema.by_name
        self._read: Callable[..., Any] = _validated_by_name if schema.by_name else _validated

    def encode(self, value: Any, path: str = "value") -> Any:
        """Return the JSON form of `value`.

        Raises InvalidPayloadError if it doesn't fit its type, SerializationError if the log can't keep it, and what an
        author's own serializer or validator raises because of a bug, such as KeyError.
        """
        adapter = self._adapter
        if adapter is None:
            return _tag(value, path, 0)
        kind = type(value)
        if kind is self._is_itself and (kind is not float or isfinite(value)):
            return value
        try:
            valid = _validated(adapter, value)
        except ValidationError as error:
            raise InvalidPayloadError(problems(error), what=path) from error
        if self._is_open:
            return _tag(valid, path, 0)
        if self._is_plain:
            try:
                encoded = adapter.dump_python(valid, mode="json", warnings="error")
            except PydanticSerializationError as error:
                raise SerializationError(path, str(error)) from error
            if not self._has_tags(encoded):
                return encoded
        return self._kept(adapter, valid, path)

    def decode(self, encoded: Any, path: str = "value") -> Any:
        """Return the value that `encode` took, as its type.

        Raises DeserializationError if the type has changed and the value no longer fits.
        """
        adapter = self._adapter
        if adapter is None:
            return _untag(encoded)
        if type(encoded) is self._is_itself:
            return encoded
        try:
            if self._has_tags(encoded):
                return self._read(adapter, _untag(encoded))
            return self._read(adapter, encoded if self._is_plain else _copied(encoded))
        except ValidationError as error:
            raise DeserializationError(path, problems(error)) from error

    def validated(self, value: Any) -> Any:
        """Return the value as its type. Raises ValidationError."""
        return value if self._adapter is None else _validated(self._adapter, value)

    def _has_tags(self, encoded: Any) -> bool:
        return self._is_open or (type(encoded) is dict and "$" in encoded)

    def _kept(self, adapter: TypeAdapter[Any], valid: Any, path: str) -> Any:
        """Return the first form of the value that is read back as it is.

        Nothing that a type says is proof of that: instances aren't validated again, so they may be of subclasses and
        have any values in their fields, and authors write serializers. So the value is read back and compared.
        """
        by_alias = False if self._by_name else None
        failed: Loss | None = None
        try:
            encoded = adapter.dump_python(valid, mode="json", round_trip=True, by_alias=by_alias, warnings=False)
            if not self._has_tags(encoded):
                failed = lost(valid, self._read(adapter, encoded))
                if failed is None:
                    if self._has_floats:
                        json_text(encoded)  # raises ValueError for those that JSON hasn't
                    return encoded
        except ValidationError as error:
            failed = _unreadable(error)
        except Exception:  # noqa: BLE001, S110  # JSON can't have it, or an author's code can't; perhaps tags can
            pass
        return self._with_tags(adapter, valid, path, failed)

    def _with_tags(self, adapter: TypeAdapter[Any], valid: Any, path: str, failed: Loss | None) -> Any:
        """Return the value with tags. `failed`: what would be lost without. Raises SerializationError."""
        by_alias = False if self._by_name else None
        try:
            dumped = adapter.dump_python(valid, mode="python", round_trip=True, by_alias=by_alias, warnings=False)
            tagged = _tagged("typed", _tag(dumped, path, 0, checked=True))
            json_text(tagged)
            still = lost(valid, self._read(adapter, _untag(tagged)))
        except ValidationError as error:
            still = _unreadable(error)
        except SerializationError as error:
            if failed is None:
                raise
            still = (error.path.removeprefix(path), error.reason)
        except Exception as error:  # noqa: BLE001  # an author's validator or serializer may raise anything
            if (bug := bug_of_author(_raised_by_author(error))) is not None:
                raise bug from None
            still = ("", f"{type(error).__name__}: {error}")
        if still is None:
            return tagged
        where, reason = failed or still
        raise SerializationError(path + where, reason)


def _raised_by_author(error: Exception) -> BaseException:
    """Return what a serializer raised: pydantic wraps it."""
    while isinstance(error, PydanticSerializationError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _validated(adapter: TypeAdapter[Any], value: Any, **aliases: Any) -> Any:
    """Return the value as its type. If a strict type refuses it, try it as JSON, which has no dates and no sets."""
    try:
        return adapter.validate_python(value, **aliases)
    except ValidationError:
        if (found := _validated_as_json(adapter, value, aliases)) is not None:
            return found[0]
        raise  # the first error says more


def _validated_as_json(adapter: TypeAdapter[Any], value: Any, aliases: dict[str, Any]) -> tuple[Any] | None:
    try:
        return (adapter.validate_json(json.dumps(value, allow_nan=False), **aliases),)
    except (ValidationError, TypeError, ValueError, RecursionError):
        return None


def _validated_by_name(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Return what was written by its fields' names, where their aliases for writing and for reading differ."""
    try:
        return _validated(adapter, value, by_alias=False, by_name=True)
    except ValidationError:
        with suppress(ValidationError):  # a payload that came before the code, so it was never written by it
            return _validated(adapter, value)
        raise


def _unreadable(error: ValidationError) -> tuple[str, str]:
    """Return the place that can't be read back, and why."""
    first = problems(error)[0]
    parts = [part for part in first["loc"] if part != "[key]"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    what = "it" if len(parts) == len(first["loc"]) else "the key"
    return where, f"{what} couldn't be read back from the log: {first['msg']}"


def _copied(encoded: Any) -> Any:
    """Copy a JSON value. Where a type says Any, pydantic passes on the same object. If the author's code then changed
    it, the log would change with it, even before it is written. Plain types, and proven ones, have no such part."""
    if type(encoded) is dict:
        return {name: _copied(item) for name, item in encoded.items()}
    if type(encoded) is list:
        return [_copied(item) for item in encoded]
    return encoded


def codec(annotation: Any) -> Codec:
    """Return the codec of an annotation, made once if it can be hashed."""
    try:
        return _cached_codec(annotation, "" if isinstance(annotation, type) else repr(annotation))
    except TypeError:  # an annotation that can't be hashed
        return Codec(annotation)


@lru_cache(maxsize=4096)
def _cached_codec(annotation: Any, shown: str) -> Codec:
    """Make a codec. `shown` keeps `A | B` and `B | A` apart: the two are equal, but read values differently."""
    return Codec(annotation)


def encode(value: Any, annotation: Any = Any, path: str = "value") -> Any:
    """Encode a value, as `Codec.encode` does."""
    return _tag(value, path, 0) if annotation is Any else codec(annotation).encode(value, path)


def decode(encoded: Any, annotation: Any = Any, path: str = "value") -> Any:
    """Decode a value, as `Codec.decode` does."""
    return _untag(encoded) if annotation is Any else codec(annotation).decode(encoded, path)


_PLAIN = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def json_text(value: Any, *, ensure_ascii: bool = True) -> str:
    """Return JSON values as text, by pydantic's compiled writer wherever that writes the same as `json`.

    A small event takes 0.9 µs instead of 3.3, a card of 3 kB 11 instead of 43 (`timeit`; every event is written here).
    `json` writes what the other refuses (lone surrogates, deep nesting), always as ASCII. It refuses NaN and Infinity,
    which the other writes under these names, with a ValueError.
    """
    try:
        text = _compiled(value, ensure_ascii=ensure_ascii, inf_nan_mode="constants").decode()
    except ValueError:
        return _PLAIN.encode(value)
    return _PLAIN.encode(value) if "NaN" in text or "Infinity" in text else text


def to_json(value: Any, path: str = "value") -> str:
    """Return a value as JSON text.

    The text is ASCII, so NUL and lone surrogates pass through any store. Raises SerializationError, or
    LimitExceededError for more than MAX_VALUE_BYTES.
    """
    try:
        text = json_text(value)
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
    if (isinstance(annotation, TypeVar) and not _is_bound(annotation)) or any(annotation is each for each in _UNTYPED):
        return None
    annotation = _with_sequences(annotation)
    try:
        return TypeAdapter(annotation)
    except PydanticUserError as error:
        if error.code != "typed-dict-version":
            return None
    try:
        return TypeAdapter(rewritten(annotation))
    except PydanticUserError:
        return None


def _is_bound(variable: TypeVar) -> bool:
    """Return whether a type variable says what its values are. It doesn't by a name, which nobody resolves."""
    bounds = (variable.__bound__, *variable.__constraints__)
    return any(bounds) and not any(isinstance(each, ForwardRef) for each in bounds)


def _with_sequences(annotation: Any) -> Any:
    """Return the annotation with sequences for iterables, of which pydantic makes generators, to be read only once."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if collections.abc.Iterable in (annotation, origin):
        return collections.abc.Sequence[parts or Any]  # type: ignore[misc]  # made at run time
    if origin not in (Union, UnionType):
        return annotation
    new = [_with_sequences(part) for part in parts]
    return annotation if all(map(is_, parts, new)) else reduce(or_, new)


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


class Unkept(str):
    """The place of a value that the log can't keep. It reads as that value did."""

    __slots__ = ("shown",)

    def __new__(cls, text: str, shown: str) -> Self:
        made = super().__new__(cls, text)
        made.shown = shown
        return made

    shown: str

    def __repr__(self) -> str:
        return self.shown


_MAX_DEPTH = 200  # nesting; far above any real value, far below Python's recursion limit


def _tag(value: Any, path: str, depth: int, *, checked: bool = False) -> Any:
    """Return the value as JSON with tags. What has no tag is refused.

    `checked`: the caller compares what comes back, so that pydantic may say how the rest is written.
    """
    if depth > _MAX_DEPTH:
        raise SerializationError(path, f"nested more than {_MAX_DEPTH} deep (or refers to itself)")
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return value
    if kind is dict:
        return _tag_dict(value, path, depth, checked)
    if kind is list:
        return [_tag(item, f"{path}[{i}]", depth + 1, checked=checked) for i, item in enumerate(value)]
    if (make := _TAGS.get(kind)) is not None:
        return _tagged(kind.__name__, make(value))
    return _tag_other(value, path, depth, checked)


_TAGS: dict[type, Callable[[Any], Any]] = {
    bytes: lambda value: b64encode(value).decode(),
    bytearray: lambda value: b64encode(value).decode(),
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    Decimal: str,
    UUID: str,
    Owner: str,
    Unkept: lambda value: [str(value), repr(value)],
}
"""How the values of these types are written, under a tag of the type's name."""


def _tag_other(value: Any, path: str, depth: int, checked: bool) -> Any:
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else _tagged("float", str(value))
    if kind is tuple:
        items = [_tag(item, f"{path}[{i}]", depth + 1, checked=checked) for i, item in enumerate(value)]
        return _tagged("tuple", items)
    if kind is set or kind is frozenset:
        items = [_tag(item, f"{path}{{…}}", depth + 1, checked=checked) for item in value]
        return _tagged(kind.__name__, sorted(items, key=repr))
    if checked:
        if isinstance(value, dict):
            return _tag_dict(value, path, depth, checked)
        if isinstance(value, tuple | list | deque):
            return [_tag(item, f"{path}[{i}]", depth + 1, checked=True) for i, item in enumerate(value)]
        with suppress(ValueError):  # pydantic can't write it either
            return _tag(to_jsonable_python(value, fallback=str), path, depth + 1, checked=True)
    raise SerializationError(path, f"a value of type {kind.__name__} can't be kept in the log; {_advice(value)}")


def _advice(value: Any) -> str:
    """Return what to do about a value that has no tag."""
    if isinstance(value, SECRETS):
        return ELSEWHERE
    for plain in (str, int, float, dict, list, tuple, set, frozenset, datetime, date):
        if isinstance(value, plain) and not isinstance(value, Enum):
            return f"pass a plain {plain.__name__}, or annotate its type"
    return "pass plain data, or annotate its type"


def _tag_dict(value: dict[Any, Any], path: str, depth: int, checked: bool) -> Any:
    pairs: dict[str, Any] = {}
    for key, item in value.items():
        name = key
        if type(key) is not str:
            name = _key(key) if checked else None
            if name is None:
                what = f"the key {key!r} is of type {type(key).__name__}; JSON has only strings as keys"
                raise SerializationError(path, what)
        pairs[name] = _tag(item, f"{path}.{name}", depth + 1, checked=checked)
    return _tagged("dict", pairs) if "$" in pairs else pairs  # a "$" of the user's must not be read as a tag


def _key(key: Any) -> str | None:
    """Return the text that pydantic writes for a key. None if it can't."""
    try:
        found: str = next(iter(to_jsonable_python({key: None}, fallback=str)))
    except ValueError:
        return None
    return found


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {"$": tag, "v": value}


def without_tags(encoded: Any) -> Any:
    """Return a value of the log as plain JSON, as programs and people read it: a date is its ISO text, a set a list."""
    match encoded:
        case {"$": "timedelta", "v": value}:
            return to_jsonable_python(timedelta(*value))
        case {"$": "Unkept", "v": [text, _]}:
            return text
        case {"$": "dict", "v": dict(pairs)}:
            return {name: without_tags(item) for name, item in pairs.items()}
        case {"$": str(), "v": value}:
            return without_tags(value)
        case dict():
            return {name: without_tags(item) for name, item in encoded.items()}
        case list():
            return [without_tags(item) for item in encoded]
        case _:
            return encoded


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
    "typed": _untag,
    "float": float,
    "tuple": lambda v: tuple(_untag(i) for i in v),
    "set": lambda v: {_untag(i) for i in v},
    "frozenset": lambda v: frozenset(_untag(i) for i in v),
    "bytes": b64decode,
    "bytearray": lambda v: bytearray(b64decode(v)),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda v: timedelta(*v),
    "Decimal": Decimal,
    "UUID": UUID,
    "Unkept": lambda v: Unkept(*v),
    "Owner": Owner,
}
