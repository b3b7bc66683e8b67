"""Targets check signatures, the clock moves, and other machines are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING

import httpx2
import pytest
from starlette.applications import Starlette

from approvals_bot.playground import Playground, SeedApp, routes

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig

SECRET = "whsec_" + base64.b64encode(b"a key of the deploy target, long").decode()


def signed(body: bytes, secret: bytes = b"a key of the deploy target, long") -> dict[str, str]:
    mac = hmac.new(secret, b"msg_1.1700000000." + body, hashlib.sha256).digest()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,bm9uc2Vuc2U= v1,{base64.b64encode(mac).decode()}",
        "content-type": "application/json",
    }


async def test_signed_and_forged_requests_are_kept_and_distinguished(start_rig: StartRig) -> None:
    rig = await start_rig(target_secrets={"deploy-api": SECRET, "erp": "plain secret"})
    url = f"{rig.base_url}/playground/http"
    body = json.dumps({"service": "api"}).encode()
    for name, headers, status in (
        ("deploy-api", signed(body), 202),
        ("deploy-api", signed(body, b"another key"), 401),
        ("deploy-api", {}, 401),
        ("erp", signed(body, b"plain secret"), 202),
        ("nobody", signed(body), 404),
    ):
        async with rig.http.post(f"{url}/{name}", data=body, headers=headers) as response:
            assert response.status == status
    kept = await rig.call("/http/requests")
    assert [(r["name"], r["signature_valid"], r["json"]) for r in kept] == [
        ("deploy-api", True, {"service": "api"}),
        ("deploy-api", False, {"service": "api"}),
        ("deploy-api", False, {"service": "api"}),
        ("erp", True, {"service": "api"}),
    ]
    assert kept[0]["headers"]["webhook-id"] == "msg_1"


async def test_lone_surrogate_in_a_call_is_shown_as_an_escape(start_rig: StartRig) -> None:
    rig = await start_rig(target_secrets={"deploy-api": "s" * 32})
    body = b'{"text": "\\ud800"}'
    async with rig.http.post(f"{rig.base_url}/playground/http/deploy-api", data=body):
        pass
    async with rig.http.get(f"{rig.base_url}/playground/http/requests") as shown:
        assert shown.status == 200
        assert b"\\ud800" in await shown.read()


async def test_target_may_fail_or_answer_a_get(start_rig: StartRig) -> None:
    rig = await start_rig(target_secrets={"erp": "s"}, target_answers={"hr": {"people": ["ann@acme.eu"]}})
    await rig.call("/http/faults", {"kind": "server_error", "method": "erp"})
    async with rig.http.post(f"{rig.base_url}/playground/http/erp", data=b"{}") as response:
        assert response.status == 500
    assert await rig.call("/http/hr") == {"people": ["ann@acme.eu"]}


async def test_clock_moves_by_the_requested_duration(rig: Rig) -> None:
    before = rig.clock.now()
    answer = await rig.call("/clock", {"advance": "30m"})
    assert answer["now"] > before.isoformat()
    wrong = await rig.call("/clock", {"advance": "a while"}, status=422)
    assert "a while" in wrong["detail"]


async def test_invalid_json_and_unknown_fields_are_reported(rig: Rig) -> None:
    async with rig.http.post(f"{rig.base_url}/playground/slack/click", data=b"{") as response:
        assert response.status == 400
    answer = await rig.call("/slack/click", {"usr": "ann"}, status=422)
    assert "usr" in answer["detail"]
    assert "user" in answer["detail"]


def asked(playground: Playground, peer: str, host: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(Starlette(routes=routes(playground)), client=(peer, 1234))
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.mark.parametrize(
    ("peer", "host", "headers", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", {}, 200),
        ("127.0.0.1", "localhost:8000", {}, 200),
        ("::1", "[::1]:8000", {}, 200),
        ("10.0.0.7", "127.0.0.1:8000", {}, 403),
        ("127.0.0.1", "evil.example", {}, 403),
        ("127.0.0.1", "127.0.0.1:8000", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("127.0.0.1", "127.0.0.1:8000", {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"}, 403),
        ("127.0.0.1", "127.0.0.1:8000", {"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ("127.0.0.1", "127.0.0.1:8000", {"Origin": "http://127.0.0.1:8000"}, 200),
        ("127.0.0.1", "127.0.0.1:8000", {"Origin": "http://evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1:8000", {"Origin": "null"}, 403),
    ],
)
async def test_only_this_machine_and_its_own_pages_may_use_it(
    peer: str, host: str, headers: dict[str, str], status: int
) -> None:
    playground = closed_playground(allow_remote=False)
    async with asked(playground, peer, host) as client:
        if headers:
            answer = await client.post("/playground/slack/limits", json={"on": False}, headers=headers)
        else:
            answer = await client.get("/playground/slack/messages")
    assert answer.status_code == status


async def test_remote_callers_may_be_allowed() -> None:
    async with asked(closed_playground(allow_remote=True), "10.0.0.7", "play.example") as client:
        assert (await client.get("/playground/slack/messages")).status_code == 200


def closed_playground(*, allow_remote: bool) -> Playground:
    return Playground(
        app=SeedApp("xoxb", "secret"),
        people=(),
        base_url="http://127.0.0.1:1",
        events_url="http://127.0.0.1:1/slack/events",
        allow_remote=allow_remote,
    )
