"""`/me`: a person's own page, with their sessions, which they can end."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.durable.tokens import Tokens
from approvals_bot.errors import InvalidTokenError
from approvals_bot.people import People
from approvals_bot.web.guard import peer_of
from approvals_bot.web.login import Login
from approvals_bot.web.navigation import Navigation
from approvals_bot.web.responses import Renderer, origin_of, root_of
from approvals_bot.web.sessions import SessionCookies
from approvals_bot.web.validation import is_from_own_page, read_form

FORM = "me-form.v1"
FORM_TIME = timedelta(minutes=30)

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
        tokens: Tokens,
        sessions: SessionCookies,
        login: Login,
        pages: Renderer,
        navigation: Navigation,
        base_url: str,
    ) -> None:
        self._engine = engine
        self._people = people
        self._tokens = tokens
        self._sessions = sessions
        self._login = login
        self._pages = pages
        self._navigation = navigation
        self._origin = origin_of(base_url)
        self._root = root_of(base_url)

    async def show(self, request: HttpRequest) -> Response:
        session = await self._sessions.find(request)
        return await (self._login.instead_of(request) if session is None else self._page(session))

    async def sign_out_everywhere(self, request: HttpRequest) -> Response:
        """End all sessions of this person, at every replica: 303 to the page to sign in."""
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        is_ours = self._is_shown(session, form.get("form_token", ""))
        if not (is_ours and is_from_own_page(request.headers, self._origin, has_token=is_ours)):
            return await self._page(session, 403, STALE)
        ended = await self._sessions.sessions.end_all(session.person)
        actor = Actor("person", session.person, session=session.id, peer=peer_of(request.scope)).as_json()
        await self._engine.audit("signed_out_everywhere", who=session.person, actor=actor, data={"sessions": ended})
        answer = RedirectResponse(f"{self._root}/login", 303)
        await self._sessions.end(request, answer)
        return answer

    async def _page(self, session: SessionRow, status: int = 200, said: str = "") -> Response:
        person = self._people.person(session.person)
        rows = [
            {"session": row, "method": METHODS.get(row.method, ""), "is_this": row.id == session.id}
            for row in await self._sessions.sessions.list(session.person)
        ]
        token = self._tokens.sign(FORM, {"s": session.id[:22], "t": self._engine.now().timestamp()})
        values = {"person": person, "rows": rows, "form_token": token, "said": said}
        nav = await self._navigation.of(session.person)
        return self._pages.page("me.html", status, nav=nav, here="/me", zone=person.zone, **values)

    def _is_shown(self, session: SessionRow, form_token: str) -> bool:
        try:
            shown = self._tokens.read(FORM, form_token)
        except InvalidTokenError:
            return False
        age = self._engine.now().timestamp() - float(shown["t"])
        return bool(shown["s"] == session.id[:22]) and age <= FORM_TIME.total_seconds()
