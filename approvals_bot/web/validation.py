"""What callers may send: how large and how long, JSON with one meaning, strict bodies, forms and queries.

Two readers must never see two things in one body (a key twice), and what was accepted must be storable (no lone
surrogate, no NUL) and comparable (no NaN).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from approvals_bot.durable.core.forms import MULTIPART, URL_ENCODED, FormFields, parse_form, parse_header
from approvals_bot.people import AddressError, People
from approvals_bot.web.responses import Problem

API_BODY = 1_000_000  # bytes; a request's fields with a long diff, and room for a batch of hooks' payloads
LINK_BODY = 64_000  # bytes; what a form with a comment and a few answers needs, many times over
JSON_DEPTH = 24  # levels; fields nest 20 deep, and the body holds them a few levels down
BODY_TIME = 30.0  # seconds for a whole body: a caller that drips bytes must not hold a connection for long


async def read_body(request: HttpRequest, limit: int) -> bytes:
    """Read the body, within `limit` bytes and `BODY_TIME`. Raises Problem 400, 408, 413 or, if compressed, 415."""
    body = bytearray()  # adding to bytes would copy all of them for every part, and a caller may send single ones
    async for part in read_parts(request, limit):
        body += part
    return bytes(body)


async def read_parts(request: HttpRequest, limit: int) -> AsyncIterator[bytes]:
    """Read the body part by part, as `read_body` reads it whole, with the same limits and problems."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(415, detail="Send the body uncompressed: a small compressed body can unpack to a huge one.")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18:
        raise Problem(400, detail="Content-Length is not a number of bytes.")
    if int(declared) > limit:
        raise _too_large(limit)
    size, until = 0, asyncio.get_running_loop().time() + BODY_TIME
    stream = aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout_at(until):  # what is done with a part takes none of this time's errors
                part = await anext(stream, None)
            if part is None:
                return
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            yield part
    except TimeoutError:
        raise Problem(408, detail=f"The body did not arrive within {BODY_TIME:g} seconds.") from None
    except ClientDisconnect:
        raise Problem(400, detail="The connection closed before the body was complete.") from None


def _too_large(limit: int) -> Problem:
    return Problem(413, detail=f"The body may have at most {limit:,} bytes here.")


async def json_body(request: HttpRequest, limit: int) -> Any:
    """Read the body as JSON. Raises Problem 400, 408, 413 or 415."""
    return parse_json(await read_body(request, limit))


async def json_object(request: HttpRequest, limit: int) -> dict[str, Any]:
    """Read the body as a JSON object."""
    value = parse_json(await read_body(request, limit))
    if not isinstance(value, dict):
        raise Problem(400, "Invalid JSON", "The body must be a JSON object.")
    return value


def parse_json(body: bytes) -> Any:
    """Return the value of this JSON text. Raises Problem 400 with the reason."""
    try:
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            raise _invalid_json("it begins with a byte order mark (BOM)")
        value = _decoder.decode(text)
    except UnicodeDecodeError:
        raise _invalid_json("it is not UTF-8") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise _invalid_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        # Python refuses whole numbers of more than 4,300 digits with a plain ValueError
        raise _invalid_json("a number has too many digits") from None
    _inspect(value)
    return value


def _inspect(root: Any) -> None:
    """Inspect depth and texts of a parsed value, level by level and without recursion: the value is the caller's."""
    level, depth = [root], 0
    while level:
        depth += 1
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _inspect_text(value)
            elif isinstance(value, dict):
                for key in value:
                    _inspect_text(key)
                below += value.values()
            elif isinstance(value, list):
                below += value
            else:
                continue
            if depth > JSON_DEPTH and not isinstance(value, str):
                raise _too_deep()
        level = below


def _inspect_text(text: str) -> None:
    if "\0" in text:
        raise _invalid_json("a text contains a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _invalid_json("a text contains half of a surrogate pair")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _invalid_json(f"the key {key[:80]!a} appears twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise _invalid_json(f"{name} is not a JSON number")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _invalid_json("a number is too large")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite_float)


def _too_deep() -> Problem:
    return _invalid_json(f"it is nested deeper than {JSON_DEPTH} levels")


def _invalid_json(reason: str) -> Problem:
    return Problem(400, "Invalid JSON", f"The body can't be read as JSON: {reason}.")


Shape = TypeVar("Shape", bound=BaseModel)


class StrictBody(BaseModel):
    """The shape of what callers send: unknown keys are faults, and nothing is guessed into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)


def validate(shape: type[Shape], value: Any) -> Shape:
    """Return the value in this shape. Raises Problem 422 with each fault and its place."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise Problem(
            422,
            "Invalid input",
            "Some values don't fit. Nothing was changed.",
            errors=error.errors(include_url=False, include_context=False, include_input=False),
        ) from None


async def read_form(request: HttpRequest) -> dict[str, str]:
    """Read the form's texts, of a repeated field the last one. Files are dropped, and other bodies have no fields.

    Raises Problem 408, 413 or 415, and MalformedBodyError (400).
    """
    fields = await read_form_fields(request)
    return {name: fields.text(name) for name in fields}


async def read_form_fields(request: HttpRequest, limit: int = LINK_BODY) -> FormFields:
    """Read the form with all values of its repeated fields. Other bodies have no fields. Raises as `read_form`."""
    body, content_type = await read_body(request, limit), request.headers.get("content-type", "")
    if parse_header(content_type)[0] not in (URL_ENCODED, MULTIPART):
        return FormFields()
    return parse_form(content_type, body)


def is_from_own_page(headers: Any, base_url: str, *, has_token: bool = False) -> bool:
    """Tell whether a form was posted from our own page, as far as the browser says.

    Browsers of the last years say it in Sec-Fetch-Site, which no page can set, unless the page came by plain http.
    Under our `no-referrer` our own forms carry `Origin: null`, and so may everybody's. Where that is all there is, the
    proof is a form token, which only our page can have (`has_token`). Clients that send neither (w3m, old browsers)
    have only their token to show, too.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin" and origin in (None, "null", base_url)
    return origin in (None, base_url) or (origin == "null" and has_token)


def read_query(request: HttpRequest, *names: str, prefix: str | None = None) -> dict[str, str]:
    """Read the query's values by name. A name that is unknown or given twice is a fault: it would do nothing.

    Names that begin with `prefix` are known.
    """
    given = request.query_params.multi_items()
    counts = Counter(name for name, _ in given)
    known = {name for name in counts if name in names or (prefix is not None and name.startswith(prefix))}
    faults = [
        {"loc": ["query", name], "msg": "appears twice" if name in known else "no such filter"}
        for name, count in counts.items()
        if name not in known or count > 1
    ]
    if faults:
        raise bad_query(faults)
    return dict(given)


def query_choice(name: str, value: str | None, known: Sequence[str] | Any) -> str | None:
    if value is not None and value not in known:
        raise bad_query([{"loc": ["query", name], "msg": f"unknown; one of: {', '.join(sorted(known))}"}])
    return value


def query_address(name: str, value: str | None, people: People) -> str | None:
    """Return the identity of the person with this address: otherwise `Ann@…` would find nothing."""
    try:
        return people.canonical(value) if value is not None else None
    except AddressError as error:
        what = "not a person's address" if error.is_shapeless else str(error)
        raise bad_query([{"loc": ["query", name], "msg": what}]) from None


def query_integer(name: str, value: str, least: int, most: int) -> int:
    """Read plain digits: what else Python takes for a number (`1_0`, `2.9`) a caller meant otherwise."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 9 and least <= int(value) <= most):
        raise bad_query([{"loc": ["query", name], "msg": f"not a whole number from {least} to {most}"}])
    return int(value)


def query_number(name: str, value: str, least: float, most: float) -> float:
    try:
        number = float(value) if len(value) <= 40 else float("nan")
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise bad_query([{"loc": ["query", name], "msg": f"not a number from {least:g} to {most:g}"}])
    return number


def bad_query(faults: list[dict[str, Any]]) -> Problem:
    return Problem(422, "Invalid filter", "The list can't be filtered that way.", errors=faults)
