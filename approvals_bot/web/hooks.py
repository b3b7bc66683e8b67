"""The API of hooks: look at one by its token, and resume its run with a payload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_jsonable_python
from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.engine import Engine, HookInfo
from approvals_bot.errors import HookNotFoundError
from approvals_bot.web.answers import Json
from approvals_bot.web.json_body import json_body
from approvals_bot.web.keys import ApiKey, caller
from approvals_bot.web.limits import API_BODY
from approvals_bot.web.opening import usable_key


class Hooks:
    """`/api/hooks/{token}`. Unknown, disposed and ended hooks are one and the same 404."""

    def __init__(self, *, engine: Engine, keys: Sequence[ApiKey]) -> None:
        self._engine = engine
        self._keys = keys

    async def show(self, request: Request) -> Response:
        """What is known of the live hook with this token."""
        caller(request, self._keys)
        return Json(hook_json(await self._engine.get_hook_by_token(request.path_params["token"])))

    async def resume(self, request: Request) -> Response:
        """The body is the payload; durable before the answer. A repeated Idempotency-Key adds no second payload."""
        caller(request, self._keys)
        key = request.headers.get("idempotency-key")
        resume_id = None if key is None else usable_key(key)
        payload = await json_body(request, API_BODY)
        hook = await self._engine.get_hook_by_token(request.path_params["token"])
        if hook.is_webhook:
            # a webhook is called at its own URL, as a request that its workflow may answer
            raise HookNotFoundError(hook.token)
        resumed = await self._engine.resume_hook(hook.token, payload, resume_id=resume_id)
        return Json(hook_json(resumed))


def hook_json(hook: HookInfo) -> dict[str, Any]:
    return {
        "run_id": hook.run_id,
        "hook_id": hook.hook_id,
        "token": hook.token,
        "metadata": to_jsonable_python(hook.metadata, fallback=str),
        "created_at": hook.created_at.isoformat(),
        "is_webhook": hook.is_webhook,
    }
