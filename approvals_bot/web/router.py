"""How routes are served: the methods of a path, our own files, and what a request was for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from approvals_bot.web.middleware import UNMATCHED
from approvals_bot.web.responses import Problem

Endpoint = Callable[[HttpRequest], Awaitable[ASGIApp]]
Line = tuple[str, str, Endpoint]
"""A method, a path, and what answers there."""


def lead_to(path: str) -> Endpoint:
    """Lead from the bare address to the first page."""

    async def start(request: HttpRequest) -> Response:
        return RedirectResponse(path, 303)

    return start


class Resource:
    """One path and what may be done there. HEAD is a GET whose body nobody reads."""

    def __init__(self, methods: Mapping[str, Endpoint]) -> None:
        self.methods = dict(methods)
        if "GET" in methods:
            self.methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.methods.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(sorted(self.methods))
            raise Problem(405, detail=f"This address takes only {allowed}.", headers={"Allow": allowed})
        if any("\0" in str(value) for value in scope["path_params"].values()):
            raise Problem(404)  # no id or token of ours has a NUL, and PostgreSQL takes none as text
        response = await endpoint(HttpRequest(scope, receive))
        await response(scope, receive, send)


class Assets(StaticFiles):
    """Our stylesheet and pictures: kept by the browser, and asked about each time, so that an upgrade is seen."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def resources(table: Iterable[Line]) -> list[Route]:
    paths: dict[str, dict[str, Endpoint]] = {}
    for method, path, endpoint in table:
        paths.setdefault(path, {})[method] = endpoint
    return [Route(path, Resource(methods)) for path, methods in paths.items()]


class Templates:
    """Which route took a request, by its template: what the log and the metrics may say."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._templates = dict(endpoints(routes, ""))

    def __call__(self, scope: Scope) -> str:
        return self._templates.get(id(scope.get("endpoint")), UNMATCHED)


def endpoints(routes: Iterable[BaseRoute], prefix: str) -> Iterable[tuple[int, str]]:
    for route in routes:
        match route:
            case Mount():
                yield id(route.app), f"{prefix}{route.path}/*"
                yield from endpoints(route.routes or (), prefix + route.path)
            case Route():
                yield id(route.endpoint), f"{prefix}{route.path}"


async def no_route(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
        return
    raise Problem(404, detail="There's nothing at this address.")
