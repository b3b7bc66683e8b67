"""The engine's adapter to Starlette: converts webhook requests and responses to and from their form in the log.

No other module of the engine imports Starlette.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.durable.core.hooks import WebhookRequest, decode_body

__all__ = ["Request", "Response", "accepted", "as_webhook_request", "response_of", "unanswered"]


async def as_webhook_request(request: WebhookRequest | Request) -> WebhookRequest:
    """Read a request's body and return the request as a workflow sees it.

    Raises MalformedBodyError if it comes as a form that can't be read.
    """
    if isinstance(request, WebhookRequest):
        return request
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    read = WebhookRequest(request.method, str(request.url), headers, await request.body())
    read.check_form()
    return read


def response_of(answer: dict[str, Any]) -> Response:
    """Return an answer from the log as a response."""
    response = Response(decode_body(answer), answer["status"])
    for name, value in answer["headers"]:
        response.headers.append(name, value)
    return response


def accepted() -> Response:
    """Return the default answer of a webhook: 202, empty."""
    return Response(status_code=202)


def unanswered() -> Response:
    """Return the 504 for a caller whose workflow didn't answer in time."""
    return Response("The request was received, but not answered.\n", 504, media_type="text/plain")
