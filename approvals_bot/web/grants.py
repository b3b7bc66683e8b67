"""What approvals gave: `GET /api/grants` for programs with a key, and `/grants` for people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Revoke
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import GRANT_WORDS
from approvals_bot.approvals.standing_grants import CountedGrant
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People
from approvals_bot.service.act import perform
from approvals_bot.service.grants import GRANT_STATES, PAGE, GrantFilter, ListedGrant, ListedState, list_grants
from approvals_bot.service.keys import OPENER
from approvals_bot.service.read import api_grant, api_standing, request_of
from approvals_bot.web.admission import Admission
from approvals_bot.web.keys import actor_of, check_reach, key_of, lacks
from approvals_bot.web.responses import STATUS, JsonResponse, Problem
from approvals_bot.web.validation import bad_query, query_address, query_choice, query_integer, read_query

MOST_PER_PAGE = 200
FILTERS = ("state", "workflow", "person")
STATE_WORDS: dict[ListedState, str] = {state: word for state, (_, word) in GRANT_WORDS.items()} | {"used_up": "Used up"}
"""What the list and its filter call each state."""


class GrantsApi:
    """`/api/grants`."""

    def __init__(self, engine: Engine, people: People) -> None:
        self._engine = engine
        self._people = people

    async def allowances(self, request: HttpRequest) -> Response:
        """The allowances that match, a page at a time: of all tool calls, or of those that the key has opened."""
        return await self._page(request, lambda each: each.is_allowance)

    async def revoke(self, request: HttpRequest) -> Response:
        """202: the allowance covers no further calls; 200 if it was over. For its giver, owners and operators."""
        key, by = key_of(request), query_address("by", read_query(request, "by").get("by"), self._people)
        record = await self._engine.record(request.path_params["id"])
        shown = None if record is None else request_of(record)
        is_one = shown is not None and shown.standing is not None and shown.standing.grant.is_allowance
        if record is None or shown is None or not is_one:
            raise Problem(404, "Allowance not found", "No allowance has this id.")
        await check_reach(self._engine, request, record)
        if by is not None and "vote" not in key.may:
            raise lacks(key, ("vote",), " to name a person")
        act = Revoke(
            by or key.address, "", "api", actor=actor_of(request), operates=by is None and "operate" in key.may
        )
        reply = await perform(self._engine, shown, act)
        if STATUS[reply.verdict] >= 400:
            raise Problem(STATUS[reply.verdict], "Not ended", reply.text, verdict=reply.verdict)
        return JsonResponse({"verdict": reply.verdict, "text": reply.text}, 202 if reply.changed else 200)

    async def search(self, request: HttpRequest) -> Response:
        """The grants that match, a page at a time: those of all runs, or of those that the key has opened."""
        return await self._page(request, lambda each: True)

    async def _page(self, request: HttpRequest, is_wanted: Callable[[ListedGrant], bool]) -> Response:
        key = key_of(request)
        asked = read_query(request, "person", "workflow", "state", "cursor", "limit")
        state = query_choice("state", asked.get("state"), GRANT_STATES)
        which = GrantFilter(
            query_address("person", asked.get("person"), self._people),
            asked.get("workflow"),
            cast(ListedState | None, state),
            () if key.reads_all else ((OPENER, key.address),),
        )
        limit = query_integer("limit", asked.get("limit", str(PAGE)), 1, MOST_PER_PAGE)
        try:
            found, cursor = await list_grants(self._engine, which, cursor=asked.get("cursor"), limit=limit)
        except ValueError:
            raise bad_query([{"loc": ["query", "cursor"], "msg": "not a cursor that a page gave"}]) from None
        now = self._engine.now()
        shown = [
            _grant_json(each, now) for each in found if is_wanted(each) and key.knows_workflow(each.record.workflow)
        ]
        return JsonResponse({"grants": shown, "cursor": cursor})


class GrantPages:
    """`/grants`: viewers see those of everybody, all others their own."""

    def __init__(self, engine: Engine, people: People, admission: Admission) -> None:
        self._engine = engine
        self._people = people
        self._admission = admission

    async def show(self, request: HttpRequest) -> Response:
        """Show a page of grants, the newest request first. A filter that means nothing is a Problem 422."""
        visitor = await self._admission.admit(request, None)
        if isinstance(visitor, Response):
            return visitor
        sees_all = await self._admission.has(visitor, "viewer")
        asked = request.query_params
        given = {name: text for name in FILTERS if (text := asked.get(name, "").strip())}
        state = query_choice("state", given.get("state"), GRANT_STATES)
        person = query_address("person", given.get("person"), self._people) if sees_all else visitor.address
        which = GrantFilter(person, given.get("workflow"), cast(ListedState | None, state))
        try:
            found, cursor = await list_grants(self._engine, which, cursor=asked.get("cursor"))
        except ValueError:
            raise bad_query([{"loc": ["query", "cursor"], "msg": "not a cursor that a page gave"}]) from None
        now = self._engine.now()
        return await self._admission.show(
            visitor,
            "grants.html",
            "/grants",
            rows=[_row(each, now) for each in found],
            given=given,
            words=STATE_WORDS,
            sees_all=sees_all,
            older=urlencode({**given, "cursor": cursor}) if cursor else "",
        )


def _row(listed: ListedGrant, now: datetime) -> dict[str, Any]:
    """Return what a line says: of a standing grant, how often it was used."""
    card, counted = card_of(listed.request, None, now), listed.counted
    about = {"card": card, "workflow": listed.record.workflow}
    if counted is not None:
        state, used = counted.state(now), f"{len(counted.uses)} of {counted.grant.times} uses"
        return about | {"text": f"{STATE_WORDS[state]}, {used}, until", "at": counted.grant.until, "is_alarm": False}
    assert card.grant is not None, "it is listed as one"
    is_alarm = card.grant.state in ("overdue", "not_given")
    return about | {"text": card_text.grant(card.grant), "at": card.grant.at, "is_alarm": is_alarm}


def _grant_json(listed: ListedGrant, now: datetime) -> dict[str, Any]:
    record, request = listed.record, listed.request
    return {
        "run_id": record.id,
        "workflow": record.workflow,
        "title": request.title,
        "requester": request.requester,
        "on_behalf_of": request.on_behalf_of,
        **(_counted_json(listed.counted, now) if listed.counted is not None else {}),
        **(api_grant(request.grant) if listed.counted is None and request.grant is not None else {}),
    }


def _counted_json(counted: CountedGrant, now: datetime) -> dict[str, Any]:
    """Return a standing grant with what it has covered so far."""
    revoked = counted.revoked
    return {
        **api_standing(counted.grant),
        "state": counted.state(now),
        "used": len(counted.uses),
        "used_sums": {name: f"{counted.total(name):f}" for name in counted.grant.sums},
        "uses": [use.request for use in counted.uses],
    } | ({} if revoked is None else {"revoked_by": revoked.by, "reason": revoked.reason})
