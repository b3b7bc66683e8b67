"""How Slack reaches the app: signed requests to its `/slack/events`, or envelopes over Socket Mode."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

from approvals_bot.playground.faults import Fault, Faults
from approvals_bot.playground.slack.shapes import APP_ID, Json
from approvals_bot.playground.slack.workspace import Workspace

ACK_LIMIT = 3.0  # seconds; then the person sees a warning
EVENT_RETRIES = (0.0, 60.0, 300.0)  # seconds after a failed event: at once, after one minute, after five
MOST_CONNECTIONS = 10  # of Socket Mode, per app
Envelope = Literal["interactive", "slash_commands", "events_api"]
FAULT_NAMES: dict[Envelope, str] = {"interactive": "interaction", "slash_commands": "command", "events_api": "event"}


@dataclass(frozen=True, slots=True)
class Ack:
    """The app's response. `status` is None if none arrived within three seconds."""

    status: int | None
    ms: int
    body: Any = None  # JSON, or the text if it isn't JSON

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class SocketServer:
    """The Socket Mode server, running while its context is open.

    It has its own port, because aiohttp has websockets and uvicorn alone doesn't.
    """

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

    async def __aenter__(self) -> SocketServer:
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
        """Return a URL that allows one connection, once."""
        ticket = self.space.secret()
        self.tickets.add(ticket)
        return f"ws://{self.host}:{self.port}/link/?ticket={ticket}&app_id={APP_ID}"

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
                "connection_info": {"app_id": APP_ID},
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
        """Send an envelope to any one connection, and return the payload of its acknowledgement."""
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
        """Record an acknowledgement; a late or foreign one changes nothing."""
        try:
            given = json.loads(text)
        except ValueError:
            return
        match given:
            case {"envelope_id": str(envelope_id)} if envelope_id in self.waiting:
                answer = self.waiting[envelope_id]
                if not answer.done():
                    answer.set_result(given.get("payload"))

    async def ask_to_reconnect(self) -> None:
        """Ask the app to open a new connection, as Slack does every few hours."""
        for connection in [*self.connections]:
            await connection.send_json(
                {"type": "disconnect", "reason": "refresh_requested", "debug_info": {"host": "playground"}}
            )


class Outbound:
    """Delivers payloads and waits for acknowledgements, while its context is open."""

    def __init__(
        self,
        events_url: str,
        signing_secret: str,
        faults: Faults,
        *,
        clock: Callable[[], float] = time.time,
        ack_limit: float = ACK_LIMIT,
        retries: tuple[float, ...] = EVENT_RETRIES,
    ) -> None:
        self.events_url = events_url
        self.signing_secret = signing_secret
        self.faults = faults
        self.clock = clock
        self.ack_limit = ack_limit
        self.retries = retries
        self.socket: SocketServer | None = None
        self.later: set[asyncio.Task[Any]] = set()
        self.session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Outbound:
        self.session = aiohttp.ClientSession(
            headers={"User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)", "Accept": "*/*"}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.later:
            task.cancel()
        await asyncio.gather(*self.later, return_exceptions=True)
        if self.session:
            await self.session.close()

    async def deliver(self, kind: Envelope, payload: Json) -> Ack:
        """Send one payload, with its scripted fault, if any."""
        fault = self.faults.next(FAULT_NAMES[kind])
        match fault:
            case Fault(kind="drop_before"):
                return Ack(None, 0)
            case Fault(kind="delayed"):
                self.soon(self.send_later(kind, payload, fault.seconds))
                return Ack(None, int(self.ack_limit * 1000))
            case Fault(kind="duplicate"):
                acks = await asyncio.gather(self.send(kind, payload), self.send(kind, payload))
                ack = next((one for one in acks if one.ok), acks[0])
            case _:
                ack = await self.send(kind, payload)
        if kind == "events_api" and not ack.ok:
            self.soon(self.retry_event(payload, "http_timeout" if ack.status is None else "http_error"))
        return Ack(None, ack.ms) if fault and fault.kind == "drop_after" else ack

    async def send(self, kind: Envelope, payload: Json, retry: tuple[int, str] | None = None) -> Ack:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.ack_limit):
                if self.socket and self.socket.is_connected:
                    status, body = 200, await self.socket.send(kind, payload, retry)
                else:
                    status, body = await self.post(kind, payload, retry)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return Ack(None, since(started))
        return Ack(status, since(started), body)

    async def post(self, kind: Envelope, payload: Json, retry: tuple[int, str] | None) -> tuple[int, Any]:
        body, content_type = encoded(kind, payload)
        headers = {"Content-Type": content_type} | self.signature(body)
        if retry:
            headers |= {"X-Slack-Retry-Num": str(retry[0]), "X-Slack-Retry-Reason": retry[1]}
        assert self.session is not None, "open the playground first"
        async with self.session.post(self.events_url, data=body, headers=headers, allow_redirects=False) as response:
            text = await response.text()
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, text

    def signature(self, body: bytes) -> dict[str, str]:
        at = str(int(self.clock()))
        mac = hmac.new(self.signing_secret.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256)
        return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": f"v0={mac.hexdigest()}"}

    async def retry_event(self, payload: Json, reason: str) -> None:
        for number, wait in enumerate(self.retries, start=1):
            await asyncio.sleep(wait)
            ack = await self.send("events_api", payload, retry=(number, reason))
            if ack.ok:
                return

    async def send_later(self, kind: Envelope, payload: Json, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.send(kind, payload)

    def soon(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.later.add(task)
        task.add_done_callback(self.later.discard)


def encoded(kind: Envelope, payload: Json) -> tuple[bytes, str]:
    """Encode a payload: events as JSON, commands as form fields, everything else as JSON in a form field."""
    match kind:
        case "events_api":
            return json.dumps(payload).encode(), "application/json"
        case "slash_commands":
            return urlencode(payload).encode(), "application/x-www-form-urlencoded"
        case "interactive":
            return urlencode({"payload": json.dumps(payload)}).encode(), "application/x-www-form-urlencoded"


def since(started: float) -> int:
    return int((time.perf_counter() - started) * 1000)
