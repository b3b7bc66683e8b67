"""Who may use the playground: only this machine, and only pages of the playground itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Endpoint = Callable[[Request], Awaitable[Response]]
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


def guarded(endpoint: Endpoint, *, allow_remote: bool) -> Endpoint:
    """The endpoint, closed to everybody who isn't on this machine (unless remote callers are allowed)."""

    async def checked(request: Request) -> Response:
        if not allow_remote and not is_local(request):
            return problem(403, "The playground answers only to this machine (loopback).")
        if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") == "cross-site":
            return problem(403, "The playground takes no requests from other sites' pages.")
        return await endpoint(request)

    return checked


def is_local(request: Request) -> bool:
    """Peer and Host: the second keeps out a foreign name that resolves to 127.0.0.1."""
    peer = request.client.host if request.client else ""
    return is_loopback(peer) and (request.url.hostname or "") in LOOPBACK_NAMES


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def problem(status: int, detail: str) -> Response:
    """An error as JSON (RFC 9457), with one clear sentence."""
    titles = {400: "Bad request", 403: "Not allowed", 404: "Not found", 409: "Not possible", 422: "Wrong input"}
    body = {"type": "about:blank", "title": titles.get(status, "Error"), "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
