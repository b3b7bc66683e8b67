"""The pages for a person."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from approvals_bot.playground.guard import Endpoint
from approvals_bot.playground.playground import Playground


class Pages:
    def __init__(self, playground: Playground) -> None:
        self.playground = playground

    def table(self) -> list[tuple[str, Endpoint, tuple[str, ...]]]:
        return [("", self.front, ("GET",))]

    async def front(self, request: Request) -> Response:
        return HTMLResponse("<h1>Playground</h1>")
