"""The pages for people beyond a mail's link: runs, one run's story, a request, the inbox.

They show what others asked for, so without a session they show only how to get in. `open_pages` opens them to
everybody, for a service that listens on this machine alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView
from approvals_bot.engine import Engine, RunRecord
from approvals_bot.web.bodies import Status
from approvals_bot.web.render import Pages
from approvals_bot.web.requests import find_record, request_of, requests_of
from approvals_bot.web.story import tell
from approvals_bot.web.timeline import draw

STATUSES: tuple[Status, ...] = get_args(Status)
NAV = (("/runs", "Runs"), ("/inbox", "Inbox"))


class PeoplePages:
    """`/runs`, `/runs/{id}`, `/requests/{id}`, `/inbox`, `/login`."""

    def __init__(
        self,
        *,
        engine: Engine,
        pages: Pages,
        now: Callable[[], datetime],
        open_pages: bool = False,
    ) -> None:
        self._engine = engine
        self._pages = pages
        self._now = now
        self._open = open_pages

    async def login(self, request: Request) -> Response:
        return self._pages.page("login.html")

    async def runs(self, request: Request) -> Response:
        """The runs, newest first, by status if asked."""
        if not self._open:
            return self._closed()
        status = next((word for word in STATUSES if word == request.query_params.get("status")), None)
        page = await self._engine.records(status=status, cursor=request.query_params.get("cursor"))
        return self._page(
            "runs.html",
            "/runs",
            rows=[self._row(record) for record in page.records],
            cursor=page.cursor,
            chosen=status,
            statuses=STATUSES,
        )

    async def run(self, request: Request) -> Response:
        """One run as a story: what happened, when, and what it waits for."""
        if not self._open:
            return self._closed()
        record = await self._engine.record(request.path_params["id"])
        if record is None:
            return self._pages.page("not_found.html", 404)
        story = tell(await self._engine.events(record.id))
        return self._page(
            "run.html",
            "/runs",
            row=self._row(record),
            record=record,
            requests=[self._row_of(record, view) for view in requests_of(record) if view.number],
            story=story,
            drawing=draw(story.stretches, start=record.created_at, end=record.ended_at or self._now()),
        )

    async def request(self, request: Request) -> Response:
        """The card of one request, for reading."""
        if not self._open:
            return self._closed()
        record = await find_record(self._engine, request.path_params["id"])
        view = request_of(record) if record is not None else None
        if view is None:
            return self._pages.page("not_found.html", 404)
        card = card_of(view, None, self._now())
        return self._page("request.html", "", card=card, run_id=view.run_id)

    async def inbox(self, request: Request) -> Response:
        """What waits for one person, oldest first: the one who has waited longest is served first."""
        if not self._open:
            return self._closed()
        address = request.query_params.get("person")
        rows: list[dict[str, Any]] = []
        if address:
            page = await self._engine.records(waiting_for=address, limit=200)
            waiting = [(record, view) for record in reversed(page.records) for view in requests_of(record)]
            rows = [self._row_of(record, view) for record, view in waiting if address in view.waiting_for]
        longest = max((row["age"] for row in rows), default=None)
        return self._page("inbox.html", "/inbox", rows=rows, address=address, longest=longest)

    def _row(self, record: RunRecord) -> dict[str, Any]:
        """What a line of a list says of a run."""
        view = request_of(record)
        if view is not None and not view.number:
            return self._row_of(record, view)
        return {
            "record": record,
            "card": None,
            "title": record.workflow,
            "path": f"/runs/{record.id}",
            "age": (record.ended_at or self._now()) - record.created_at,
        }

    def _row_of(self, record: RunRecord, view: RequestView) -> dict[str, Any]:
        """A line that is about one request."""
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

    def _page(self, template: str, here: str, **values: Any) -> Response:
        return self._pages.page(template, nav=NAV, here=here, **values)

    def _closed(self) -> Response:
        return self._pages.page("login.html", 401)
