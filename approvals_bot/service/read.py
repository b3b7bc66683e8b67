"""The requests of a run, and what they show of themselves.

A run of a workflow file is one request. A Python workflow may make none, one or many; each is called by its run's id
and its number, `run_0….2`, and by the run's id alone where only one can be meant.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from approvals_bot.approvals.published import Relation, concerns
from approvals_bot.approvals.request import Request, RequestOutcome, dumped
from approvals_bot.durable.core.run import projected
from approvals_bot.durable.engine import Engine, HookTarget, RunRecord
from approvals_bot.durable.store.protocol import Filter

_REQUESTS = TypeAdapter(tuple[Request, ...])


def requests_of(record: RunRecord) -> tuple[Request, ...]:
    """Return the requests that this run shows, in the order in which they were made.

    None for a run whose row is damaged: it is listed as a plain run, and breaks no list.
    """
    try:
        return tuple(_over(one, record) for one in _REQUESTS.validate_python(record.parts))
    except ValidationError:
        return ()


def request_of(record: RunRecord, hook_id: str | None = None) -> Request | None:
    """The request behind this hook; without one, the request that the run stands for now: the one that is open, if
    several are the first of them, else the last. None for a run that asks nobody.
    """
    requests = requests_of(record)
    if hook_id is not None:
        return next((view for view in requests if view.hook_id == hook_id), None)
    return stands_for(requests)


def stands_for(requests: Sequence[Request]) -> Request | None:
    """Of all requests of a run, the one that it stands for now."""
    return next((view for view in requests if view.is_open), requests[-1] if requests else None)


async def find_record(engine: Engine, id: str) -> RunRecord | None:
    """The run of this id; for a request's, `run_0….2`, its run as if that request were all that it shows."""
    run_id, _, number = id.partition(".")
    record = await engine.record(run_id)
    if record is None or not number:
        return record if run_id == id else None
    view = next((view for view in requests_of(record) if view.id == id), None)
    return record._replace(parts=[dumped(view)]) if view is not None else None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Some of the requests that a person has to do with, and where the next page starts.

    A request is None where its run's row is damaged: then only the run can be shown. `total` is how many there are in
    all, or at least as many, unless `is_whole`.
    """

    rows: list[tuple[RunRecord, Request | None]]
    cursor: str | None
    total: int
    is_whole: bool


MOST_COUNTED = 1_000  # requests of one person; nobody needs to know more exactly how many more there are


async def list_requests(
    engine: Engine, relation: Relation, address: str, *, cursor: str | None = None, limit: int = 50
) -> RequestPage:
    """Return a page of the requests that this person has this to do with.

    What waits begins with what has waited longest, all else with the newest. Raises ValueError for a cursor that no
    page gave.
    """
    which = Filter(
        attributes={projected(relation): address},
        is_open=True if relation in ("waiting_for", "open_vote_of") else None,
        oldest_first=relation == "waiting_for",
        cursor=cursor,
        limit=limit,
    )
    return await _page(engine, which, relation, address)


async def list_decided(engine: Engine, address: str, *, limit: int) -> RequestPage:
    """Return the newest requests that this person voted on and that have ended; there is no next page.

    A run that was ended from outside is still found as it was while it ran: by the vote in an open request.
    """
    cut_off = Filter(attributes={projected("open_vote_of"): address}, is_open=False, limit=limit)
    ended, ended_by_force = await asyncio.gather(
        list_requests(engine, "ended_vote_of", address, limit=limit),
        _page(engine, cut_off, "ended_vote_of", address),
    )
    rows = {(run.id, request and request.id): (run, request) for run, request in (*ended.rows, *ended_by_force.rows)}
    newest = sorted(rows.values(), key=lambda row: (row[0].created_at, row[0].id), reverse=True)
    total = max(len(newest), ended.total, ended_by_force.total)
    return RequestPage(newest[:limit], None, total, ended.is_whole and ended_by_force.is_whole)


async def _page(engine: Engine, which: Filter, relation: Relation, address: str) -> RequestPage:
    page = await engine.list_runs(which)
    rows: list[tuple[RunRecord, Request | None]] = []
    for record in page.records:
        requests = requests_of(record)
        rows += [(record, one) for one in requests if concerns(one, relation, address)]
        if not requests:
            rows.append((record, None))
    if page.cursor is None and which.cursor is None:
        return RequestPage(rows, None, len(rows), is_whole=True)
    counted = await engine.count_runs(which, MOST_COUNTED)
    return RequestPage(rows, page.cursor, max(counted, len(rows)), is_whole=False)


def choices_of(requests: Sequence[Request]) -> tuple[str, ...]:
    """The ids of the open ones of a run's requests, of which one has to be named, where its id could mean several."""
    open_ones = [view.id for view in requests if view.is_open]
    return tuple(open_ones) if len(open_ones) > 1 else ()


def request_behind(target: HookTarget | None) -> Request | None:
    """The request that this hook belongs to."""
    return None if target is None else request_of(target.record, target.hook.id)


def _over(view: Request, record: RunRecord) -> Request:
    """A run that was ended from outside takes its open requests with it, without a word of its own."""
    if not record.has_ended or not view.is_open:
        return view
    ended = RequestOutcome(
        state="withdrawn",
        by=view.requester,
        at=record.ended_at or view.asked_at,
        via="api",
        because="the workflow that asked was ended",
    )
    return view.model_copy(update={"outcome": ended, "state": "withdrawn", "waiting_for": (), "timers": ()})


def api_request(view: Request) -> dict[str, Any]:
    """The `request` of a run, as the API shows it. Votes that were changed, taken back or reset are left out; one
    that was given in an absent person's place says whose.
    """
    stage = view.stage
    return {
        "title": view.title,
        "fields": view.fields,
        "digest": view.digest,
        "state": view.state,
        "stage": stage.id if stage else None,
        "votes": [
            {
                "by": vote.by,
                "choice": vote.choice,
                "comment": vote.vote.comment,
                "at": _iso(vote.at),
                "via": vote.vote.via,
            }
            | ({"in_place_of": vote.in_place_of} if vote.in_place_of else {})
            for vote in view.votes
            if vote.counts
        ],
        "waiting_for": list(view.waiting_for),
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
            for done in view.reassignments
        ],
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
            }
            for copy in view.deliveries
        ],
        "follow_ups": [
            {"what": one.what, "state": one.state, "attempts": one.attempts, "error": one.error or None}
            for one in view.follow_ups
        ],
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


REDACTED = "(redacted)"

SECRET_NAMES = frozenset(
    {"token", "url", "authorization", "cookie", "set-cookie", "secret", "password", "code", "x-slack-signature"}
)
"""Keys of objects, in lower case. A hook's token and a link's URL let whoever reads them resume a run."""

_LINK = re.compile(r"(/(?:decisions|webhooks|inbox|login)/)[\w.~%=-]+")


def redact(value: Any) -> Any:
    """The same JSON without tokens, links and secrets."""
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
    """The time as JSON has it: `2026-11-29T08:00:00Z`."""
    return at.isoformat().replace("+00:00", "Z")
