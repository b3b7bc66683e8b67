"""Slack's side of the line to the app: signed requests to its `/slack/events`, or envelopes over Socket Mode."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import aiohttp

from approvals_bot.playground.faults import Fault, Faults
from approvals_bot.playground.slack.inputs import state_of
from approvals_bot.playground.slack.shapes import Conversation, Json, Message, User, View
from approvals_bot.playground.slack.workspace import Workspace

ACK_LIMIT = 3.0  # seconds; then the person sees a warning
EVENT_RETRIES = (0.0, 60.0, 300.0)  # seconds after a failed event: at once, after one minute, after five
Envelope = Literal["interactive", "slash_commands", "events_api"]
FAULT_NAMES: dict[Envelope, str] = {"interactive": "interaction", "slash_commands": "command", "events_api": "event"}


@dataclass(frozen=True, slots=True)
class Ack:
    """What the app answered. `status` is None when nothing came within three seconds."""

    status: int | None
    ms: int
    body: Any = None  # JSON, or the text of an answer that isn't JSON

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Socket(Protocol):
    """A way to the app that needs no URL of its own."""

    @property
    def is_connected(self) -> bool: ...

    async def send(self, kind: Envelope, payload: Json, retry: tuple[int, str] | None) -> Any:
        """Returns the payload of the acknowledgement; waits for ever if none comes."""


class Outbound:
    """Delivers payloads and waits for the acknowledgement. Open as a context."""

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
        self.socket: Socket | None = None
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
        """Send one payload, with whatever fault is scripted for it."""
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
    """Events are JSON; commands are plain form fields; everything else is a form field that holds JSON."""
    match kind:
        case "events_api":
            return json.dumps(payload).encode(), "application/json"
        case "slash_commands":
            return urlencode(payload).encode(), "application/x-www-form-urlencoded"
        case "interactive":
            return urlencode({"payload": json.dumps(payload)}).encode(), "application/x-www-form-urlencoded"


def since(started: float) -> int:
    return int((time.perf_counter() - started) * 1000)


# ── The payloads that Slack sends to an app, field by field. ──

TOKEN = "playground-verification"  # noqa: S105 - Slack's deprecated verification token; it opens nothing


class Payloads:
    """Makes them for one workspace. `base_url` is where the response URLs lead."""

    def __init__(self, space: Workspace, base_url: str) -> None:
        self.space = space
        self.base_url = base_url

    def about(self, user: User, kind: str) -> Json:
        """The part that all interactions share."""
        app = self.space.app
        return {
            "type": kind,
            "team": {"id": app.team_id, "domain": app.team_name.lower()},
            "user": {"id": user.id, "username": user.handle, "name": user.handle, "team_id": user.team_id},
            "api_app_id": app.app_id,
            "token": TOKEN,
            "trigger_id": self.space.new_trigger(user.id),
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def command(self, user: User, place: Conversation, command: str, text: str) -> Json:
        """A slash command: plain form fields."""
        return {
            "token": TOKEN,
            "team_id": self.space.app.team_id,
            "team_domain": self.space.app.team_name.lower(),
            "channel_id": place.id,
            "channel_name": "directmessage" if place.with_user else place.name,
            "user_id": user.id,
            "user_name": user.handle,
            "command": command,
            "text": text,
            "api_app_id": self.space.app.app_id,
            "is_enterprise_install": "false",
            "response_url": self.response_url(user, place.id, None),
            "trigger_id": self.space.new_trigger(user.id),
        }

    def event(self, event: Json) -> Json:
        app = self.space.app
        return {
            "token": TOKEN,
            "team_id": app.team_id,
            "api_app_id": app.app_id,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{next(self.space.numbers):08d}",
            "event_time": int(self.space.now().timestamp()),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": app.team_id,
                    "user_id": self.space.bot.id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "is_ext_shared_channel": False,
        }

    def in_message(self, user: User, message: Message | None) -> Json:
        assert message is not None
        place = self.space.channels[message.channel]
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": place.id,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        found: Json = {
            "container": container,
            "channel": {"id": place.id, "name": "directmessage" if place.with_user else place.name},
            "response_url": self.response_url(user, place.id, message.ts),
        }
        if message.ephemeral_to is None:  # Slack doesn't send the content of ephemeral messages along
            found["message"] = message.as_json(self.space.app.team_id, with_metadata=True)
        return found

    def in_view(self, view: View) -> Json:
        return {"container": {"type": "view", "view_id": view.id}, "view": self.space.view_json(view)}

    def action(self, block: Json, element: Json, value: Any) -> Json:
        at = {
            "action_id": element["action_id"],
            "block_id": block["block_id"],
            "action_ts": f"{self.space.now().timestamp():.6f}",
        }
        if element["type"] == "button":
            kept = {name: element[name] for name in ("text", "value", "style", "url") if name in element}
            return {"type": "button"} | at | kept
        return state_of(element, value) | at

    def response_url(self, user: User, channel: str, ts: str | None) -> str:
        return f"{self.base_url}/playground/slack/response/{self.space.new_response_url(user.id, channel, ts)}"
