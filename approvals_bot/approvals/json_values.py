"""Lists and objects as values of fields: what is accepted, how people read and edit them, and their canonical form.

Python workflows request approval for the arguments of tool calls, which nest. People see indented JSON with the keys in
the order given, and every invisible character as an escape, so what is shown is what is there. The canonical form (RFC
8785) serves digests and comparisons: neither the order of keys nor `1` or `1.0` makes a difference.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import JsonValue

from approvals_bot.approvals.text import rejection_text
from approvals_bot.approvals.visible import EMOJI_JOINERS, PICTURELESS
from approvals_bot.client.digests import LARGEST_INTEGER, canonical

MOST_BYTES = 65_536  # of all fields together, in canonical form
DEEPEST = 20  # levels, the object of all fields included
LINE = 38  # characters of a list or object on one line: what a phone shows without a break
MOST_GROWTH = 2  # how many times longer indented JSON may get; beyond that it stays on one line

_SURROGATE = re.compile("[\ud800-\udfff]")


class UnfitError(ValueError):
    """An invalid value: the code of its fault, and the parameters of the message."""

    def __init__(self, code: str, **params: JsonValue) -> None:
        super().__init__(code)
        self.code, self.params = code, params
        self.path: tuple[str, ...] = ()  # the way to the fault inside a list or an object

    def at(self, path: tuple[str, ...]) -> UnfitError:
        self.path = path
        return self

    def __str__(self) -> str:
        """Return the message, which follows the field's name."""
        return rejection_text(self.code, self.params)


class TypedText(str):
    """Text that a person typed for a list or object: JSON that is still to be parsed."""

    __slots__ = ()


def check_json(value: Any, depth: int = 2) -> None:
    """Check one value without recursion: only JSON, not too deep, no number that parsers read differently.

    `depth`: its own level. Raises UnfitError.
    """
    ahead: list[tuple[Any, tuple[Any, ...]]] = [(value, ())]
    while ahead:
        item, path = ahead.pop()
        try:
            inside = _checked(item, depth + len(path))
        except UnfitError as error:
            raise error.at(tuple(map(str, path))) from None
        ahead += [(each, (*path, key)) for key, each in inside]


def _checked(item: Any, level: int) -> Iterable[tuple[Any, Any]]:
    """Check one value, and return those inside it, each with its key."""
    match item:
        case None | bool():
            return ()
        case str():
            _check_text(item)
            return ()
        case int() if abs(item) > LARGEST_INTEGER:
            raise UnfitError("integer_range", largest=LARGEST_INTEGER)
        case float() if not math.isfinite(item):
            raise UnfitError("not_finite")
        case int() | float():
            return ()
        case dict() | list() if level > DEEPEST:
            raise UnfitError("too_deep", deepest=DEEPEST)
        case dict():
            for key in item:
                _check_text(key)
            return item.items()
        case list():
            return enumerate(item)
        case _:
            raise UnfitError("not_json_type", type=type(item).__name__)


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise UnfitError("not_text_key")
    if _SURROGATE.search(text):
        raise UnfitError("broken_character")
    if "\0" in text:
        raise UnfitError("control_character")


def check_size(fields: Mapping[str, JsonValue]) -> None:
    """Check that fields with a list or an object among them aren't too large. Raises UnfitError."""
    if any(isinstance(value, dict | list) for value in fields.values()):
        size = len(canonical(dict(fields)).encode())
        if size > MOST_BYTES:
            raise UnfitError("too_large", size=size, most=MOST_BYTES)


def check_whole_size(value: JsonValue) -> None:
    """Check that one value isn't too large. Raises UnfitError."""
    size = len(canonical(value).encode())
    if size > MOST_BYTES:
        raise UnfitError("value_too_large", size=size, most=MOST_BYTES)


def parse_typed(text: str) -> Any:
    """Parse the JSON that a person typed. Raises UnfitError with the place of the mistake."""
    if text.count("[") + text.count("{") > MOST_BYTES:
        raise UnfitError("too_deep", deepest=DEEPEST)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UnfitError("not_json", line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise UnfitError("too_deep", deepest=DEEPEST) from None
    except UnfitError:
        raise
    except ValueError:  # Python refuses whole numbers of more than 4,300 digits
        raise UnfitError("integer_range", largest=LARGEST_INTEGER) from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise UnfitError("key_twice", key=one_line_json(key))
    return found


def _no_constant(name: str) -> Any:
    raise UnfitError("not_finite")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_constant)


def one_line_json(value: JsonValue) -> str:
    """Return the value as JSON on one line, with the keys in their order."""
    return _visible(json.dumps(value, ensure_ascii=False))


def shown_json(value: JsonValue) -> str:
    """Return the value as people read and edit it: indented, with what is short on one line."""
    text = one_line_json(value)
    if len(text) <= LINE:
        return text
    indented = _visible("\n".join(_lines(value, "", "")))
    return indented if len(indented) <= MOST_GROWTH * len(text) else text


def _lines(value: JsonValue, indent: str, after: str) -> list[str]:
    """Return the lines of a value. `after`: a comma if another value comes next."""
    whole = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent) + len(whole) <= LINE:
        return [f"{whole}{after}"]
    inner, last = f"{indent}  ", len(value) - 1
    if isinstance(value, list):
        found, ends = ["["], "]"
        if all(item is None or isinstance(item, bool | int | float) for item in value):
            found += [inner + line for line in _filled([json.dumps(item) for item in value], LINE - len(inner))]
        else:
            for at, item in enumerate(value):
                first, *rest = _lines(item, inner, "" if at == last else ",")
                found += [inner + first, *rest]
    else:
        found, ends = ["{"], "}"
        for at, (key, item) in enumerate(value.items()):
            first, *rest = _lines(item, inner, "" if at == last else ",")
            found += [f"{inner}{json.dumps(key, ensure_ascii=False)}: {first}", *rest]
    return [*found, f"{indent}{ends}{after}"]


def _filled(items: list[str], width: int) -> list[str]:
    """Join numbers with commas, as many as fit on each line."""
    lines = [""]
    for at, item in enumerate(items):
        text = item + ("," if at < len(items) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(text) > width:
            lines.append(text)
        else:
            lines[-1] = f"{lines[-1]} {text}".lstrip()
    return lines


def _visible(text: str) -> str:
    """Escape what can't be seen, as JSON does, but for the joiners inside an emoji."""
    if text.isascii() and "\x7f" not in text:
        return text
    kept = {found.start() for found in EMOJI_JOINERS.finditer(text)}
    return PICTURELESS.sub(lambda found: found[0] if found.start() in kept else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def same_json(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON. Python takes `[1]` and `[True]` for equal."""
    if one is other or not isinstance(one, dict | list):
        return bool(one == other)
    return bool(one == other) and canonical(one) == canonical(other)
