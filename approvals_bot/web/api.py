"""The API of runs, for programs with a key: open one, look at it, wait for it, change it, vote in it, end it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.acts import Act, Comment, Edit, Extend, Remind, Reply, Revoke, Stop, TakeOn, Talk, Withdraw
from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.published import REQUEST
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.text import NEVER_REQUESTED, NOT_REQUESTED_YET
from approvals_bot.durable.core.attributes import Wanted, projected
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import without_tags
from approvals_bot.durable.engine import RunRecord, SentKey
from approvals_bot.durable.engine.near_limits import near_limits
from approvals_bot.durable.store.protocol import Filter
from approvals_bot.errors import IdempotencyConflictError, RunNotFoundError
from approvals_bot.service.act import perform
from approvals_bot.service.budgets import keys_of
from approvals_bot.service.keys import OPENER, ApiKey, has_opened, may_resume, reach_of
from approvals_bot.service.lists import RunFilter, UnorderedError, find_runs
from approvals_bot.service.open import check_naming, may_start, open_run
from approvals_bot.service.read import (
    api_request,
    await_request,
    choices_of,
    current_request,
    decision_on,
    find_record,
    has_given,
    is_decided,
    open_request,
    redact,
    request_of,
    requests_of,
)
from approvals_bot.service.refusals import OpeningRefused, usable_key
from approvals_bot.service.repairs import Repair, attempt_again, cancel_run, reset
from approvals_bot.service.talk import snooze_of, talk
from approvals_bot.service.tool_calls import note_on_call
from approvals_bot.service.waiting import Mask, cancellation_of, waits_of
from approvals_bot.web.attribute_filters import ATTRIBUTE, wanted_attributes
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.keys import actor_of, check_reach, key_of, lacks
from approvals_bot.web.responses import RETRY_FULL, STATUS, JsonResponse, Problem, root_of
from approvals_bot.web.run_filters import FILTERS, run_filter
from approvals_bot.web.schemas import (
    NEW_APPROVER,
    NEW_CLAIM,
    NEW_COMMENT,
    NEW_EXTENSION,
    NEW_REMINDER,
    NEW_VOTE,
    Cancellation,
    FieldChanges,
    NewAttempt,
    NewReset,
    NewSnooze,
    Revocation,
    RunBody,
    reassign_of,
    vote_json,
    vote_of,
)
from approvals_bot.web.validation import (
    API_BODY,
    bad_query,
    json_object,
    query_choice,
    query_integer,
    query_number,
    read_query,
    validate,
)

LONGEST_WAIT = 60.0  # seconds of one long poll; proxies commonly cut idle connections at 60
PAGE = 50  # runs in one answer, unless the caller asks for another number
MOST_PER_PAGE = 200

RANGE_ALONE = "a range can't be combined with state, delivery or q"
KEY_OF_ANOTHER = "This key was already used for another run, with other input. Nothing was changed."


class RunsApi:
    """`/api/runs`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._tokens, self._metrics, self._base_url = desk.tokens, desk.metrics, desk.base_url

    async def create(self, request: HttpRequest) -> Response:
        """202 with the new run; 200 with the same one when this was asked before under the same key."""
        key = key_of(request)
        body = await json_object(request, API_BODY)
        if "break_glass" in body:
            raise OpeningRefused("emergency_not_allowed", who=key.address, workflow=str(body.get("workflow", "")))
        asked = validate(RunBody, body)
        if not key.knows_workflow(asked.workflow):
            raise OpeningRefused("workflow_unknown", name=asked.workflow)
        try:
            run = await open_run(
                engine=self._engine,
                workflows=self._workflows,
                people=self._people,
                name=asked.workflow,
                input=asked.input,
                opener=key.address,
                requester=asked.requester,
                on_behalf_of=asked.on_behalf_of,
                may_name=key.requesters,
                actor=actor_of(request),
                idempotency_key=request.headers.get("idempotency-key"),
            )
        except IdempotencyConflictError as conflict:
            if await self._may_know(key, conflict.run_id):
                raise
            raise Problem(409, "Idempotency conflict", KEY_OF_ANOTHER) from None
        if run.is_new:
            self._metrics.run_started(asked.workflow)
        status, more = 202 if run.is_new else 200, dict[str, str]()
        if asked.input.get("to"):  # an agent names who is to decide its call
            requester, listed = asked.requester or key.address, self._workflows.find(asked.workflow)
            if (note := await note_on_call(listed, asked.input, requester, self._people)) is not None:
                more = {"note": note}
        return self._run_answer(run.id, asked.workflow, status, **more)

    async def _may_know(self, key: ApiKey, run_id: str) -> bool:
        record = await self._engine.record(run_id)
        return record is not None and await reach_of(self._engine, key, record, "read", ("read-all",)) != "none"

    async def search(self, request: HttpRequest) -> Response:
        """The runs that match every filter, a page at a time.

        The newest come first; by a range, those with the greatest value; of those that wait for a person, the one with
        the next deadline."""
        key = key_of(request)
        listed = [name for name in self._workflows.names() if key.knows_workflow(name)]
        own = {} if key.reads_all else {OPENER: key.address}
        asked = read_query(request, *FILTERS, "key", "open", "cursor", "limit", prefix=ATTRIBUTE)
        which = replace(
            run_filter(asked, self._people, listed),
            attributes=wanted_attributes(asked) | own,
            is_open=_is_open(asked.get("open")),
        )
        cursor, limit = asked.get("cursor"), query_integer("limit", asked.get("limit", str(PAGE)), 1, MOST_PER_PAGE)
        try:
            if "key" in asked:
                of_key = replace(self._of_key(key, asked, which), cursor=cursor, limit=limit)
                keyed = await self._engine.list_runs(of_key)
                found, following = keyed.records, keyed.cursor
            else:
                page = await find_runs(self._engine, which, cursor=cursor, limit=limit)
                found, following = [record for record, _ in page.rows], page.cursor
        except UnorderedError:
            raise bad_query([{"loc": ["query", "attr"], "msg": RANGE_ALONE}]) from None
        except ValueError:
            raise bad_query([{"loc": ["query", "cursor"], "msg": "not a cursor that a page gave"}]) from None
        shown = [record for record in found if key.knows_workflow(record.workflow)]
        runs = [run_json(record) | self._keyed(key, record) for record in shown]
        return JsonResponse({"runs": runs, "cursor": following})

    def _of_key(self, key: ApiKey, asked: Mapping[str, str], which: RunFilter) -> Filter:
        """Return the list of the runs with these keys of the caller's. It is short, so few filters go with it."""
        if besides := [name for name in FILTERS if name in asked and name not in ("workflow", "status", "waiting_for")]:
            raise bad_query([{"loc": ["query", name], "msg": "can't be combined with key"} for name in besides])
        waiting: dict[str, Wanted] = {projected("waiting_for"): which.waiting_for} if which.waiting_for else {}
        return Filter(
            workflow=which.workflow,
            status=which.status,
            attributes=waiting | (which.attributes or {}),
            is_open=True if which.waiting_for else which.is_open,
            keys=keys_of(key.address, asked["key"]),
        )

    def _keyed(self, key: ApiKey, record: RunRecord) -> dict[str, Any]:
        """Return what a list by key says besides: the key, as its caller gave it, and the page of the run."""
        if record.key is None:
            return {}
        return {"key": record.key.removeprefix(f"{key.address} "), "url": self._page_of(record.id, record.workflow)}

    async def show(self, request: HttpRequest) -> Response:
        """The run as it is now, with what it waits for; with `?wait=30`, once it has ended or after 30 seconds.

        303 to the run that goes on in its place, if it has continued; with `?own=1` it is shown itself.
        """
        key = key_of(request)
        asked = read_query(request, "wait", "own")
        wait = min(query_number("wait", asked.get("wait", "0"), 0, 3600), LONGEST_WAIT)
        record = await self._record(request)
        if record.status == "continued" and not asked.get("own"):
            given = request.scope["query_string"].decode("latin-1")
            query = f"?{given}" if given else ""
            there = f"{root_of(self._base_url)}/api/runs/{await self._engine.last(record.id)}{query}"
            return Response(status_code=303, headers={"Location": there})
        if wait and not record.has_ended:
            record = await self._engine.wait(record.id, wait, is_decided if record.workflow == TOOL_CALL else has_given)
        near = [
            {"limit": use.limit, "used": use.used, "maximum": use.maximum}
            for use in near_limits(record, self._engine.max_waiting)
        ]
        shown = run_json(record) | await self._details(key, record, await may_resume(self._engine, key, record))
        return JsonResponse(shown | ({"near_limits": near} if near else {}))

    async def _details(self, key: ApiKey, record: RunRecord, may_resume: bool) -> dict[str, Any]:
        """Return what the run published and waits for.

        Tokens and webhooks' URLs are for keys that may start its workflow, and resume this run.
        """
        log: list[Event] = []
        if not record.has_ended:
            record, log = await self._engine.read(record.id)
        waits, cancellation = waits_of(record, log, self._engine.steps_in_line(record, log)), cancellation_of(log)
        more = {} if cancellation is None else {"cancellation": cancellation}
        view = without_tags(record.view)
        listed = self._workflows.find(record.workflow)
        if may_resume and listed is not None and may_start(listed, key.address, names_people=bool(key.requesters)):
            return {"view": view, "waiting": [wait.as_json(self._engine.link) for wait in waits], **more}
        hide = Mask(self._tokens, waits)
        return {"view": hide(view), "waiting": [hide(wait.as_json(None)) for wait in waits], **more}

    async def events(self, request: HttpRequest) -> Response:
        """The run's log, without what would let the reader act in it."""
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
        """202: a request is withdrawn by its own workflow, any other run is asked to end. 409 when it has ended."""
        key = key_of(request)
        asked = validate(Cancellation, await json_object(request, API_BODY))
        id = request.path_params["id"]
        if "." in id:
            await self._request(request)  # it may be about to be requested
        record = await self._record(request)
        if record.status == "continued" and "." not in id:
            id = await self._engine.last(id)
            record = await find_record(self._engine, id) or record
        if record.status == "reset":
            detail = f"The run was reset; nothing was changed. Cancel the one in its place: {record.next_run}."
            raise Problem(409, "Run was reset", detail, next_run=record.next_run)
        if record.has_ended:
            raise Problem(409, "Run has ended", f"The run has already ended ({record.status}); nothing was changed.")
        shown = request_of(record)
        if shown is None or (not shown.is_open and shown.number):
            if "operate" not in key.may and not await has_opened(self._engine, key, record):
                raise lacks(key, ("operate",), " to cancel a run that it hasn't opened itself")
            actor = actor_of(request)
            await cancel_run(self._engine, record.id, who=key.address, actor=actor, reason=asked.reason)
            return JsonResponse({"run_id": record.id}, 202)
        by = await self._acting(key, asked.by, shown)
        if shown.number and id == record.id:
            await perform(self._engine, shown, Stop(by, asked.reason, "api", actor=actor_of(request)))
            return JsonResponse({"run_id": record.id}, 202)
        act = Withdraw(by, asked.reason, "api", actor=actor_of(request))
        return await self._perform(shown, act, changed=202)

    async def attempt(self, request: HttpRequest) -> Response:
        """202: a stalled run is tried again, or a new run has the input of one that failed; 200 if there was one."""
        key = key_of(request)
        asked = validate(NewAttempt, await json_object(request, API_BODY))
        record = await self._record(request)
        done = await attempt_again(
            self._engine, record.id, who=key.address, actor=actor_of(request), reason=asked.reason
        )
        return self._repaired(record, done)

    async def reset(self, request: HttpRequest) -> Response:
        """202: a new run goes on from an event of this one, in its place; 200 if one does so already."""
        key = key_of(request)
        asked = validate(NewReset, await json_object(request, API_BODY))
        record = await self._record(request)
        done = await reset(
            self._engine,
            record.id,
            asked.to,
            who=key.address,
            actor=actor_of(request),
            reason=asked.reason,
            drop_payloads=asked.drop_payloads,
        )
        return self._repaired(record, done)

    def _repaired(self, record: RunRecord, done: Repair) -> Response:
        return self._run_answer(done.next_run, record.workflow, 202 if done.is_new or done.act == "retry" else 200)

    def _page_of(self, run_id: str, workflow: str) -> str:
        """Return the URL of the page for people: an approval's request, or the run of any other workflow."""
        listed = self._workflows.find(workflow)
        kind = "requests" if listed is not None and listed.makes_request else "runs"
        return f"{self._base_url}/{kind}/{run_id}"

    def _run_answer(self, run_id: str, workflow: str, status: int, **more: str) -> Response:
        return JsonResponse(
            {"run_id": run_id, "url": self._page_of(run_id, workflow), **more},
            status,
            headers={"Location": f"{root_of(self._base_url)}/api/runs/{run_id}"},
        )

    async def edit(self, request: HttpRequest) -> Response:
        """200: the fields of an open request are changed, and votes reset as its policy says."""
        key = key_of(request)
        asked = validate(FieldChanges, await json_object(request, API_BODY))
        shown = await self._request(request)
        by = await self._acting(key, asked.by, shown)
        act = Edit(by, asked.fields, "api", actor=actor_of(request))
        return await self._perform(shown, act, changed=200, press=_press(request, key, asked.model_dump()))

    async def vote(self, request: HttpRequest) -> Response:
        """201 with the verdict. For keys that may vote: they vouch for the identity of `by`.

        A repeated Idempotency-Key gets the answer of the first, also after the run's end.
        """
        key = key_of(request)
        given = vote_json(validate(NEW_VOTE, await json_object(request, API_BODY)))
        shown = await self._request(request)
        _check_not_own(shown, key)
        act = vote_of(given, actor_of(request))
        return await self._perform(shown, act, changed=201, press=_press(request, key, given))

    async def add_approver(self, request: HttpRequest) -> Response:
        """201: this person is asked, too, or instead of another. For approvers, owners and admins."""
        key = key_of(request)
        given = validate(NEW_APPROVER, await json_object(request, API_BODY)).model_dump()
        shown = await self._request(request)
        by = await self._acting(key, given["by"], shown)
        if by != key.address:
            _check_not_own(shown, key)
        act = reassign_of(given, by, actor_of(request))
        return await self._perform(shown, act, changed=201, press=_press(request, key, given))

    async def comment(self, request: HttpRequest) -> Response:
        """201: a comment without a vote is added, and the others involved are notified. 429 after 20 in an hour."""
        given = validate(NEW_COMMENT, await json_object(request, API_BODY)).model_dump()
        shown, by = await self._talker(request, given["by"])
        return await self._talk(shown, Comment(by, given["text"], actor=actor_of(request)))

    async def remind(self, request: HttpRequest) -> Response:
        """201: those who still owe a vote are reminded. For the requester, once an hour; else 429."""
        given = validate(NEW_REMINDER, await json_object(request, API_BODY)).model_dump()
        shown, by = await self._talker(request, given["by"])
        return await self._talk(shown, Remind(by, actor=actor_of(request)))

    async def claim(self, request: HttpRequest) -> Response:
        """201: everybody sees that this approver is on it; with `ends`, no longer."""
        given = validate(NEW_CLAIM, await json_object(request, API_BODY)).model_dump()
        shown, by = await self._talker(request, given["by"])
        return await self._talk(shown, TakeOn(by, given["ends"], actor=actor_of(request)))

    async def snooze(self, request: HttpRequest) -> Response:
        """201: this approver gets no reminders until then. The deadline stays as it is."""
        asked = validate(NewSnooze, await json_object(request, API_BODY))
        shown, by = await self._talker(request, asked.by)
        act = snooze_of(self._engine, by, asked.until, via="api", actor=actor_of(request))
        return _reply_response(act, changed=201) if isinstance(act, Reply) else await self._talk(shown, act)

    async def revoke(self, request: HttpRequest) -> Response:
        """202: the grant ends now; 200 if it has been revoked, or has ended. For those concerned, and operators."""
        key = key_of(request)
        asked = validate(Revocation, await json_object(request, API_BODY))
        shown = await self._granted(request)
        by = await self._acting(key, asked.by, shown)
        may = by == key.address and ("operate" in key.may or await self._is_own(shown, key))
        act = Revoke(by, asked.reason, "api", actor=actor_of(request), operates=may)
        reply = await perform(self._engine, shown, act)
        return _reply_response(reply, changed=202 if reply.changed else 200)

    async def extend(self, request: HttpRequest) -> Response:
        """202: the approvers are asked whether the grant may last longer. Its end stays until they approve."""
        key = key_of(request)
        given = validate(NEW_EXTENSION, await json_object(request, API_BODY)).model_dump()
        shown = await self._granted(request)
        by = await self._acting(key, given["by"], shown)
        if by == key.address and await self._is_own(shown, key):
            by = shown.requester
        act = Extend(by, given["lasts"], given["reason"], "api", actor=actor_of(request))
        return await self._perform(shown, act, changed=202, press=_press(request, key, given))

    async def _granted(self, request: HttpRequest) -> Request:
        """Return the request that the run is: of those with a grant, never an extension."""
        shown = current_request(requests_of(await self._record(request)))
        if shown is None:
            raise Problem(409, "Not a request", NEVER_REQUESTED)
        return shown

    async def _talker(self, request: HttpRequest, by: str | None) -> tuple[Request, str]:
        """Return the request, and the person or app that the caller acts for."""
        key = key_of(request)
        shown = await self._request(request)
        person = await self._acting(key, by, shown)
        if person not in (key.address, shown.on_behalf_of):
            _check_not_own(shown, key)
        return shown, person

    async def _talk(self, shown: Request, act: Talk) -> Response:
        reply = await talk(self._engine, shown, act)
        self._metrics.voted(reply.verdict, act.via)
        return _reply_response(reply, changed=201)

    async def _acting(self, key: ApiKey, by: str | None, shown: Request) -> str:
        """Return the person that the key acts for: the app itself, or whom it names if it may.

        Without `vote`, that can be the requester of a request that it has opened, if it may name them.
        """
        if by is None or by == key.address:
            return key.address
        person = self._people.canonical(by)
        if "vote" in key.may:
            return person
        if person not in (shown.requester, shown.on_behalf_of) or not await self._is_own(shown, key):
            raise lacks(key, ("vote",), f" to act for anybody else; as itself it is {key.address}")
        await check_naming(self._engine, self._people, key.address, person, key.requesters)
        return person

    async def _is_own(self, shown: Request, key: ApiKey) -> bool:
        record = await self._engine.record(shown.run_id)
        return record is not None and await has_opened(self._engine, key, record)

    async def _perform(self, shown: Request, act: Act, *, changed: int, press: SentKey | None = None) -> Response:
        """Do this to the request. `changed`: the status if it was done."""
        reply = await perform(self._engine, shown, act, press=press)
        self._metrics.voted(reply.verdict, act.via)
        return _reply_response(reply, changed=changed, edits_fields=isinstance(act, Edit))

    async def _record(self, request: HttpRequest) -> RunRecord:
        """Return the run. A request shows itself with its first activation: one that was just opened is waited for."""
        id = request.path_params["id"]
        record = await find_record(self._engine, id)
        if record is not None:
            await check_reach(self._engine, request, record)
        if record is not None and record.kind == REQUEST and not record.parts:
            record = await await_request(self._engine, id)
        if record is None:
            raise RunNotFoundError(request.path_params["id"])
        return record

    async def _request(self, request: HttpRequest) -> Request:
        """Return the run's request, which a workflow in Python may be about to make."""
        id = request.path_params["id"]
        run = await self._engine.record(id.partition(".")[0])
        if run is not None:
            await check_reach(self._engine, request, run)
        record = await await_request(self._engine, id)
        if record is None:
            raise RunNotFoundError(id)
        requests = requests_of(record)
        shown = open_request(requests) or current_request(requests)
        if several := choices_of(requests):
            names = ", ".join(several)
            raise Problem(409, "Several requests", f"This run asks several things at once. Name one of them: {names}.")
        if shown is None and record.has_ended:
            raise Problem(409, "Not a request", NEVER_REQUESTED)
        if shown is None:
            raise Problem(409, "Not requested yet", NOT_REQUESTED_YET, headers={"Retry-After": "1"})
        return shown


def run_json(record: RunRecord) -> dict[str, Any]:
    """A run as the API shows it."""
    requests = requests_of(record)
    shown = current_request(requests)
    several = [one for one in requests if one.number]
    decision = decision_on(record)
    return {
        "id": record.id,
        "workflow": record.workflow,
        "status": record.status,
        "result": without_tags(record.result),
        "error": record.error,
        "created_at": record.created_at.isoformat(),
        "ended_at": record.ended_at.isoformat() if record.ended_at else None,
        "stalled": record.stalled,
        "request": api_request(shown) if shown is not None else None,
        **({} if decision is None else {"decision": decision.model_dump(mode="json")}),
        **({"next_run": record.next_run} if record.next_run else {}),
        **({"parent": record.parent.run_id} if record.parent else {}),
        **({"begins_at": record.begins_at.isoformat()} if record.begins_at else {}),
    } | ({"requests": [{"id": one.id} | api_request(one) for one in several]} if several else {})


def _is_open(given: str | None) -> bool | None:
    """Return what `open` of a query asks for: runs that haven't ended, those that have, or both."""
    return None if given is None else query_choice("open", given, ("true", "false")) == "true"


def _press(request: HttpRequest, key: ApiKey, given: Mapping[str, Any]) -> SentKey | None:
    """Return the name of this call, by the caller's Idempotency-Key, with what it says. Keys belong to the API key."""
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    name = json.dumps([key.name, usable_key(header)])
    return SentKey(f"api-{hashlib.sha256(name.encode()).hexdigest()[:40]}", dict(given))


def _check_not_own(shown: Request, key: ApiKey) -> None:
    """Raise Problem 403 if the key made this request itself: it might approve it in somebody's name."""
    if shown.requester == key.address:
        detail = f"{key.address} made this request itself, so it can't pass on in it what people do."
        raise Problem(403, "Own request", detail)


def _reply_response(reply: Reply, *, changed: int, edits_fields: bool = False) -> Response:
    """The reply as an answer; a refusal as a problem with the sentence that people read."""
    status = STATUS[reply.verdict]
    if status >= 400:
        raise Problem(
            status,
            reply.verdict.replace("_", " ").capitalize(),
            reply.text,
            errors=[{"loc": ["fields", *each.path], "msg": each.text} for each in reply.rejections if edits_fields],
            headers=RETRY_FULL if status == 429 else None,
            verdict=reply.verdict,
            text=reply.text,
        )
    return JsonResponse({"verdict": reply.verdict, "text": reply.text}, changed if status == 201 else status)
