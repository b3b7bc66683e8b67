"""JSON as callers may send it: one meaning per text, or it is refused.

Two readers must never see two things in one body (a key twice), and what was accepted must be storable (no lone
surrogate, no NUL) and comparable (no NaN).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from starlette.requests import Request

from approvals_bot.web.limits import JSON_DEPTH, whole
from approvals_bot.web.problems import Problem


async def json_body(request: Request, limit: int) -> Any:
    """The body as JSON. Raises Problem 400, 408, 413 or 415."""
    return parse(await whole(request, limit))


async def json_object(request: Request, limit: int) -> dict[str, Any]:
    """The body as a JSON object."""
    value = await json_body(request, limit)
    if not isinstance(value, dict):
        raise Problem(400, "Invalid JSON", "The body must be a JSON object.")
    return value


def parse(body: bytes) -> Any:
    """The value of this JSON text. Raises Problem 400 with the reason."""
    try:
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            raise _refused("it begins with a byte order mark (BOM)")
        value = _decoder.decode(text)
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise _refused(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        # Python refuses whole numbers of more than 4,300 digits with a plain ValueError
        raise _refused("a number has too many digits") from None
    _inspect(value)
    return value


def _inspect(root: Any) -> None:
    """Depth and text of a parsed value, without recursion: the value is the caller's."""
    ahead = [(root, 1)]
    while ahead:
        value, depth = ahead.pop()
        match value:
            case str():
                _inspect_text(value)
            case dict() | list() if depth > JSON_DEPTH:
                raise _too_deep()
            case dict():
                for key in value:
                    _inspect_text(key)
                ahead += [(item, depth + 1) for item in value.values()]
            case list():
                ahead += [(item, depth + 1) for item in value]


def _inspect_text(text: str) -> None:
    if "\0" in text:
        raise _refused("a text contains a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused("a text contains half of a surrogate pair")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _refused(f"the key {key[:80]!a} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise _refused(f"{name} is not a JSON number")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _refused("a number is too large")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite_float)


def _too_deep() -> Problem:
    return _refused(f"it is nested deeper than {JSON_DEPTH} levels")


def _refused(reason: str) -> Problem:
    return Problem(400, "Invalid JSON", f"The body can't be read as JSON: {reason}.")
