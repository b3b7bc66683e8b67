"""JSON as callers may send it: one meaning per text, or it is refused.

Two readers must never see two things in one body (a key twice), and what was accepted must be storable (no lone
surrogate, no NUL) and comparable (no NaN).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

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


# ── Bodies and queries against their pydantic models, with every fault at its place. ──

Shape = TypeVar("Shape", bound=BaseModel)


class Strict(BaseModel):
    """The shape of what callers send: unknown keys are faults, and nothing is guessed into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def fit(shape: type[Shape], value: Any) -> Shape:
    """The value in this shape. Raises Problem 422 with each fault and its place."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise Problem(
            422,
            "Invalid input",
            "Some values don't fit. Nothing was changed.",
            errors=[{"loc": fault["loc"], "msg": fault["msg"]} for fault in error.errors(include_url=False)],
        ) from None


# ── How much a caller may send, and how long it may take. ──

API_BODY = 1_000_000  # bytes; a request's fields with a long diff, and room for a batch of hooks' payloads
LINK_BODY = 64_000  # bytes; what a form with a comment and a few answers needs, many times over
JSON_DEPTH = 20  # levels; no payload of ours goes past 6, and deep ones are only ever attacks
BODY_TIME = 10.0  # seconds for a whole body: a caller that drips bytes must not hold a connection for long


async def whole(request: Request, limit: int) -> bytes:
    """The request's body, within `limit` bytes and `BODY_TIME`. Compressed bodies are refused. Raises Problem 400, 408,
    413 or 415."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(415, detail="Send the body uncompressed: a small compressed body can unpack to a huge one.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18:
        raise Problem(400, detail="Content-Length is not a number of bytes.")
    if int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_TIME):
            return await _read(request, limit)
    except TimeoutError:
        raise Problem(408, detail=f"The body did not arrive within {BODY_TIME:g} seconds.") from None
    except ClientDisconnect:
        raise Problem(400, detail="The connection closed before the body was complete.") from None


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit: int) -> Problem:
    return Problem(413, detail=f"The body may have at most {limit:,} bytes here.")


# ── Answers in JSON that can always be written: what a workflow kept may hold any text, half a character included. ──


class JsonResponse(JSONResponse):
    """JSON in ASCII: a lone surrogate, which is no UTF-8, is written as its escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
