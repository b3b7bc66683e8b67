"""The pages for people, besides that of a mail's link: the list of runs, the inbox. And who may see what.

They show what others asked for, so without a session they show only how to get in. People who have signed in see their
inbox, and the requests that concern them. `open_pages` opens all to those who haven't signed in, for a service that
listens on this machine alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.published import REQUEST, Relation
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Status
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.known import concerns_now
from approvals_bot.service.read import RequestPage, await_request, list_requests, request_of, requests_of
from approvals_bot.service.roles import Roles
from approvals_bot.web.batch import InboxVotes, can_be_batched
from approvals_bot.web.form_tokens import FormTokens
from approvals_bot.web.links import Links
from approvals_bot.web.login import Login
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.responses import Renderer
from approvals_bot.web.sessions import SessionCookies

STATUSES: tuple[Status, ...] = get_args(Status)
WAITING_SHOWN = 100  # requests on one page of an inbox
NO_VIEWER = "Your inbox has the requests that concern you. Ask an operator if you need to see all of them."
SIGNED_OUT_SEES_ALL = "On your own machine, the playground shows them once you sign out."
OTHERS_SHOWN = 50  # on one page of what a person asked for, and voted on

LISTS: tuple[tuple[Relation, str, str], ...] = (
    ("requested_by", "asked", "Your requests"),
    ("voted_by", "voted", "Requests you voted on"),
)
"""Below what waits for a person: which of their requests, the query's name for the cursor, and the heading."""


class PeoplePages:
    """`/runs`, `/inbox`, and whom the pages of a request or run are for."""

    def __init__(
        self,
        *,
        engine: Engine,
        people: People,
        workflows: Catalog,
        sessions: SessionCookies,
        links: Links,
        forms: FormTokens,
        batches: InboxVotes,
        pages: Renderer,
        navigation: Navigation,
        now: Callable[[], datetime],
        login: Login,
        roles: Roles,
        root: str,
        open_pages: bool = False,
    ) -> None:
        self._batches = batches
        self._engine = engine
        self._links = links
        self._forms = forms
        self._people = people
        self._workflows = workflows
        self._sessions = sessions
        self._login = login
        self._roles = roles
        self._root = root
        self._pages = pages
        self._navigation = navigation
        self._now = now
        self._open = open_pages

    async def runs(self, request: HttpRequest) -> Response:
        """The runs, newest first, by status if asked."""
        if (refusal := await self._refuse_all_but_viewers(request)) is not None:
            return refusal
        status = next((word for word in STATUSES if word == request.query_params.get("status")), None)
        cursor = request.query_params.get("cursor")
        try:
            page = await self._engine.records(status=status, cursor=cursor)
        except ValueError:
            return self._pages.page("not_found.html", 404)
        return await self._page(
            request,
            "runs.html",
            "/runs",
            rows=[self._row(record) for record in page.records],
            cursor=page.cursor,
            chosen=status,
            statuses=STATUSES,
        )

    async def _refuse_all_but_viewers(self, request: HttpRequest) -> Response | None:
        """Return what people see who may not see all runs: how to sign in, or a sentence. Raises SourceUnavailable."""
        reader = await self._sessions.who(request)
        if reader is None:
            return None if self._open else await self._login.instead_of(request)
        if await self._roles.is_viewer(reader):
            return None
        nav = await self._navigation.of(reader)
        detail = f"{NO_VIEWER} {SIGNED_OUT_SEES_ALL}" if self._open else NO_VIEWER
        return self._pages.page("error.html", 403, title="This page is for viewers", detail=detail, nav=nav)

    async def may_open(self, id: str, reader: str | None) -> bool:
        """Return whether this person may open the page of this request or run. Raises SourceUnavailable."""
        record = await self._engine.record(id.partition(".")[0])
        if record is None:
            return False
        if self._open if reader is None else await self._roles.is_viewer(reader):
            return True
        return any(
            [
                await concerns_now(self._engine, each, reader) or await self._may_view(each, reader)
                for each in requests_of(record)
            ]
        )

    async def _may_view(self, view: Request, reader: str | None) -> bool:
        """Return whether this person may see a request that doesn't concern them. Raises SourceUnavailable."""
        if reader is None:
            return False
        listed = self._workflows.find(view.workflow)
        viewers = listed.definition.workflow.viewers if listed is not None and listed.definition is not None else None
        return await self._roles.is_among(reader, (*(viewers or ()), *self._roles.named))

    async def find_visible(self, request: HttpRequest) -> Request | Response:
        """Return the request of this address, for those who have to do with it; else the page that they get.

        To all others there is no such request.
        """
        reader = await self._sessions.who(request)
        if not self._open and reader is None:
            return await self._login.instead_of(request)
        record = await await_request(self._engine, request.path_params["id"])
        view = request_of(record) if record is not None else None
        sees_all = self._open and reader is None
        if view is None or not (
            sees_all or await concerns_now(self._engine, view, reader) or await self._may_view(view, reader)
        ):
            return self._pages.page("not_found.html", 404)
        return view

    async def inbox(self, request: HttpRequest) -> Response:
        """Show what waits for one person, the oldest first; after signing in, also what they asked for and voted on."""
        reader = await self._sessions.who(request)
        if not self._open and reader is None:
            return await self._login.instead_of(request)
        address = reader or self._people.identity(request.query_params.get("person", ""))
        waiting, others = RequestPage([], None, 0, is_whole=True), list[dict[str, Any]]()
        try:
            if address:
                waiting = await self._list("waiting_for", address, request.query_params.get("cursor"), WAITING_SHOWN)
            if reader:
                others = [await self._other(reader, *each, request.query_params.get(each[1])) for each in LISTS]
        except ValueError:
            return self._pages.page("not_found.html", 404)
        rows = [await self._waiting_row(record, found, reader) for record, found in waiting.rows]
        return await self._page(
            request,
            "inbox.html",
            "/inbox",
            rows=rows,
            waiting=waiting,
            address=address,
            person="" if reader else address,
            longest=max((row["age"] for row in rows), default=None),
            others=others,
            may_leave=reader is not None,
            live=f"/live?{urlencode({'inbox': '' if reader else address})}" if address else "",
            form_token=self._forms.make(request, "logout") if reader is not None else "",
            batch_token=self._forms.make(request, "batch") if any(row.get("can_be_batched") for row in rows) else "",
            batch=await self._batches.rows_of(request.query_params.get("batch", ""), reader) if reader else (),
        )

    async def next(self, request: HttpRequest) -> Response:
        """Lead to the person's own page of the request that has waited longest; to the inbox if there is none."""
        reader = await self._sessions.who(request)
        if reader is None:
            return await self._login.instead_of(request)
        page = await self._list("waiting_for", reader, None, 1)
        found = page.rows[0][1] if page.rows else None
        path = await self._links.inbox_path(found, reader) if found is not None else ""
        return RedirectResponse(f"{self._root}{path or '/inbox'}", 303)

    async def _other(
        self, reader: str, relation: Relation, name: str, heading: str, cursor: str | None
    ) -> dict[str, Any]:
        page = await self._list(relation, reader, cursor, OTHERS_SHOWN)
        rows = [self._row_of(record, found) for record, found in page.rows]
        return {"heading": heading, "rows": rows, "name": name, "cursor": page.cursor}

    async def _list(self, relation: Relation, address: str, cursor: str | None, limit: int) -> RequestPage:
        return await list_requests(self._engine, relation, address, cursor=cursor, limit=limit)

    async def _waiting_row(self, record: RunRecord, view: Request | None, reader: str | None) -> dict[str, Any]:
        row = self._row_of(record, view)
        if reader is None or view is None:
            return row
        own_page = await self._links.inbox_path(view, reader)
        can = can_be_batched(view, card_of(view, reader, self._now()))
        shown = {"can_be_batched": can, "chosen": f"{view.id}:{view.digest}"}
        return row | shown | ({"path": own_page} if own_page else {})

    def _row(self, record: RunRecord) -> dict[str, Any]:
        """What a line of a list says of a run."""
        return self._row_of(record, request_of(record) if record.kind == REQUEST else None)

    def _row_of(self, record: RunRecord, view: Request | None) -> dict[str, Any]:
        """A line that is about one request; about its run, where there is none to be shown."""
        if view is None:
            return {
                "record": record,
                "card": None,
                "title": record.workflow,
                "path": f"/runs/{record.id}",
                "age": (record.ended_at or self._now()) - record.created_at,
            }
        card = card_of(view, None, self._now())
        ended = view.outcome.at if view.outcome and view.number else record.ended_at
        asked_at = view.asked_at if view.number else record.created_at
        return {
            "record": record,
            "card": card,
            "title": card.title,
            "path": f"/requests/{view.id}",
            "age": (ended or self._now()) - asked_at,
        }

    async def _page(self, request: HttpRequest, template: str, here: str, **values: Any) -> Response:
        reader = await self._sessions.who(request)
        zone = self._people.person(reader).zone if reader else "UTC"
        nav = await self._navigation.of(reader)
        return self._pages.page(template, nav=nav, here=here, zone=zone, **values)
