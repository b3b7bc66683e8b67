"""Reading requests: those of a run, lists of a person's requests, and their JSON.

A run of a workflow file is one request. A Python workflow may make none, one or many. Each has the id of its run plus a
number, `run_0….2`; the run's id alone is enough where it is unambiguous.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.ballot import Count, counts
from approvals_bot.approvals.given_grants import StandingGrant
from approvals_bot.approvals.published import REQUEST, Relation, concerns
from approvals_bot.approvals.request import Request, RequestGrant, RequestOutcome, RequestStage, dumped
from approvals_bot.approvals.tool_call import ARGUMENTS, decision_of
from approvals_bot.client.decision import Decision
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.engine import Engine, HookTarget, RunRecord
from approvals_bot.durable.store.protocol import Filter

_REQUESTS = TypeAdapter(tuple[Request, ...], config=ConfigDict(defer_build=True))


def requests_of(record: RunRecord) -> tuple[Request, ...]:
    """Return this run's requests, in the order in which they were made.

    A run whose row is damaged has none: it is listed as a plain run, and breaks no list.
    """
    try:
        return tuple(_as_of(one, record) for one in _REQUESTS.validate_python(record.parts))
    except ValidationError:
        return ()


def request_of(record: RunRecord, hook_id: str | None = None) -> Request | None:
    """Return the request of this hook; without a hook, the run's current one.

    That is the run itself, if it is a request; else its first open request, or the last one. None: it has none.
    """
    requests = requests_of(record)
    if hook_id is not None:
        return next((view for view in requests if view.hook_id == hook_id), None)
    return current_request(requests)


def current_request(requests: Sequence[Request]) -> Request | None:
    """Return the request that a run is; else the first open one of those it has made, or the last. None: none."""
    if requests and not requests[0].number:
        return requests[0]
    return open_request(requests) or (requests[-1] if requests else None)


def open_request(requests: Sequence[Request]) -> Request | None:
    """Return the first open one of a run's requests: of one with a grant, that may be an extension."""
    return next((view for view in requests if view.is_open), None)


def has_given(record: RunRecord) -> bool:
    """Return whether this run's request is decided, and only what it gave has still to end."""
    request = request_of(record) if record.kind == REQUEST else None
    return request is not None and request.grant is not None


def is_concerned(view: Request, reader: str | None) -> bool:
    """Return whether this person asked, is or was asked, or voted."""
    return reader is not None and (
        reader in (view.requester, view.on_behalf_of)
        or reader in view.recipients.values()
        or reader in view.waiting_for
        or any(vote.by == reader for vote in view.votes)
    )


def decision_on(record: RunRecord) -> Decision | None:
    """Return what came of the tool call that this run is about. None for other runs, and while nobody has decided.

    It is known before the run ends: that still updates the cards.
    """
    request = request_of(record) if record.workflow == TOOL_CALL and record.kind == REQUEST else None
    if request is None or request.outcome is None:
        return None
    requested = request.was.get(ARGUMENTS, request.fields[ARGUMENTS])
    return decision_of(request, requested).model_copy(update={"request_id": request.id})


def is_decided(record: RunRecord) -> bool:
    return decision_on(record) is not None


async def find_record(engine: Engine, id: str) -> RunRecord | None:
    """Return the run with this id. For a request's id, `run_0….2`, it is the run with that request alone."""
    run_id, _, number = id.partition(".")
    record = await engine.record(run_id)
    if record is None or not number:
        return record if run_id == id else None
    return _with_request(record, id)


async def goes_on_as(engine: Engine, run_id: str, record: RunRecord) -> bool:
    """Return whether this record is of the run with this ID, or of one that resets have put in its place."""
    following: str | None = run_id
    while following is not None and following != record.id:
        found = await engine.record(following)
        following = found.next_run if found is not None else None
    return following is not None


def _with_request(record: RunRecord, id: str) -> RunRecord | None:
    view = next((view for view in requests_of(record) if view.id == id), None)
    return record._replace(parts=[dumped(view)]) if view is not None else None


FIRST_LOOK = 2.0  # seconds that a run gets to show its request; it needs milliseconds after its start
LOOK_EVERY = 0.02  # seconds


def _has_parts(record: RunRecord) -> bool:
    return bool(record.parts)


async def await_request(
    engine: Engine, id: str, seconds: float = FIRST_LOOK, is_shown: Callable[[RunRecord], bool] = _has_parts
) -> RunRecord | None:
    """Return the run with this id once it shows a request, once it has ended, or as it is after some seconds.

    A run shows nothing before its first activation. A Python workflow requests whenever it likes, if ever: such a run
    is waited for in its first seconds only. An open run without parts hasn't requested anything yet. `run_0….3` may
    still come while the run has made at most two requests. For a run that was reset while it was open, this is the run
    in its place; for one that has continued, too, except where a request of its own is asked for.
    """
    until = asyncio.get_running_loop().time() + seconds
    run_id, _, number = id.partition(".")
    while (run := await engine.record(run_id)) is not None:
        is_elsewhere = run.status == "reset" or (run.status == "continued" and not number)
        if is_elsewhere and run.next_run is not None:
            run_id = await engine.last(run_id)
            id = f"{run_id}.{number}" if number else run_id
            continue
        found = run if run_id == id else _with_request(run, id)
        if found is None and not _may_come(run, number):
            return None
        found = found or run._replace(parts=[])
        is_young = run.kind == REQUEST or engine.now() - run.created_at < timedelta(seconds=seconds)
        is_over = not is_young or run.has_ended or engine.is_ending or asyncio.get_running_loop().time() >= until
        if is_over or is_shown(found):
            return found
        await engine.wait(run_id, LOOK_EVERY)
    return None


def _may_come(run: RunRecord, number: str) -> bool:
    """Return whether an open run of a Python workflow may still make the request with this number."""
    known = max((one.number for one in requests_of(run)), default=0)
    is_number = number.isascii() and number.isdecimal() and number[0] != "0" and len(number) < 10
    return not run.has_ended and run.kind != REQUEST and is_number and int(number) > known


@dataclass(frozen=True, slots=True)
class RequestPage:
    """The first page of a person's requests.

    A request is None if its run's row is damaged: then only the run can be shown. `total` is the number of all, or a
    lower bound unless `is_whole`.
    """

    rows: list[tuple[RunRecord, Request | None]]
    total: int
    is_whole: bool


MOST_COUNTED = 1_000  # requests of one person; beyond that, nobody needs the exact number


async def list_requests(engine: Engine, relation: Relation, address: str, *, limit: int = 50) -> RequestPage:
    """Return the first page of the requests with this relation to the person.

    Waiting requests start with the one that has waited longest, all others with the newest.
    """
    which = Filter(
        attributes={projected(relation): address},
        is_open=True if relation in ("waiting_for", "open_vote_of") else None,
        oldest_first=relation == "waiting_for",
        limit=limit,
    )
    return await _page(engine, which, relation, address)


async def list_decided(engine: Engine, address: str, *, limit: int) -> RequestPage:
    """Return the newest ended requests that this person voted on.

    A run that was cancelled is still indexed as it was before: by the vote in an open request.
    """
    cut_off = Filter(attributes={projected("open_vote_of"): address}, is_open=False, limit=limit)
    ended, ended_by_force = await asyncio.gather(
        list_requests(engine, "ended_vote_of", address, limit=limit),
        _page(engine, cut_off, "ended_vote_of", address),
    )
    rows = {(run.id, request and request.id): (run, request) for run, request in (*ended.rows, *ended_by_force.rows)}
    newest = sorted(rows.values(), key=lambda row: (row[0].created_at, row[0].id), reverse=True)
    total = max(len(newest), ended.total, ended_by_force.total)
    return RequestPage(newest[:limit], total, ended.is_whole and ended_by_force.is_whole)


async def _page(engine: Engine, which: Filter, relation: Relation, address: str) -> RequestPage:
    page = await engine.list_runs(which)
    rows: list[tuple[RunRecord, Request | None]] = []
    for record in page.records:
        requests = requests_of(record)
        rows += [(record, one) for one in requests if concerns(one, relation, address)]
        if not requests:
            rows.append((record, None))
    if page.cursor is None:
        return RequestPage(rows, len(rows), is_whole=True)
    counted = await engine.count_runs(which, MOST_COUNTED)
    return RequestPage(rows, max(counted, len(rows)), is_whole=False)


def choices_of(requests: Sequence[Request]) -> tuple[str, ...]:
    """Return the ids of a run's open requests, if the run's id alone would be ambiguous; else ()."""
    open_ones = [view.id for view in requests if view.is_open]
    return tuple(open_ones) if len(open_ones) > 1 else ()


def request_behind(target: HookTarget | None) -> Request | None:
    """Return the request that this hook belongs to."""
    return None if target is None else request_of(target.record, target.hook.id)


def _as_of(view: Request, record: RunRecord) -> Request:
    """Show what only the run's row says of an open request: that its run has stalled, failed, or was cut off."""
    if not view.is_open or not (record.has_ended or record.status == "stalled"):
        return view
    if record.status == "reset":
        return view.but(waiting_for=(), timers=())  # it goes on in another run
    if not record.has_ended:
        return view.but(is_stalled=True)
    reason = record.error["message"] if record.error is not None and record.status == "cancelled" else ""
    ended = RequestOutcome(
        state="failed" if record.status == "failed" else "cancelled",
        by="",
        at=record.ended_at or view.asked_at,
        via="rule",
        comment=reason,
        because="an error ended the workflow that requested this" if record.status == "failed" else "",
    )
    return view.but(outcome=ended, state=ended.state, waiting_for=(), timers=())


def _quorum(stage: RequestStage, counted: Count) -> dict[str, Any]:
    """Return how far the seats of an alternative are."""
    filled = {id: [one for one, seat in counted.seated.items() if seat == id] for id in counted.sizes}
    seats = [
        {"label": seat.label, "need": counted.sizes[seat.id], "by": filled[seat.id]}
        for seat in stage.seats
        if seat.id in counted.sizes
    ]
    return {"have": counted.have, "need": counted.need, "seats": seats}


def api_request(view: Request) -> dict[str, Any]:
    """Return the `request` of a run, as the API shows it.

    Votes that were changed, undone or reset are left out. A delegate's vote names the absent person.
    """
    stage = view.stage
    counted = counts(stage) if stage is not None else []
    return {
        "title": view.title,
        "fields": view.fields,
        "digest": view.digest,
        "state": view.state,
        "stage": stage.id if stage else None,
        **({"quorum": [_quorum(stage, one) for one in counted]} if stage is not None and len(counted) > 1 else {}),
        "votes": [
            {
                "by": vote.by,
                "choice": vote.choice,
                "comment": vote.vote.comment,
                "at": _iso(vote.at),
                "via": vote.vote.via,
            }
            | ({"answers": vote.vote.answers} if vote.vote.answers else {})
            | ({} if vote.vote.actor is None else {"actor": vote.vote.actor.as_json()})
            | ({"in_place_of": vote.in_place_of} if vote.in_place_of else {})
            | ({"carried_from": vote.carried_from} if vote.carried_from else {})
            for vote in view.votes
            if vote.counts
        ],
        "waiting_for": list(view.waiting_for),
        "unresolved": [{"source": fault.source, "reason": fault.reason} for fault in view.unresolved],
        "handovers": [
            {
                "by": done.act.by,
                "person": done.act.person,
                "instead_of": done.act.instead_of or None,
                "reason": done.act.reason,
                "at": _iso(done.at),
                "via": done.act.via,
                "stage": done.stage,
            }
            | ({} if done.act.actor is None else {"actor": done.act.actor.as_json()})
            for done in view.reassignments
        ],
        "comments": [
            {"by": made.act.by, "text": made.act.text, "at": _iso(made.at), "via": made.act.via}
            | ({} if made.act.actor is None else {"actor": made.act.actor.as_json()})
            for made in view.comments
        ],
        "claimed_by": view.claimed_by,
        "snoozes": [{"by": address, "until": _iso(until)} for address, until in view.snoozes.items()],
        "deadline": _iso(view.deadline),
        "outcome": view.outcome.outcome if view.outcome else None,
        "deliveries": [
            {
                "to": copy.to,
                "channel": copy.channel,
                "state": copy.state,
                "attempts": copy.attempts,
                "error": copy.error or None,
                "uncertain": copy.uncertain,
                "retried": copy.retried or None,
            }
            for copy in view.deliveries
        ],
        "follow_ups": [
            {"what": one.what, "state": one.state, "attempts": one.attempts, "error": one.error or None}
            for one in view.follow_ups
        ],
    } | _of_later(view)


def _of_later(view: Request) -> dict[str, Any]:
    """Return what came of the request after its decision, as far as its file asks for it."""
    found: dict[str, Any] = {} if view.grant is None else {"grant": api_grant(view.grant)}
    if view.standing is not None:
        found["standing"] = api_standing(view.standing.grant)
    if (review := view.review) is not None:
        by, comment = review.by or None, review.comment or None
        found["review"] = {"state": review.state, "by": by, "until": _iso(review.until), "comment": comment}
        found["review"]["request_id"] = review.request
    return found


def api_standing(grant: StandingGrant) -> dict[str, Any]:
    """Return what an approval covers of later requests, as the API shows it."""
    return {
        "id": grant.id,
        "until": _iso(grant.until),
        "given_at": _iso(grant.given_at),
        "times": grant.times,
        "sums": {name: f"{most:f}" for name, most in grant.sums.items()},
        "at_most": {name: f"{most:f}" for name, most in grant.at_most.items()},
        "same": grant.same,
        "givers": list(grant.givers),
    }


def api_grant(grant: RequestGrant) -> dict[str, Any]:
    """Return the `grant` of a request, as the API shows it."""
    revoked = {"revoked_by": grant.revoked_by, "reason": grant.reason} if grant.revoked_by else {}
    return {
        "state": grant.state,
        "until": _iso(grant.until),
        "given_at": _iso(grant.given_at),
        "taken_at": _iso(grant.taken_at),
        "attempts": grant.attempts,
        "error": grant.error or None,
        **revoked,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


REDACTED = "(redacted)"

SECRET_NAMES = frozenset(
    {"token", "url", "authorization", "cookie", "set-cookie", "secret", "password", "code", "x-slack-signature"}
)
"""Keys of objects, in lower case. Anybody who reads a hook's token or a link's URL could resume a run."""

_LINK = re.compile(r"(/(?:decisions|webhooks|inbox|login)/)[\w.~%=-]+")


def redact(value: Any) -> Any:
    """Return the same JSON without tokens, links and secrets."""
    match value:
        case dict():
            return {
                key: REDACTED if key.lower() in SECRET_NAMES and isinstance(item, str) and item else redact(item)
                for key, item in value.items()
            }
        case [str() as name, str() as item] if name.lower() in SECRET_NAMES and item:
            return [name, REDACTED]  # a header field, as requests keep them
        case list():
            return [redact(item) for item in value]
        case str():
            return _LINK.sub(r"\1" + REDACTED, value)
    return value


def iso(at: datetime) -> str:
    """Format the time as in JSON: `2026-11-29T08:00:00Z`."""
    return at.isoformat().replace("+00:00", "Z")
