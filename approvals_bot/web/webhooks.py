"""The URLs that `create_webhook` gave: a program calls one, and a run goes on.

A GET never resumes: link previews and scanners follow every URL that is ever pasted anywhere.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, HookTarget
from approvals_bot.durable.store.protocol import HookRow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import HookNotFoundError, InvalidTokenError
from approvals_bot.service.read import request_behind
from approvals_bot.web.problems import Problem
from approvals_bot.web.render import Renderer
from approvals_bot.web.validation import LINK_BODY, parse, whole

WEBHOOK = "webhook.v1"
ANSWER_LIMIT = 30.0  # seconds; a caller whose manual answer doesn't come by then gets 504, and the run goes on


class Webhooks:
    """`/webhooks/{signed}`. Every bad URL is one and the same 404: forged, unknown, over, or no webhook at all."""

    def __init__(self, *, engine: Engine, tokens: Tokens, pages: Renderer, base_url: str) -> None:
        self._engine = engine
        self._tokens = tokens
        self._pages = pages
        self._base_url = base_url

    async def show(self, request: Request) -> Response:
        await self._target(request)
        return self._pages.page("webhook.html")

    async def resume(self, request: Request) -> Response:
        """Hands the request to the run and answers as the workflow says."""
        target = await self._target(request)
        body = await whole(request, LINK_BODY)
        if "json" in request.headers.get("content-type", ""):
            parse(body)
        call = self._as_call(target.hook.id, request, body)
        try:
            return await self._engine.resume_webhook(target, call, timeout=ANSWER_LIMIT)
        except HookNotFoundError:
            raise _not_found() from None

    def _as_call(self, hook_id: str, request: Request, body: bytes) -> WebhookRequest:
        """The call as the run's log keeps it. Its URL names the hook: the real one is a key and stays out."""
        query = request.scope["query_string"].decode("latin-1")
        return WebhookRequest(
            request.method,
            f"{self._base_url}/webhooks/{hook_id}{'?' if query else ''}{query}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
            body,
        )

    async def _target(self, request: Request) -> HookTarget:
        payload = self._read(request.path_params["signed"])
        target = await self._engine.find(str(payload.get("h", "")))
        if target is None or not _takes_calls(target.hook, payload):
            raise _not_found()
        if request_behind(target) is not None:
            # an approval takes votes from people whose identity a channel has established, and from nobody else
            raise _not_found()
        return target

    def _read(self, signed: str) -> dict[str, Any]:
        try:
            return self._tokens.read(WEBHOOK, signed)
        except InvalidTokenError:
            return {}


def _takes_calls(hook: HookRow, payload: dict[str, Any]) -> bool:
    return hook.is_live and hook.is_webhook and payload.get("g") == hook.generation


def _not_found() -> Problem:
    return Problem(404, detail="Nothing waits for a call at this address.")
