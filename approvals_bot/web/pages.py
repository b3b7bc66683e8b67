"""What pages for people have in common, besides that of a mail's link: who may see what.

They show what others asked for, so without a session they show only how to get in. People who have signed in see their
inbox, and the requests that concern them. `open_pages` opens all to those who haven't signed in, for a service that
listens on this machine alone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import RunRecord
from approvals_bot.people import is_mail
from approvals_bot.service.known import concerns_now
from approvals_bot.service.read import await_request, request_of, requests_of
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.responses import Problem

NO_VIEWER = "Your inbox has the requests that concern you. Ask an operator if you need to see all of them."
SIGNED_OUT_SEES_ALL = "On your own machine, the playground shows them once you sign out."


class PeoplePages:
    """Whom the pages of lists, a request or a run are for, and what they have in common."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._sessions, self._links, self._login, self._roles = desk.sessions, desk.links, desk.login, desk.roles
        self._navigation, self._pages = desk.navigation, desk.pages
        self._now, self._root, self._open = desk.now, desk.root, desk.open_pages

    async def refuse_all_but_viewers(self, request: HttpRequest) -> Response | None:
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
        return reader is not None and await self._may_see_all(view.workflow, reader)

    async def may_know_of_all(self, request: HttpRequest, workflow: str) -> bool:
        """Return whether the reader may see all requests of a workflow. Raises SourceUnavailable."""
        reader = await self._sessions.who(request)
        return self._open if reader is None else await self._may_see_all(workflow, reader)

    async def _may_see_all(self, workflow: str, reader: str) -> bool:
        listed = self._workflows.find(workflow)
        viewers = listed.definition.workflow.viewers if listed is not None and listed.definition is not None else None
        return await self._roles.is_among(reader, (*(viewers or ()), *self._roles.named))

    async def may_end_grant(self, view: Request, reader: str) -> bool:
        """Return whether this person may end a grant as an operator, or as an owner of its workflow.

        Raises SourceUnavailable.
        """
        listed = self._workflows.find(view.workflow)
        owners = listed.definition.workflow.owners if listed is not None and listed.definition is not None else None
        people = [owner for owner in owners or () if owner.startswith("@") or is_mail(owner)]
        return await self.is_operator(reader) or await self._roles.is_among(reader, people)

    async def is_operator(self, reader: str) -> bool:
        """Return whether this person is an operator. Raises SourceUnavailable."""
        return await self._roles.has(reader, "operator")

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
        if view is None and record is not None and await self._should_have(record, reader):
            return RedirectResponse(f"{self._root}/runs/{record.id}", 303)  # that page says why there is none
        if view is None or not (
            sees_all or await concerns_now(self._engine, view, reader) or await self._may_view(view, reader)
        ):
            raise Problem(404)
        return view

    async def _should_have(self, record: RunRecord, reader: str | None) -> bool:
        """Return whether each run of this workflow makes a request, and this person may see the run."""
        listed = self._workflows.find(record.workflow)
        return listed is not None and listed.makes_request and await self.may_open(record.id, reader)

    async def page(
        self, request: HttpRequest, template: str, here: str, *, status: int = 200, **values: Any
    ) -> Response:
        """Return a page with the reader's navigation, in their time zone."""
        reader = await self._sessions.who(request)
        zone = self._people.person(reader).zone if reader else "UTC"
        nav = await self._navigation.of(reader)
        return self._pages.page(template, status, nav=nav, here=here, zone=zone, **values)


def row_of(record: RunRecord, view: Request | None, now: datetime) -> dict[str, Any]:
    """Return what a line of a list says of one request; of its run, where there is none to be shown."""
    if view is None:
        return {
            "record": record,
            "view": None,
            "card": None,
            "title": record.workflow,
            "path": f"/runs/{record.id}",
            "age": (record.ended_at or now) - record.created_at,
        }
    card = card_of(view, None, now)
    ended = view.outcome.at if view.outcome and view.number else record.ended_at
    asked_at = view.asked_at if view.number else record.created_at
    return {
        "record": record,
        "view": view,
        "card": card,
        "title": card.title,
        "path": f"/requests/{view.id}",
        "age": (ended or now) - asked_at,
    }
