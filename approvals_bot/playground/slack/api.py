"""Slack's HTTP endpoints: the Web API with scopes, faults and rate limits, and the response URLs."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from approvals_bot.playground.faults import Dropped, Fault, Faults, TruncatedResponse
from approvals_bot.playground.slack.blocks import check_blocks
from approvals_bot.playground.slack.calls import (
    METHODS,
    Answerer,
    Call,
    Method,
    Rates,
    SlackRefusedError,
    missing_scope,
)
from approvals_bot.playground.slack.chat import CHAT
from approvals_bot.playground.slack.directory import DIRECTORY
from approvals_bot.playground.slack.functions import FUNCTIONS
from approvals_bot.playground.slack.shapes import RESPONSE_URL_LIFE, RESPONSE_URL_USES, Json, ResponseUrl
from approvals_bot.playground.slack.views import VIEWS
from approvals_bot.playground.slack.workspace import Workspace

ANSWERERS: dict[str, Answerer] = {
    **CHAT.answerers,
    **DIRECTORY.answerers,
    **FUNCTIONS.answerers,
    **VIEWS.answerers,
}
WITHOUT_TOKEN = frozenset({"api.test", "blocks.validate", "oauth.v2.access"})
REMEMBERED_CALLS = 500


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """A call as the log page shows it, without its token."""

    at: datetime
    method: str
    arguments: Json
    answer: str  # "ok", Slack's error name, or the scripted fault


class WebApi:
    """The Web API that the service calls."""

    def __init__(self, space: Workspace, faults: Faults, base_url: str) -> None:
        self.space = space
        self.faults = faults
        self.rates = Rates(space.now)
        self.base_url = base_url
        self.socket_url = ""  # set when Socket Mode listens
        self.dead_tokens: dict[str, str] = {}  # token → token_revoked, account_inactive, token_expired
        self.seen: deque[LoggedCall] = deque(maxlen=REMEMBERED_CALLS)

    def new_socket_ticket(self) -> str:
        """Return where a Socket Mode client may connect; replaced by the socket server when it runs."""
        return self.socket_url

    async def answer(self, request: Request) -> Response:
        """Answer a call, with checks in Slack's order: scripted fault, rate limit, token, scope, the method itself."""
        name = request.path_params["method"]
        try:
            arguments = await arguments_of(request)
        except SlackRefusedError as refused:
            return self.reply(name, {}, refused)
        token = token_of(request, arguments)
        fault = self.faults.next(name, *self.names_of_place(arguments))
        if fault and (early := await self.fault_before(fault, name, arguments)):
            return early
        response = self.perform(name, arguments, token, fault)
        return await self.fault_after(fault, response) if fault else response

    def perform(self, name: str, arguments: Json, token: str, fault: Fault | None) -> Response:
        try:
            if fault and fault.kind == "error":
                raise SlackRefusedError(fault.error)
            method = METHODS.get(name)
            if method is None:
                raise SlackRefusedError("unknown_method", req_method=name)
            wait = self.rates.wait(method, str(arguments.get("channel", "")))
            if wait:
                return self.limited(name, arguments, wait)
            scopes = self.authenticate(method, token)
            check_arguments(method, arguments)
            call = Call(name, arguments, scopes, self.base_url)
            answer = self.connections_open() if name == "apps.connections.open" else ANSWERERS[name](self.space, call)
        except SlackRefusedError as refused:
            return self.reply(name, arguments, refused)
        return self.reply(name, arguments, answer)

    def reply(self, name: str, arguments: Json, answer: Json | SlackRefusedError) -> Response:
        headers = {"x-slack-req-id": self.space.secret(), "x-oauth-scopes": ",".join(self.space.app.scopes)}
        if isinstance(answer, SlackRefusedError):
            if name in METHODS and name != "api.test":
                assert METHODS[name].may_answer(answer.error), f"{name} never answers {answer.error}"
            self.note(name, arguments, answer.error)
            return JSONResponse({"ok": False, "error": answer.error} | answer.more, headers=headers)
        self.note(name, arguments, "ok")
        return JSONResponse({"ok": True} | answer, headers=headers)

    # who calls

    def authenticate(self, method: Method, token: str) -> frozenset[str]:
        app = self.space.app
        if method.name in WITHOUT_TOKEN:
            return frozenset(app.scopes)
        if method.name == "apps.connections.open":
            if not app.app_token or token != app.app_token:
                raise SlackRefusedError("invalid_auth" if token else "not_authed")
            return frozenset()
        if not token:
            raise SlackRefusedError("not_authed")
        if token in self.dead_tokens:
            raise SlackRefusedError(self.dead_tokens[token])
        if token == app.app_token:
            raise SlackRefusedError("not_allowed_token_type")
        if token != app.bot_token:
            raise SlackRefusedError("invalid_auth")
        scopes = frozenset(app.scopes)
        if method.scopes and not scopes & set(method.scopes):
            raise missing_scope(",".join(method.scopes), scopes)
        return scopes

    def connections_open(self) -> Json:
        url = self.new_socket_ticket()
        if not url:
            raise SlackRefusedError("forbidden_team")
        return {"url": url}

    # faults

    async def fault_before(self, fault: Fault, name: str, arguments: Json) -> Response | None:
        match fault.kind:
            case "rate_limited":
                return self.limited(name, arguments, fault.retry_after)
            case "server_error":
                self.note(name, arguments, "HTTP 500")
                return HTMLResponse("<html><body><h1>Server Error</h1></body></html>", 500)
            case "drop_before":
                self.note(name, arguments, "dropped before")
                return Dropped()
            case "slow":
                await asyncio.sleep(fault.seconds)
        return None

    async def fault_after(self, fault: Fault, response: Response) -> Response:
        match fault.kind:
            case "drop_after":
                return Dropped()
            case "truncated":
                return TruncatedResponse(bytes(response.body))
            case _:
                return response

    def limited(self, name: str, arguments: Json, seconds: int) -> Response:
        self.note(name, arguments, "ratelimited")
        return JSONResponse({"ok": False, "error": "ratelimited"}, 429, headers={"Retry-After": str(seconds)})

    def names_of_place(self, arguments: Json) -> tuple[str, ...]:
        """List all names of a call's channel, so a fault can be scripted by any of them."""
        where = str(arguments.get("channel") or "")
        found = self.space.find_channel(where)
        names = {where} | ({found.id, found.label, found.name} if found else set())
        if found and found.with_user:
            names.add(found.with_user)
        return tuple(names - {""})

    def note(self, name: str, arguments: Json, answer: str) -> None:
        self.seen.append(LoggedCall(self.space.now(), name, arguments, answer))


async def arguments_of(request: Request) -> Json:
    """Merge query, form and JSON. The caller takes the token out."""
    merged: dict[str, Any] = dict(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "POST" or kind == "":
        return merged
    match kind:
        case "application/json":
            body = await request.body()
            try:
                given = json.loads(body or b"{}")
            except ValueError:
                raise SlackRefusedError("invalid_json") from None
            if not isinstance(given, dict):
                raise SlackRefusedError("json_not_object")
            merged |= given
        case "application/x-www-form-urlencoded" | "multipart/form-data":
            async with request.form() as form:
                merged |= {k: v for k, v in form.items() if not isinstance(v, UploadFile)}
        case _:
            raise SlackRefusedError("invalid_post_type")
    return merged


def token_of(request: Request, arguments: Json) -> str:
    """Return the bearer token or else the `token` argument, which is removed so that no log shows it."""
    given = str(arguments.pop("token", "") or "")
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else given


def check_arguments(method: Method, arguments: Json) -> None:
    missing = [name for name in method.required if arguments.get(name) in (None, "")]
    if missing:
        lines = [f"[ERROR] missing required field: {name}" for name in missing]
        raise SlackRefusedError("invalid_arguments", response_metadata={"messages": lines})


async def respond(space: Workspace, request: Request) -> Response:
    """Answer a call of a response URL: post, replace or delete a message."""
    allowed = space.response_urls.get(request.path_params["key"])
    if allowed is None:
        return refusal("invalid_url", 404)
    if space.now() - allowed.made_at > RESPONSE_URL_LIFE:
        return refusal("expired_url", 404)
    if allowed.uses >= RESPONSE_URL_USES:
        return refusal("used_url", 404)
    try:
        body = json.loads(await request.body())
    except ValueError:
        return refusal("invalid_payload", 400)
    if not isinstance(body, dict):
        return refusal("invalid_payload", 400)
    blocks = body.get("blocks") or []
    if blocks and check_blocks(blocks, "message"):
        return refusal("invalid_blocks", 400)
    if not body.get("delete_original") and not body.get("text") and not blocks:
        return refusal("no_text", 400)
    allowed.uses += 1
    obey(space, allowed, body, blocks)
    return PlainTextResponse("ok")


def obey(space: Workspace, allowed: ResponseUrl, body: Json, blocks: Any) -> None:
    original = space.messages.get((allowed.channel, allowed.ts or ""))
    text = str(body.get("text") or "")
    if body.get("delete_original"):
        if original:
            space.delete(original)
    elif body.get("replace_original") and original:
        edited = f"{space.now().timestamp():.6f}"
        space.keep(replace(original, text=text, blocks=tuple(space.with_ids(blocks)), edited=edited))
    else:
        alone = body.get("response_type", "ephemeral") == "ephemeral"
        space.post(
            allowed.channel,
            space.bot,
            text,
            blocks,
            thread_ts=body.get("thread_ts"),
            ephemeral_to=allowed.user if alone else None,
        )


def refusal(error: str, status: int) -> Response:
    return JSONResponse({"ok": False, "error": error}, status)
