"""A server on loopback with our connections' clocks, for raw sockets and either of uvicorn's HTTP parsers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from approvals_bot.cli.serving import _Server
from approvals_bot.cli.wire import TimedConnection, http_protocol
from approvals_bot.web.guard import Guard, TrustedProxies

PARSERS = ("h11", "httptools")


class Site:
    """A server on loopback, its connections, and an app that can be slow or send more than anybody takes."""

    def __init__(self) -> None:
        self.server: Any = None
        self.port = 0
        self.go_on = asyncio.Event()
        self.headers: list[tuple[bytes, bytes]] = []  # of the newest request, as the app has them in the end

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["path"] == "/slow":
            await self.go_on.wait()
        if scope["path"] == "/echo":
            while (message := await receive()).get("more_body"):
                body += message["body"]
            body += message.get("body", b"")
        if scope["path"] == "/huge":
            body = b"x" * 30_000_000
        self.headers = [*scope["headers"]]
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *parts: bytes) -> bytes:
        """Return everything that comes back for these bytes until the server closes."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.01)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    async def one(self, wanted: Callable[[TimedConnection], bool] = lambda _: True) -> TimedConnection:
        """Wait for a connection of this kind."""
        async with asyncio.timeout(10):
            while not (found := [each for each in self.server.server_state.connections if wanted(each)]):
                await asyncio.sleep(0.005)
        connection: TimedConnection = found[0]
        return connection


@asynccontextmanager
async def served(parser: str, most: int = 100, app: Any = None) -> AsyncIterator[Site]:
    site = Site()
    app = app or Guard(site.app, proxies=TrustedProxies())

    async def with_problems(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except Exception as problem:  # noqa: BLE001  # as the middleware does
            await problem.response()(scope, receive, send)  # type: ignore[attr-defined]

    protocol = http_protocol(parser, most=most)
    config = uvicorn.Config(
        with_problems, http=protocol, ws="none", port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    site.server = _Server(config)
    serving = asyncio.create_task(site.server.serve())
    while not site.server.started:  # uvicorn has a flag but no event
        await asyncio.sleep(0.005)
    site.port = site.server.servers[0].sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        site.go_on.set()
        site.server.should_exit = True
        await serving


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0
