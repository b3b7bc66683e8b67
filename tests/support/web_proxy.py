"""A real HTTP proxy, as companies have: CONNECT for https, whole URLs for http, and names that only it knows."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class WebProxy:
    """`names` says where each `host:port` is; the proxy reaches nothing else. `seen` has what it was asked for.

    `login`: `name:password`, without which it answers 407.
    """

    def __init__(self, names: Mapping[str, int], login: str = "") -> None:
        self.names = dict(names)
        self.seen: list[str] = []
        self.port = 0
        self._expected = f"proxy-authorization: basic {b64encode(login.encode()).decode()}".lower() if login else ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        verb, target, version = first.split(" ")
        url = urlsplit(f"//{target}" if verb == "CONNECT" else target)
        place = f"{url.hostname}:{url.port or 80}"
        self.seen.append(f"{verb} {place}")
        if self._expected and self._expected not in [line.lower() for line in headers]:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        if place not in self.names:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.names[place])
        if verb == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            kept = [
                line for line in headers if line and not line.lower().startswith(("connection:", "host:", "proxy-"))
            ]
            kept.append(f"Host: 127.0.0.1:{self.names[place]}")  # what is there takes no other name
            upgraded = any(line.lower().startswith("upgrade:") for line in headers)
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            kept.append(f"Connection: {'Upgrade' if upgraded else 'close'}")
            back.write("\r\n".join([f"{verb} {path} {version}", *kept, "", ""]).encode("latin-1"))
        await asyncio.gather(_pass(reader, back), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def web_proxy(names: Mapping[str, int], login: str = "") -> AsyncIterator[WebProxy]:
    """Run a proxy while the block runs."""
    made = WebProxy(names, login)
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
