"""How much a caller may send, and how long it may take."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from approvals_bot.web.problems import Problem

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
