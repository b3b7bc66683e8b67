"""`GET /live`: server-sent events that say which open pages have changed. What has changed is only on the pages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from approvals_bot.errors import ApprovalsBotError
from approvals_bot.service.live import LivePage, LivePages
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.guard import peer_of
from approvals_bot.web.responses import Problem

HEARTBEAT = 15.0  # seconds; proxies close a connection on which nothing comes
RETRY = 3_000  # milliseconds before a browser connects again
MOST_OF_A_SESSION = 5  # a sixth page ends the oldest; it is probably in a tab that nobody sees
MOST = 1_000  # of a replica

MayOpen = Callable[[str, str | None], Awaitable[bool]]
"""Whether a person may open the page of this run or request: (its id, their address)."""


class Live:
    """`/live`."""

    def __init__(self, desk: WebDesk, may_open: MayOpen) -> None:
        self._engine, self._sessions, self._open = desk.engine, desk.sessions, desk.open_pages
        self._may_open = may_open
        self.pages = LivePages(self._engine, self._sessions.sessions, most_of_a_browser=MOST_OF_A_SESSION)

    async def stream(self, request: HttpRequest) -> Response:
        """Stream the changes of one run's page, of the person's inbox, or of both."""
        page = await self._page(request)
        if not page.run_id and not page.person:
            raise Problem(422, "Nothing to follow", "Ask for `inbox`, for `run=` with a run's id, or for both.")
        if len(self.pages) >= MOST:
            busy = "Too many pages are open here. This one is complete, but shows changes only when it is loaded again."
            raise Problem(503, "Too many open pages", busy, headers={"Retry-After": "60"})
        headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(request, page), media_type="text/event-stream", headers=headers)

    async def _page(self, request: HttpRequest) -> LivePage:
        """Return what this browser may follow. Raises Problem 401 without a session, 404 for what it may not see."""
        session = await self._sessions.find(request)
        if session is None and not self._open:
            raise Problem(401, "Not signed in", "Sign in, then load the page again.")
        reader = session.person if session is not None else None
        wanted = request.query_params.get("run", "")
        if wanted and not await self._may_open(wanted, reader):
            raise Problem(404)
        whose = (reader or request.query_params["inbox"]) if "inbox" in request.query_params else ""
        browser = session.id if session is not None else peer_of(request.scope)
        return LivePage(wanted.partition(".")[0], whose, browser, session is not None)

    async def _events(self, request: HttpRequest, page: LivePage) -> AsyncIterator[str]:
        """Yield a page's changes until its session ends, the page is replaced, or the service stops."""
        with self.pages.opened(page):
            yield f"retry: {RETRY}\n: open\n\n"
            while not (page.is_over or self._engine.is_ending):
                topics = await page.changes(HEARTBEAT)
                if not await self._is_still(request, page):
                    return
                yield "".join(map(_changed, topics.items())) or ": nothing new\n\n"

    async def _is_still(self, request: HttpRequest, page: LivePage) -> bool:
        try:
            now = await self._page(request)
        except ApprovalsBotError:
            return False
        return (now.run_id, now.person) == (page.run_id, page.person)


def _changed(topic: tuple[str, int]) -> str:
    data: Mapping[str, str | int] = {"topic": topic[0], "version": topic[1]}
    return f"event: changed\ndata: {json.dumps(data)}\n\n"
