"""`response_url`: five answers in thirty minutes, without a token, about the message that was clicked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from approvals_bot.playground.slack.blocks import check_blocks
from approvals_bot.playground.slack.shapes import RESPONSE_URL_LIFE, RESPONSE_URL_USES, Json, ResponseUrl
from approvals_bot.playground.slack.workspace import Workspace


async def respond(space: Workspace, request: Request) -> Response:
    """Post, replace or delete, as the JSON says."""
    allowed = space.response_urls.get(request.path_params["key"])
    if allowed is None:
        return refusal("invalid_url", 404)
    if space.now() - allowed.made_at > RESPONSE_URL_LIFE:
        return refusal("expired_url", 404)
    if allowed.uses >= RESPONSE_URL_USES:
        return refusal("used_url", 404)
    try:
        said = json.loads(await request.body())
    except ValueError:
        return refusal("invalid_payload", 400)
    if not isinstance(said, dict):
        return refusal("invalid_payload", 400)
    blocks = said.get("blocks") or []
    if blocks and check_blocks(blocks, "message"):
        return refusal("invalid_blocks", 400)
    if not said.get("delete_original") and not said.get("text") and not blocks:
        return refusal("no_text", 400)
    allowed.uses += 1
    obey(space, allowed, said, blocks)
    return PlainTextResponse("ok")


def obey(space: Workspace, allowed: ResponseUrl, said: Json, blocks: Any) -> None:
    original = space.messages.get((allowed.channel, allowed.ts or ""))
    text = str(said.get("text") or "")
    if said.get("delete_original"):
        if original:
            space.delete(original)
    elif said.get("replace_original") and original:
        edited = f"{space.now().timestamp():.6f}"
        space.keep(replace(original, text=text, blocks=tuple(space.with_ids(blocks)), edited=edited))
    else:
        alone = said.get("response_type", "ephemeral") == "ephemeral"
        space.post(
            allowed.channel,
            space.bot,
            text,
            blocks,
            thread_ts=said.get("thread_ts"),
            ephemeral_to=allowed.user if alone else None,
        )


def refusal(error: str, status: int) -> Response:
    return JSONResponse({"ok": False, "error": error}, status)
