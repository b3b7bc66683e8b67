"""Socket Mode: a websocket on loopback, to which `apps.connections.open` sends the app."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

from aiohttp import WSMsgType, web

from approvals_bot.playground.slack.outbound import Envelope
from approvals_bot.playground.slack.shapes import Json
from approvals_bot.playground.slack.workspace import Workspace

MOST_CONNECTIONS = 10  # per app


class SocketMode:
    """The server, on a port of its own (aiohttp brings the websocket that uvicorn alone has not). Open as a context."""

    def __init__(self, space: Workspace, host: str = "127.0.0.1", port: int = 0) -> None:
        self.space = space
        self.host = host
        self.port = port
        self.tickets: set[str] = set()
        self.connections: list[web.WebSocketResponse] = []
        self.waiting: dict[str, asyncio.Future[Any]] = {}  # envelope id → the payload of its acknowledgement
        self.turn = count()
        self.numbers = count(1)
        self.runner: web.AppRunner | None = None

    async def __aenter__(self) -> SocketMode:
        app = web.Application()
        app.router.add_get("/link/", self.connect)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.host, self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in [*self.connections]:
            await connection.close()
        for future in self.waiting.values():
            future.cancel()
        if self.runner:
            await self.runner.cleanup()

    @property
    def is_connected(self) -> bool:
        return bool(self.connections)

    def new_ticket(self) -> str:
        """A URL that one connection may use once."""
        ticket = self.space.secret()
        self.tickets.add(ticket)
        return f"ws://{self.host}:{self.port}/link/?ticket={ticket}&app_id={self.space.app.app_id}"

    async def connect(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets or len(self.connections) >= MOST_CONNECTIONS:
            return web.Response(status=403, text="no such ticket, or too many connections")
        self.tickets.discard(ticket)
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        await connection.send_json(
            {
                "type": "hello",
                "num_connections": len(self.connections) + 1,
                "debug_info": {"host": "playground", "approximate_connection_time": 18060},
                "connection_info": {"app_id": self.space.app.app_id},
            }
        )
        self.connections.append(connection)
        try:
            async for message in connection:
                if message.type == WSMsgType.TEXT:
                    self.acknowledge(message.data)
        finally:
            self.connections.remove(connection)
        return connection

    async def send(self, kind: Envelope, payload: Json, retry: tuple[int, str] | None) -> Any:
        """One envelope to any one of the connections, and the payload of its acknowledgement."""
        envelope_id = f"envelope-{next(self.numbers)}"
        envelope: Json = {
            "type": kind,
            "envelope_id": envelope_id,
            "payload": payload,
            "accepts_response_payload": kind != "events_api",
        }
        if kind == "events_api":
            envelope |= {"retry_attempt": retry[0] if retry else 0, "retry_reason": retry[1] if retry else ""}
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[envelope_id] = answer
        try:
            await self.connections[next(self.turn) % len(self.connections)].send_json(envelope)
            return await answer
        finally:
            del self.waiting[envelope_id]

    def acknowledge(self, text: str) -> None:
        """A late or foreign acknowledgement changes nothing."""
        try:
            given = json.loads(text)
        except ValueError:
            return
        match given:
            case {"envelope_id": str(envelope_id)} if envelope_id in self.waiting:
                answer = self.waiting[envelope_id]
                if not answer.done():
                    answer.set_result(given.get("payload"))

    async def ask_to_reconnect(self, reason: str = "refresh_requested") -> None:
        """What Slack does every few hours: it asks, and the app opens a new connection."""
        for connection in [*self.connections]:
            await connection.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "playground"}})
