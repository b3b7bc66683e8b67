"""Fake HTTP targets that check the Standard Webhooks signature and keep each request."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from approvals_bot.playground.faults import Dropped, Fault, Faults

SECRET_PREFIX = "whsec_"  # noqa: S105 - the standard's own prefix, not a secret


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """A request to a target. `json` is None if the body isn't JSON."""

    name: str
    at: datetime
    method: str
    json: Any
    headers: dict[str, str]
    signature_valid: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "at": self.at.isoformat(),
            "method": self.method,
            "json": self.json,
            "headers": self.headers,
            "signature_valid": self.signature_valid,
        }


class FakeTargets:
    """All targets, by name. `answers`: the response to a GET of a target, for a group's or directory's source."""

    def __init__(
        self,
        secrets: Mapping[str, str],
        *,
        answers: Mapping[str, Any] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        faults: Faults | None = None,
    ) -> None:
        self.secrets = dict(secrets)
        self.answers = dict(answers or {})
        self.now = now
        self.faults = faults or Faults()
        self.received: list[ReceivedCall] = []

    async def answer(self, request: Request) -> Response:
        """Keep the request and answer 202; 401 for a wrong signature, 404 for an unknown target."""
        name = request.path_params["name"]
        if name not in self.secrets and name not in self.answers:
            known = ", ".join(sorted(self.secrets)) or "none"
            return JSONResponse({"detail": f"There is no target {name!r}; there are: {known}."}, 404)
        fault = self.faults.next(name)
        if fault and (early := fault_response(fault)):
            return early
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        body = await request.body()
        received = ReceivedCall(
            name,
            self.now(),
            request.method,
            parsed(body),
            dict(request.headers),
            is_signed(request.headers, body, self.secrets.get(name, "")),
        )
        self.received.append(received)
        if fault and fault.kind == "drop_after":
            return Dropped()
        if request.method == "GET":
            return JSONResponse(self.answers[name]) if name in self.answers else Response(status_code=405)
        if not received.signature_valid:
            return JSONResponse({"detail": "The signature is wrong or missing."}, 401)
        return JSONResponse({"received": True}, 202)


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Verify a Standard Webhooks signature: base64 HMAC-SHA256 of `id.timestamp.body`; one valid one suffices."""
    message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (secret and message_id and at.isdigit()):
        return False
    signed = f"{message_id}.{at}.".encode() + body
    expected = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest())
    given = [one.removeprefix("v1,").encode() for one in headers.get("webhook-signature", "").split()]
    return any(hmac.compare_digest(expected, one) for one in given)


def key_of(secret: str) -> bytes:
    """Decode a secret: `whsec_` and base64 as the standard has it, or else the text's bytes."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()


def fault_response(fault: Fault) -> Response | None:
    match fault.kind:
        case "rate_limited":
            return Response(status_code=429, headers={"Retry-After": str(fault.retry_after)})
        case "server_error":
            return HTMLResponse("<h1>Server Error</h1>", 500)
        case "error":
            return JSONResponse({"detail": "scripted fault"}, fault.code)
        case "drop_before":
            return Dropped()
        case _:
            return None


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None
