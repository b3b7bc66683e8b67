"""The engine's adapter to Starlette: requests and responses of webhooks, to and from what the log keeps.

No other module of the engine imports Starlette.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.durable.core.hooks import WebhookRequest, decode_body

__all__ = ["Request", "Response", "accepted", "as_webhook_request", "response_of", "unanswered"]


async def as_webhook_request(request: WebhookRequest | Request) -> WebhookRequest:
    """A request with its body read, as a workflow sees it."""
    if isinstance(request, WebhookRequest):
        return request
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    return WebhookRequest(request.method, str(request.url), headers, await request.body())


def response_of(answer: dict[str, Any]) -> Response:
    """An answer from the log, as a response."""
    response = Response(decode_body(answer), answer["status"])
    for name, value in answer["headers"]:
        response.headers[name] = value
    return response


def accepted() -> Response:
    """The answer to a caller of a webhook that gives none of its own."""
    return Response(status_code=202)


def unanswered() -> Response:
    """The answer to a caller whose request was taken, and whose workflow has not answered in time."""
    return Response("The request was received, but not answered.\n", 504, media_type="text/plain")
