"""The API of runs: open one, look at it, wait for it, change it, vote in it, end it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast, get_args

from pydantic_core import to_jsonable_python
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.acts import Edit, Reply, Stop, Withdraw
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine, HookInfo, RunRecord
from approvals_bot.errors import HookNotFoundError
from approvals_bot.people import People
from approvals_bot.service.act import STATUS, perform
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.open import open_run, usable_key
from approvals_bot.service.read import api_request, choices_of, find_record, redact, request_of, requests_of, stands_for
from approvals_bot.web.api_keys import ApiKey, caller
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.problems import Problem
from approvals_bot.web.render import root_of
from approvals_bot.web.schemas import Cancellation, FieldChanges, NewApprover, NewVote, RunBody, Status
from approvals_bot.web.validation import API_BODY, JsonResponse, fit, json_body, json_object

LONGEST_WAIT = 60.0  # seconds of one long poll; proxies commonly cut idle connections at 60
FIRST_LOOK = 2.0  # seconds that a request gets to show itself after it was opened; it needs milliseconds
PAGE = 50  # runs in one answer, unless the caller asks for another number
MOST_PER_PAGE = 200


class RunsApi:
    """`/api/runs`."""

    def __init__(
        self,
        *,
        engine: Engine,
        workflows: Catalog,
        people: People,
        keys: Sequence[ApiKey],
        metrics: Metrics,
        base_url: str,
    ) -> None:
        self._engine = engine
        self._workflows = workflows
        self._people = people
        self._keys = keys
        self._metrics = metrics
        self._base_url = base_url

    async def create(self, request: HttpRequest) -> Response:
        """202 with the new run; 200 with the same one when this was asked before under the same key."""
        key = caller(request, self._keys)
        asked = fit(RunBody, await json_object(request, API_BODY))
        run = await open_run(
            engine=self._engine,
            workflows=self._workflows,
            people=self._people,
            name=asked.workflow,
            input=asked.input,
            opener=key.address,
            requester=asked.requester,
            on_behalf_of=asked.on_behalf_of,
            idempotency_key=request.headers.get("idempotency-key"),
        )
        if run.is_new:
            self._metrics.run_started(asked.workflow)
        return JsonResponse(
            {"run_id": run.id, "url": f"{self._base_url}/runs/{run.id}"},
            202 if run.is_new else 200,
            headers={"Location": f"{root_of(self._base_url)}/api/runs/{run.id}"},
        )

    async def search(self, request: HttpRequest) -> Response:
        """The runs that match every filter, newest first, a page at a time."""
        caller(request, self._keys)
        asked = _query(request, "workflow", "status", "waiting_for", "cursor", "limit")
        status = _one_of("status", asked.get("status"), get_args(Status))
        waiting_for = _address("waiting_for", asked.get("waiting_for"))
        try:
            page = await self._engine.records(
                workflow=_one_of("workflow", asked.get("workflow"), self._workflows.names()),
                status=cast(Status | None, status),
                waiting_for=waiting_for,
                is_open=True if waiting_for else None,
                cursor=asked.get("cursor"),
                limit=_whole("limit", asked.get("limit", str(PAGE)), 1, MOST_PER_PAGE),
            )
        except ValueError:
            raise _bad_query([{"loc": ["query", "cursor"], "msg": "not a cursor that a page gave"}]) from None
        return JsonResponse({"runs": [run_json(record) for record in page.records], "cursor": page.cursor})

    async def show(self, request: HttpRequest) -> Response:
        """The run as it stands; with `?wait=30` as it stands once it has ended, or after those seconds."""
        caller(request, self._keys)
        wait = min(_number("wait", _query(request, "wait").get("wait", "0"), 0, 3600), LONGEST_WAIT)
        record = await self._record(request)
        if wait and not record.has_ended:
            record = await self._engine.wait(record.id, wait)
        return JsonResponse(run_json(record))

    async def events(self, request: HttpRequest) -> Response:
        """The run's log, without what would let the reader act in it."""
        caller(request, self._keys)
        record = await self._record(request)
        return JsonResponse(
            {
                "events": [
                    {"seq": event.seq, "type": event.type, "at": event.at.isoformat(), "data": redact(event.data)}
                    for event in await self._engine.events(record.id)
                ]
            }
        )

    async def cancel(self, request: HttpRequest) -> Response:
        """202: a request is withdrawn by its own workflow, any other run is cancelled. 409 when it has ended."""
        key = caller(request, self._keys)
        asked = fit(Cancellation, await json_object(request, API_BODY))
        record = await self._record(request)
        if record.has_ended:
            raise Problem(409, "Run has ended", f"The run has already ended ({record.status}); nothing was changed.")
        view = request_of(record)
        if view is None or (not view.is_open and view.number):
            await self._engine.cancel(record.id, asked.reason or None)
            return JsonResponse({"run_id": record.id}, 202)
        by = _acting(key, asked.by)
        if view.number and request.path_params["id"] == record.id:
            await perform(self._engine, view, Stop(by, asked.reason, "api"))
            return JsonResponse({"run_id": record.id}, 202)
        reply = await perform(self._engine, view, Withdraw(by, asked.reason, "api"))
        self._metrics.voted(reply.verdict, "api")
        return _said(reply, changed=202)

    async def edit(self, request: HttpRequest) -> Response:
        """200: the fields of an open request are changed, and votes reset as its policy says."""
        key = caller(request, self._keys)
        asked = fit(FieldChanges, await json_object(request, API_BODY))
        view, by = await self._request_view(request), _acting(key, asked.by)
        reply = await perform(self._engine, view, Edit(by, asked.fields, "api"))
        self._metrics.voted(reply.verdict, "api")
        return _said(reply, changed=200)

    async def vote(self, request: HttpRequest) -> Response:
        """201 with the verdict. For keys that may vote: they vouch for who `by` is."""
        key = caller(request, self._keys)
        if not key.may_vote:
            raise Problem(
                403,
                "Key may not vote",
                f"The key {key.name!r} can open requests, not vote in them. Its owner can allow it with may_vote.",
            )
        asked = fit(NewVote, await json_object(request, API_BODY))
        view = await self._request_view(request)
        reply = await perform(self._engine, view, asked.act("api"))
        self._metrics.voted(reply.verdict, "api")
        return _said(reply, changed=201)

    async def ask_somebody_else(self, request: HttpRequest) -> Response:
        """201: this person is asked, too, or instead of another. By who is asked herself, an owner or an admin."""
        key = caller(request, self._keys)
        asked = fit(NewApprover, await json_object(request, API_BODY))
        view, by = await self._request_view(request), _acting(key, asked.by)
        reply = await perform(self._engine, view, asked.act(by, "api"))
        self._metrics.voted(reply.verdict, "api")
        return _said(reply, changed=201)

    async def _record(self, request: HttpRequest) -> RunRecord:
        """The run. An approval shows itself with its first activation: one that was just opened is waited for."""
        record = await find_record(self._engine, request.path_params["id"])
        if record is None:
            raise Problem(404, "Run not found", "No run has this id.")
        listed = self._workflows.find(record.workflow)
        until = asyncio.get_running_loop().time() + (FIRST_LOOK if listed is not None and listed.is_approval else 0.0)
        while not self._is_shown(record) and asyncio.get_running_loop().time() < until:
            record = await self._engine.wait(record.id, 0.02)
        return record

    def _is_shown(self, record: RunRecord) -> bool:
        """Whether there is nothing to wait for."""
        return bool(record.parts) or record.has_ended or self._engine.is_ending

    async def _request_view(self, request: HttpRequest) -> Request:
        record = await self._record(request)
        requests = requests_of(record)
        view = stands_for(requests)
        if several := choices_of(requests):
            names = ", ".join(several)
            raise Problem(409, "Several requests", f"This run asks several things at once. Name one of them: {names}.")
        if view is None:
            raise Problem(409, "Not a request", "This run is not an approval, so there is nothing to decide in it.")
        return view


def run_json(record: RunRecord) -> dict[str, Any]:
    """A run as the API shows it."""
    requests = requests_of(record)
    view = stands_for(requests)
    several = [one for one in requests if one.number]
    return {
        "id": record.id,
        "workflow": record.workflow,
        "status": record.status,
        "result": record.result,
        "error": record.error,
        "created_at": record.created_at.isoformat(),
        "ended_at": record.ended_at.isoformat() if record.ended_at else None,
        "stalled": record.stalled,
        "request": api_request(view) if view is not None else None,
    } | ({"requests": [{"id": one.id} | api_request(one) for one in several]} if several else {})


def _acting(key: ApiKey, by: str | None) -> str:
    """Who acts: the app itself, or the person it names if it may name one."""
    if by is None or by == key.address:
        return key.address
    if not key.may_vote:
        raise Problem(403, "Key may not vote", f"The key {key.name!r} can act only as itself, {key.address}.")
    return by.lower()


def _said(reply: Reply, *, changed: int) -> Response:
    """The reply as an answer; a refusal as a problem with the sentence that people read."""
    status = STATUS[reply.verdict]
    if status >= 400:
        raise Problem(
            status,
            reply.verdict.replace("_", " ").capitalize(),
            reply.text,
            verdict=reply.verdict,
            text=reply.text,
        )
    return JsonResponse({"verdict": reply.verdict, "text": reply.text}, changed if status == 201 else status)


def _query(request: HttpRequest, *names: str) -> dict[str, str]:
    """The query's values by name. A name we don't know, or one that stands twice, is a fault: it would do nothing."""
    given = request.query_params.multi_items()
    faults = [
        {"loc": ["query", name], "msg": "stands twice" if name in names else "no such filter"}
        for name in dict.fromkeys(name for name, _ in given)
        if name not in names or [other for other, _ in given].count(name) > 1
    ]
    if faults:
        raise _bad_query(faults)
    return dict(given)


def _one_of(name: str, value: str | None, known: Sequence[str] | Any) -> str | None:
    if value is not None and value not in known:
        raise _bad_query([{"loc": ["query", name], "msg": f"unknown; one of: {', '.join(sorted(known))}"}])
    return value


def _address(name: str, value: str | None) -> str | None:
    """As people are kept, in small letters: otherwise `Ann@…` would find nothing."""
    if value is not None and (not 3 <= len(value) <= 320 or "@" not in value.strip("@") or not value.isprintable()):
        raise _bad_query([{"loc": ["query", name], "msg": "not a person's address"}])
    return value.lower() if value is not None else None


def _whole(name: str, value: str, least: int, most: int) -> int:
    """In plain digits: what else Python would read as a number (`1_0`, `2.9`) a caller meant otherwise."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 9 and least <= int(value) <= most):
        raise _bad_query([{"loc": ["query", name], "msg": f"not a whole number from {least} to {most}"}])
    return int(value)


def _number(name: str, value: str, least: float, most: float) -> float:
    try:
        number = float(value) if len(value) <= 40 else float("nan")
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise _bad_query([{"loc": ["query", name], "msg": f"not a number from {least:g} to {most:g}"}])
    return number


def _bad_query(faults: list[dict[str, Any]]) -> Problem:
    return Problem(422, "Invalid filter", "The list can't be filtered that way.", errors=faults)


# ── The API of hooks: look at one by its token, and resume its run with a payload. ──


class HooksApi:
    """`/api/hooks/{token}`. Unknown, disposed and ended hooks are one and the same 404."""

    def __init__(self, *, engine: Engine, keys: Sequence[ApiKey]) -> None:
        self._engine = engine
        self._keys = keys

    async def show(self, request: HttpRequest) -> Response:
        """What is known of the live hook with this token."""
        caller(request, self._keys)
        return JsonResponse(hook_json(await self._engine.get_hook_by_token(request.path_params["token"])))

    async def resume(self, request: HttpRequest) -> Response:
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
        return JsonResponse(hook_json(resumed))


def hook_json(hook: HookInfo) -> dict[str, Any]:
    return {
        "run_id": hook.run_id,
        "hook_id": hook.hook_id,
        "token": hook.token,
        "metadata": to_jsonable_python(hook.metadata, fallback=str),
        "created_at": hook.created_at.isoformat(),
        "is_webhook": hook.is_webhook,
    }
