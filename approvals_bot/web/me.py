"""`/me`: a person's own page, with their sessions, which they can end."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.people import People
from approvals_bot.web.form_tokens import NAME, FormTokens
from approvals_bot.web.guard import peer_of
from approvals_bot.web.login import Login
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.responses import Renderer
from approvals_bot.web.sessions import SessionCookies
from approvals_bot.web.validation import read_form

STALE = "This page was open too long, so nobody was signed out. Check the list, then press again."
METHODS: dict[str, str] = {
    "oidc": "your company account",
    "slack": "Slack",
    "code": "a code by email",
    "proxy": "your company's proxy",
    "playground": "the playground",
}


class MyPage:
    """`/me`."""

    def __init__(
        self,
        *,
        engine: Engine,
        people: People,
        sessions: SessionCookies,
        forms: FormTokens,
        login: Login,
        pages: Renderer,
        navigation: Navigation,
        root: str,
    ) -> None:
        self._engine = engine
        self._people = people
        self._sessions = sessions
        self._forms = forms
        self._login = login
        self._pages = pages
        self._navigation = navigation
        self._root = root

    async def show(self, request: HttpRequest) -> Response:
        session = await self._sessions.find(request)
        return await (self._login.instead_of(request) if session is None else self._page(request, session))

    async def sign_out_everywhere(self, request: HttpRequest) -> Response:
        """End all sessions of this person, at every replica: 303 to the page to sign in."""
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        if not self._forms.is_ours(request, "me", form.get(NAME, "")):
            return await self._page(request, session, 403, STALE)
        ended = await self._sessions.sessions.end_all(session.person)
        actor = Actor("person", session.person, session=session.id, peer=peer_of(request.scope)).as_json()
        await self._engine.audit("signed_out_everywhere", who=session.person, actor=actor, data={"sessions": ended})
        answer = RedirectResponse(f"{self._root}/login", 303)
        await self._sessions.end(request, answer)
        return answer

    async def _page(self, request: HttpRequest, session: SessionRow, status: int = 200, said: str = "") -> Response:
        person = self._people.person(session.person)
        rows = [
            {"session": row, "method": METHODS.get(row.method, ""), "is_this": row.id == session.id}
            for row in await self._sessions.sessions.list(session.person)
        ]
        values = {"person": person, "rows": rows, "form_token": self._forms.make(request, "me"), "said": said}
        nav = await self._navigation.of(session.person)
        return self._pages.page("me.html", status, nav=nav, here="/me", zone=person.zone, **values)
