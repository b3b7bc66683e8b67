"""Where a run waits for a payload from outside: hooks by their token, webhooks by the URL that `create_webhook` gave.

A GET never resumes: link previews and scanners follow every URL that is ever pasted anywhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.core.serialization import encode, without_tags
from approvals_bot.durable.engine import Engine, HookInfo, HookTarget, RunRecord
from approvals_bot.durable.store.protocol import HookRow
from approvals_bot.durable.tokens import WEBHOOK
from approvals_bot.errors import HookNotFoundError, InvalidTokenError, RunNotFoundError
from approvals_bot.service.read import request_behind
from approvals_bot.service.refusals import usable_key
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.keys import actor_of, check_reach
from approvals_bot.web.responses import JsonResponse, Problem
from approvals_bot.web.validation import API_BODY, LINK_BODY, json_body, parse_json, read_body

RESPONSE_LIMIT = 30.0  # seconds; a caller whose manual answer doesn't come by then gets 504, and the run goes on


class Webhooks:
    """`/webhooks/{signed}`. Every bad URL is one and the same 404: forged, unknown, over, or no webhook at all."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._tokens, self._refused = desk.engine, desk.tokens, desk.refused
        self._pages, self._base_url = desk.pages, desk.base_url

    async def show(self, request: HttpRequest) -> Response:
        await self._target(request)
        return self._pages.page("webhook.html")

    async def resume(self, request: HttpRequest) -> Response:
        """Hand the request to the run, and respond as the workflow says."""
        target = await self._target(request)
        body = await read_body(request, LINK_BODY)
        if "json" in request.headers.get("content-type", ""):
            parse_json(body)
        call = self._as_call(target.hook.id, request, body)
        call.check_form()
        try:
            return await self._engine.resume_webhook(target, call, timeout=RESPONSE_LIMIT)
        except HookNotFoundError:
            raise _nothing_waits() from None

    def _as_call(self, hook_id: str, request: HttpRequest, body: bytes) -> WebhookRequest:
        """Return the call as the run's log keeps it. Its URL names the hook: the real one is a key and stays out."""
        query = request.scope["query_string"].decode("latin-1")
        return WebhookRequest(
            request.method,
            f"{self._base_url}/webhooks/{hook_id}{'?' if query else ''}{query}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
            body,
        )

    async def _target(self, request: HttpRequest) -> HookTarget:
        payload = self._read(request.path_params["signed"])
        target = await self._engine.find(str(payload.get("h", "")))
        # an approval takes votes from people whose identity a channel has established, and from nobody else
        if target is None or not _takes_calls(target.hook, payload) or request_behind(target) is not None:
            self._refused.refuse(request.scope)
            raise _nothing_waits()
        return target

    def _read(self, signed: str) -> dict[str, Any]:
        try:
            return self._tokens.read(WEBHOOK, signed)
        except InvalidTokenError:
            return {}


def _takes_calls(hook: HookRow, payload: dict[str, Any]) -> bool:
    return hook.is_live and hook.is_webhook and payload.get("g") == hook.generation


def _nothing_waits() -> Problem:
    return Problem(404, detail="Nothing is waiting for a call at this address.")


class HooksApi:
    """`/api/hooks/{token}`. Unknown, disposed and ended hooks are one and the same 404."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    async def show(self, request: HttpRequest) -> Response:
        """Show what is known of the live hook with this token."""
        hook = await self._engine.get_hook_by_token(request.path_params["token"])
        if (record := await self._engine.record(hook.run_id)) is not None:
            await self._check(request, record)
        return JsonResponse(hook_json(hook))

    async def resume(self, request: HttpRequest) -> Response:
        """The body is the payload; durable before the answer. A repeated Idempotency-Key adds no second payload."""
        key = request.headers.get("idempotency-key")
        resume_id = None if key is None else usable_key(key)
        payload = await json_body(request, API_BODY)
        # a webhook's token is no hook's: it is called at its own URL, as a request that its workflow may answer
        resumed = await self._engine.resume_hook(
            request.path_params["token"],
            payload,
            resume_id=resume_id,
            actor=actor_of(request).as_json(),
            allow=partial(self._check, request),
        )
        return JsonResponse(hook_json(resumed))

    async def _check(self, request: HttpRequest, record: RunRecord) -> None:
        """Raise HookNotFoundError if the key may not know of this run, Problem 403 if it may not resume it."""
        try:
            await check_reach(self._engine, request, record)
        except RunNotFoundError:
            raise HookNotFoundError(request.path_params["token"]) from None


def hook_json(hook: HookInfo) -> dict[str, Any]:
    return {
        "run_id": hook.run_id,
        "hook_id": hook.hook_id,
        "token": hook.token,
        "metadata": without_tags(encode(hook.metadata)),
        "created_at": hook.created_at.isoformat(),
        "is_webhook": hook.is_webhook,
    }
