"""The guard in front of everything from Slack: signed requests get through once, all others get a plain 401."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from approvals_bot.channels.slack.verify import BODY_LIMIT, FromSlack, SlackGuard
from tests.support.thorough import examples

SECRET = "the signing secret"
NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
FORM = "application/x-www-form-urlencoded"
CLICK = urlencode({"payload": json.dumps({"type": "block_actions", "actions": []})}).encode()

Headers = list[tuple[str, bytes | str]]


@dataclass
class Gate:
    """A guard, the requests that got through, and its audit lines."""

    http: httpx2.AsyncClient
    passed: list[FromSlack] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    status: int = 200

    async def post(self, body: bytes, headers: Headers) -> httpx2.Response:
        raw = [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
        return await self.http.post("/slack/events", content=body, headers=raw)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async def receive(request: FromSlack) -> Response:
        opened.passed.append(request)
        await asyncio.sleep(0)
        return PlainTextResponse("ok", opened.status)

    async def refused(reason: str, peer: str) -> None:
        opened.refused.append(reason)

    guard = SlackGuard(receive, signing_secret=SECRET, now=lambda: NOW, refused=refused)
    app = Starlette(routes=[Route("/slack/events", guard, methods=["POST"])])
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://approve.acme.eu") as http:
        opened = Gate(http)
        yield opened


def signed(body: bytes, at: datetime = NOW, secret: str = SECRET, kind: str = FORM) -> Headers:
    stamp = str(int(at.timestamp()))
    mac = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return [("content-type", kind), ("x-slack-request-timestamp", stamp), ("x-slack-signature", f"v0={mac}")]


def changed(headers: Headers, name: str, value: bytes | str) -> Headers:
    return [(one, value if one == name else old) for one, old in headers]


GOOD = signed(CLICK)
NOT_UTF8 = b"payload=\xff\xfe"
SIGNATURE = str(GOOD[2][1])
ONE_OFF = SIGNATURE[:-1] + ("1" if SIGNATURE[-1] == "0" else "0")

REFUSED: dict[str, tuple[bytes, Headers]] = {
    "B01 no signature": (CLICK, GOOD[:1]),
    "B02 another secret": (CLICK, signed(CLICK, secret="of somebody else")),
    "B03 six minutes old": (CLICK, signed(CLICK, NOW - timedelta(minutes=6))),
    "B04 six minutes early": (CLICK, signed(CLICK, NOW + timedelta(minutes=6))),
    "just too old": (CLICK, signed(CLICK, NOW - timedelta(seconds=301))),
    "just too early": (CLICK, signed(CLICK, NOW + timedelta(seconds=301))),
    "B05 a timestamp of letters": (CLICK, changed(GOOD, "x-slack-request-timestamp", "abc")),
    "B06 a timestamp of 5,000 digits": (CLICK, changed(GOOD, "x-slack-request-timestamp", "9" * 5_000)),
    "a timestamp of other digits": (CLICK, changed(GOOD, "x-slack-request-timestamp", "١٢٣".encode())),
    "B07 a signature with é": (CLICK, changed(GOOD, "x-slack-signature", "v0=é".encode("latin-1"))),
    "a signature one digit off": (CLICK, changed(GOOD, "x-slack-signature", ONE_OFF)),
    "an upper-case signature": (CLICK, changed(GOOD, "x-slack-signature", SIGNATURE.upper())),
    "B08 a body that is no text": (NOT_UTF8, signed(NOT_UTF8)),
    "B08 the same unsigned": (NOT_UTF8, GOOD[:1]),
    "B09 a body encoded again": (CLICK.replace(b"+", b"%20"), GOOD),
    "B10 two signatures": (CLICK, [*GOOD, GOOD[2]]),
    "two timestamps": (CLICK, [*GOOD, GOOD[1]]),
    "broken JSON": (b"payload={", signed(b"payload={")),
    "a JSON list": (b"[]", signed(b"[]", kind="application/json")),
    "a number": (b"payload=1", signed(b"payload=1")),
    "deep JSON": (b"[" * 200_000, signed(b"[" * 200_000, kind="application/json")),
    "two payloads": (CLICK + b"&" + CLICK, signed(CLICK + b"&" + CLICK)),
    "neither JSON nor a form": (CLICK, signed(CLICK, kind="text/plain")),
    "compressed": (CLICK, [*GOOD, ("content-encoding", "gzip")]),
    "an unsigned ssl_check": (b"ssl_check=1", GOOD[:1]),
}  # fmt: skip


@pytest.mark.check(1, 2, 3, 4)
@pytest.mark.parametrize(("body", "headers"), REFUSED.values(), ids=REFUSED.keys())
async def test_requests_not_signed_by_slack_are_refused_and_audited(gate: Gate, body: bytes, headers: Headers) -> None:
    answer = await gate.post(body, headers)
    assert answer.status_code == 401
    assert answer.text == "Not accepted.\n"
    assert gate.passed == []
    assert len(gate.refused) == 1


@pytest.mark.check(1, 2)
@pytest.mark.parametrize("seconds", [-299, 0, 299])
async def test_requests_signed_within_five_minutes_get_through(gate: Gate, seconds: int) -> None:
    assert (await gate.post(CLICK, signed(CLICK, NOW + timedelta(seconds=seconds)))).status_code == 200
    (request,) = gate.passed
    assert request.payload == json.loads(parse_qs(CLICK.decode())["payload"][0])


@pytest.mark.check(6)
async def test_a_replay_is_refused_even_a_hundred_at_once(gate: Gate) -> None:
    answers = await asyncio.gather(*(gate.post(CLICK, GOOD) for _ in range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 99
    assert len(gate.passed) == 1


async def test_a_request_that_failed_can_be_repeated(gate: Gate) -> None:
    gate.status = 503
    assert (await gate.post(CLICK, GOOD)).status_code == 503
    gate.status = 200
    assert (await gate.post(CLICK, GOOD)).status_code == 200


@pytest.mark.check(5)
async def test_bolts_own_headers_are_not_accepted_from_outside(gate: Gate) -> None:
    await gate.post(CLICK, [*GOOD, ("x-slack-bolt-lazy-only", "1"), ("X-Slack-Bolt-Lazy-Function-Name", "f")])
    assert not [name for name in gate.passed[0].headers if name.startswith("x-slack-bolt")]


@pytest.mark.check(4)
async def test_a_large_body_is_not_read_to_its_end(gate: Gate) -> None:
    body = b"x" * (BODY_LIMIT + 1)
    assert (await gate.post(body, signed(body))).status_code == 413
    assert gate.passed == []


async def test_only_a_post_is_answered(gate: Gate) -> None:
    for method in ("GET", "PUT", "DELETE", "TRACE"):
        assert (await gate.http.request(method, "/slack/events")).status_code == 405


async def test_a_flood_does_not_fill_the_audit(gate: Gate) -> None:
    for _ in range(100):
        await gate.post(CLICK, [])
    assert len(gate.refused) == 60


@pytest.mark.check(3, 4)
@settings(max_examples=examples(150), suppress_health_check=list(HealthCheck), deadline=None)
@given(
    body=st.binary(max_size=200),
    timestamp=st.binary(max_size=20),
    signature=st.binary(max_size=80),
    kind=st.binary(max_size=40),
)
async def test_no_strangers_bytes_cause_a_500(
    gate: Gate, body: bytes, timestamp: bytes, signature: bytes, kind: bytes
) -> None:
    sent: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.setdefault("status", message.get("status"))

    names = (b"x-slack-request-timestamp", b"x-slack-signature", b"content-type")
    headers = list(zip(names, (timestamp, signature, kind), strict=True))
    guard = gate.http._transport.app.routes[0].app  # type: ignore[attr-defined]
    await guard({"type": "http", "method": "POST", "path": "/slack/events", "headers": headers}, receive, send)
    assert sent["status"] == 401
