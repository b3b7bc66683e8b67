"""Requests and responses of webhooks, between Starlette and the log."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.durable.core.webhook_requests import WebhookRequest, decode_body


async def as_webhook_request(request: WebhookRequest | Request) -> WebhookRequest:
    if isinstance(request, WebhookRequest):
        return request
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    return WebhookRequest(request.method, str(request.url), headers, await request.body())


def response_of(answer: dict[str, Any]) -> Response:
    response = Response(decode_body(answer), answer["status"])
    for name, value in answer["headers"]:
        response.headers[name] = value
    return response
