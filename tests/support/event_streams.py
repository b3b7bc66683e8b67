"""Server-sent events of an app, read as they come; httpx's transport for apps waits for the end of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp


class EventStream:
    """An open answer. `status` and `headers` are known at once, `next` waits for what comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.has_ended = asyncio.Event()
        self._begun = asyncio.Event()
        self._parts: asyncio.Queue[str] = asyncio.Queue()
        self._left = asyncio.Event()

    async def next(self, seconds: float = 20.0) -> str:
        """Return the next piece that is no heartbeat."""
        async with asyncio.timeout(seconds):
            while (part := await self._parts.get()).startswith(":"):
                pass
        return part

    async def _play(self, app: ASGIApp, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        given = {"host": parts.netloc} | dict(headers)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": parts.scheme,
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("192.0.2.7", 1234),
            "server": (parts.hostname, 443),
        }
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._begun.set()
            self.has_ended.set()

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            self._begun.set()
        elif text := message.get("body", b"").decode():
            self.text += text
            self._parts.put_nowait(text)


@asynccontextmanager
async def stream_of(app: ASGIApp, url: str, headers: Mapping[str, str]) -> AsyncIterator[EventStream]:
    """Open this URL, and leave it at the end."""
    stream = EventStream()
    playing = asyncio.create_task(stream._play(app, url, headers))
    await stream._begun.wait()
    try:
        yield stream
    finally:
        stream._left.set()
        await playing
