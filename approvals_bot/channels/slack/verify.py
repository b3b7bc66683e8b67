"""The guard in front of everything from Slack: only requests that Slack signed get through, and only once.

The signature is checked on the raw bytes before anything is parsed. Any fault (a missing, forged, stale or repeated
signature, an unreadable body, a repeated header) gets a 401 without details. No stranger's request causes a 500.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from slack_sdk.signature import Clock, SignatureVerifier
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

BODY_LIMIT = 1 << 20  # bytes; Slack's own largest payload, a view, is 250 kB
BODY_TIME = 5.0  # seconds for the whole body; Slack sends it at once
WINDOW = timedelta(minutes=5)  # how old or early a signature may be, as Slack recommends
SEEN_LIMIT = 100_000  # signatures remembered; they are forgotten after twice the window
AUDITED_PER_MINUTE = 60  # refused requests that get a line in the audit; anybody can send more

SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
TIMESTAMP = re.compile(r"[0-9]{1,12}")
ONCE = ("x-slack-signature", "x-slack-request-timestamp", "content-type", "content-length", "content-encoding")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FromSlack:
    """A request that Slack signed: its payload, and the headers that may be passed on."""

    payload: Mapping[str, Any]
    headers: Mapping[str, str]


class RefusedRequestError(Exception):
    """The request isn't from Slack, or is malformed. The reason is for the audit, never for the sender."""

    def __init__(self, reason: str, status: int = 401) -> None:
        self.reason = reason
        self.status = status
        super().__init__(reason)


Receiver = Callable[[FromSlack], Awaitable[Response]]
Witness = Callable[[str, str], Awaitable[None]]


class SlackGuard:
    """An ASGI endpoint that passes verified requests to `receiver`.

    `refused` is called with the reason of each refused request and the address that it came from, for the audit.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        signing_secret: str,
        now: Callable[[], datetime],
        refused: Witness | None = None,
    ) -> None:
        self._receiver = receiver
        self._now = now
        self._refused = refused
        self._verifier = SignatureVerifier(signing_secret, clock=_Clock(now))
        # In memory alone. What is replayed at another replica, or after a restart, gets through once more, and changes
        # nothing: an act's resume id is a hash of its payload (`press_of`), and a form's view opens one request.
        self._seen: OrderedDict[str, datetime] = OrderedDict()
        self._audited: tuple[datetime, int] = (now(), 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        signature = ""
        try:
            asked = Request(scope, receive)
            body = await _body(asked)
            signature = self._verify(asked.headers, body)
            # bolt's own headers control its dispatch and aren't signed, so they must not come from outside
            headers = {name: value for name, value in asked.headers.items() if not name.startswith("x-slack-bolt-")}
            request = FromSlack(_payload(asked.headers, body), headers)
        except Exception as error:  # noqa: BLE001  # a stranger's bytes must never cause a 500
            await self._turn_away(error, scope, receive, send)
            return
        response = await self._answer(request, signature, _peer_of(scope))
        await response(scope, receive, send)

    async def _answer(self, request: FromSlack, signature: str, peer: str) -> Response:
        try:
            response = await self._receiver(request)
        except BaseException:
            self._seen.pop(signature, None)  # it had no effect, so Slack may send it again
            raise
        if response.status_code >= 500:
            self._seen.pop(signature, None)
        elif response.status_code == 401:
            await self._witness("wrong workspace or app", peer)
        return response

    def _verify(self, headers: Headers, body: bytes) -> str:
        """Slack's own check, after ours has made sure that it can't stumble. Returns the signature, now used up."""
        if any(len(headers.getlist(name)) > 1 for name in ONCE):
            raise RefusedRequestError("a header came twice")
        if headers.get("content-encoding", "identity") != "identity":
            raise RefusedRequestError("compressed")
        timestamp = headers.get("x-slack-request-timestamp", "")
        signature = headers.get("x-slack-signature", "")
        if not TIMESTAMP.fullmatch(timestamp) or not SIGNATURE.fullmatch(signature):
            raise RefusedRequestError("no signature")
        if not self._verifier.is_valid(body, timestamp, signature):
            raise RefusedRequestError("bad or stale signature")
        now = self._now()
        while self._seen and (len(self._seen) > SEEN_LIMIT or now - next(iter(self._seen.values())) > WINDOW * 2):
            self._seen.popitem(last=False)
        if signature in self._seen:
            raise RefusedRequestError("replayed")
        self._seen[signature] = now
        return signature

    async def _turn_away(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        malformed = RefusedRequestError(f"malformed: {type(error).__name__}")
        refusal = error if isinstance(error, RefusedRequestError) else malformed
        await self._witness(refusal.reason, _peer_of(scope))
        answer = PlainTextResponse("Not accepted.\n", refusal.status)
        await answer(scope, receive, send)

    async def _witness(self, reason: str, peer: str) -> None:
        log.info("A request to /slack/events was refused: %s", reason)
        minute, count = self._audited
        if self._now() - minute > timedelta(minutes=1):
            minute, count = self._now(), 0
        self._audited = (minute, count + 1)
        if self._refused is not None and count < AUDITED_PER_MINUTE:
            try:
                await self._refused(reason, peer)
            except Exception:  # noqa: BLE001  # the request is refused either way
                log.warning("The refusal could not be written to the audit.")


def _peer_of(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            async for part in request.stream():
                body += part
                if len(body) > BODY_LIMIT:
                    raise RefusedRequestError("body too large", 413)
    except ClientDisconnect:
        raise RefusedRequestError("gone before the body was complete") from None
    return bytes(body)


def _payload(headers: Mapping[str, str], body: bytes) -> Mapping[str, Any]:
    """Parse the body. Events are JSON, interactions a form with a JSON `payload`, commands a plain form."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    text = body.decode("utf-8")
    if kind == "application/json":
        said = json.loads(text)
    elif kind == "application/x-www-form-urlencoded":
        form = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=200)
        if any(len(values) > 1 for values in form.values()):
            raise RefusedRequestError("a form field came twice")
        said = json.loads(form["payload"][0]) if "payload" in form else {name: one[0] for name, one in form.items()}
    else:
        raise RefusedRequestError("neither JSON nor a form")
    if not isinstance(said, dict):
        raise RefusedRequestError("not a payload")
    return said


class _Clock(Clock):
    """The service's clock, for slack_sdk."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> float:
        return self._now().timestamp()
