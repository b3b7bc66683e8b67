"""Around every request: security headers, our own access log and counters, and no raw error to the caller.

The log names the route's template, never the path: a decision page's path is a key, and query strings hold addresses.
An unexpected error is logged with its type and where it happened, without its message, which may quote what people
sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from approvals_bot.durable.core.bugs import where_raised
from approvals_bot.durable.core.tracing import span
from approvals_bot.service.log_fields import of_request
from approvals_bot.web.guard import KEEPS_PEERS, TrustedProxies
from approvals_bot.web.metrics import METHODS, Metrics
from approvals_bot.web.responses import RETRY_SOON, Problem, problem_of

SECURITY_HEADERS: dict[str, str] = {
    # Nothing is loaded but our stylesheet and pictures; no script runs, ours or anybody's; nobody frames us.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    # The path of a decision page is a key: it must not travel to other sites, stay in caches or be indexed.
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex, nofollow",
}
HSTS = {"strict-transport-security": "max-age=31536000"}  # a year; subdomains are not ours to speak for


def security_headers(base_url: str) -> dict[str, str]:
    """Return the headers of all answers but those below KEYS, of a service at this URL.

    Over plain http, browsers don't say where a form comes from except in `Origin`, which is null under `no-referrer`.
    So there, pages whose paths are no keys name themselves to our own pages.
    """
    if base_url.startswith("https:"):
        return SECURITY_HEADERS | HSTS
    return SECURITY_HEADERS | {"referrer-policy": "same-origin"}


KEYS = "/decisions/"
"""What the paths that are keys begin with."""


access_log = logging.getLogger("approvals_bot.access")
error_log = logging.getLogger("approvals_bot.web")

STOPPING = Problem(
    503, "Service stopping", "We can't say whether this was done. Try again in a moment.", headers=RETRY_SOON
)

UNMATCHED = "(no route)"
UNREMARKABLE = frozenset({"/healthz", "/readyz", "/metrics"})

RespondToError = Callable[[HttpRequest, Exception], Awaitable[Response]]


class Middleware:
    """Wraps the whole app.

    `template_of`: which route took a request. `respond`: what the caller gets for an error. `keeps_peers`: whether logs
    and the audit keep the addresses of callers. `proxies`: whose `X-Request-Id` counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        template_of: Callable[[Scope], str],
        respond: RespondToError,
        metrics: Metrics,
        base_url: str,
        keeps_peers: bool = True,
        proxies: TrustedProxies | None = None,
    ) -> None:
        self._app = app
        self._proxies = proxies or TrustedProxies()
        self._keeps_peers = keeps_peers
        self._headers = _encoded(security_headers(base_url))
        self._key_headers = _encoded(security_headers(base_url) | {"referrer-policy": "no-referrer"})
        self._template_of = template_of
        self._respond = respond
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[KEEPS_PEERS] = self._keeps_peers
        given = self._proxies.request_id(scope) if self._proxies.networks else ""
        request_id = given or secrets.token_hex(8)
        known = {"request_id": request_id}
        of_request.set(known)
        with span(scope["method"], _parent(scope), request_id=request_id) as current:
            await self._answer(scope, receive, send, known)
            if current is not None:
                current.update_name(f"{known['method']} {known['route']}")
                current.set_attributes(known)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, known: dict[str, Any]) -> None:
        """Answer a request, and log and count it. `known`: the fields of the lines about it."""
        started = time.perf_counter()
        status, seconds = 0, 0.0
        ours = self._key_headers if scope["path"].startswith(KEYS) else self._headers

        async def send_safely(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                given = {name.lower() for name, _ in headers}
                headers += [header for header in ours if header[0] not in given]
                message["headers"] = [*headers, (b"x-request-id", known["request_id"].encode())]
            await send(message)
            seconds = time.perf_counter() - started  # nobody waits for what is done after the answer's end

        try:
            await self._app(scope, receive, send_safely)
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001  # the edge: nothing gets past it unsaid
            response = await self._after_error(error, scope, has_begun=bool(status))
            await response(scope, receive, send_safely)
        finally:
            template = self._template_of(scope)
            self._metrics.answered(scope["method"], template, status or 500, seconds)
            _log_request(scope["method"], template, status or 500, seconds, known)

    async def _after_error(self, error: BaseException, scope: Scope, *, has_begun: bool) -> Response:
        """Return the response to an error. `has_begun`: too late, the response has been sent in part."""
        if not isinstance(error, Exception):  # the time that requests get when the service ends is over
            if has_begun:
                raise error
            return await self._respond(HttpRequest(scope), STOPPING)
        if problem_of(error) is None:
            _log_error(error, self._template_of(scope))
        if has_begun:
            raise ConnectionError("an answer was cut short") from None
        return await self._respond(HttpRequest(scope), error)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _parent(scope: Scope) -> str:
    """Return the caller's `traceparent`; "" without one."""
    found = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    return found.decode("latin-1")


def _log_request(method: str, route: str, status: int, seconds: float, known: dict[str, Any]) -> None:
    """Log a request. Those of probes, which come all the time, only where everything is logged."""
    known |= {"method": method if method in METHODS else "other", "route": route, "status": status}
    level = logging.DEBUG if route in UNREMARKABLE and status < 400 else logging.INFO
    if access_log.isEnabledFor(level):
        said = {**known, "event": "request", "duration_ms": round(seconds * 1000, 1)}
        access_log.log(level, "%s %s %d", known["method"], route, status, extra=said)


def _log_error(error: Exception, template: str) -> None:
    where = "".join(traceback.format_tb(error.__traceback__)[-6:])
    known = {"error": type(error).__qualname__, "where": where_raised(error)}
    error_log.error("%s while answering %s\n%s", known["error"], template, where.rstrip(), extra=known)
