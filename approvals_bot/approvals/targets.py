"""Calls to the HTTP targets of the service's file, signed so that the receiver knows who calls and may call twice.

The signature is in the Standard Webhooks format, for which receivers exist in every language: `webhook-id` (the event,
the same on every attempt), `webhook-timestamp` (seconds since 1970), `webhook-signature` (`v1,` and the Base64 of the
HMAC-SHA256 over `id.timestamp.body`).
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from pydantic import JsonValue

from approvals_bot.durable.core.api import resource, step


@dataclass(frozen=True, slots=True)
class Called:
    """The target took the call over: it answered 2xx."""

    status: int
    kind: Literal["called"] = "called"


@dataclass(frozen=True, slots=True)
class CallAgain:
    """Not now: no answer, 429, or 5xx. `after` is the target's own wish."""

    error: str
    after: timedelta | None = None
    kind: Literal["again"] = "again"


@dataclass(frozen=True, slots=True)
class CallRefused:
    """Never: there is no such target, its address is not allowed, or it answered that the call is wrong."""

    error: str
    kind: Literal["refused"] = "refused"


CallResult = Called | CallAgain | CallRefused


class HttpTargets(Protocol):
    """The targets of `[http.*]`. Raises only for bugs."""

    async def post(self, target: str, event_id: str, body: dict[str, JsonValue]) -> CallResult:
        """POST this as JSON, signed with the target's secret; `event_id` is the same on every attempt."""


@step(retries=0, timeout=60.0)  # seconds; ends only what hangs
async def call_target(
    target: str, event_id: str, body: dict[str, JsonValue], targets: HttpTargets = resource(HttpTargets)
) -> CallResult:
    """Call one target once."""
    return await targets.post(target, event_id, body)


def signature_headers(secret: str, event_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers for this body. `secret` may be in the format's own form, `whsec_` and Base64."""
    stamp = str(int(at.timestamp()))
    signed = hmac.digest(_key(secret), f"{event_id}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
    }


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return b64decode(secret.removeprefix("whsec_"), validate=True)
        except Base64Error:
            pass  # a secret that only happens to begin like this
    return secret.encode()
