"""The person at a browser: their session ends with its time, its sign-out, or when they leave."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.sessions import Sessions, browser_of, id_of
from approvals_bot.web.guard import audited_peer_of, cookie_of
from approvals_bot.web.proxies import ProxyHeader

COOKIE, SECURE_COOKIE = "approvals", "__Host-approvals"


def actor_at(request: HttpRequest, session: SessionRow) -> Actor:
    """Return who acts at this browser, for logs and the audit, which keep its address only where they may."""
    return Actor("person", session.person, session=session.id, peer=audited_peer_of(request.scope))


class SessionCookies:
    """The session of a browser, kept in its cookie."""

    def __init__(
        self, sessions: Sessions, known: KnownPeople, *, base_url: str, proxy: ProxyHeader | None = None
    ) -> None:
        """`proxy`: what a proxy in front says about who has signed in there."""
        self.sessions = sessions
        self._proxy = proxy
        self.known = known
        self._is_secure = base_url.startswith("https:")
        self.cookie = SECURE_COOKIE if self._is_secure else COOKIE

    async def find(self, request: HttpRequest) -> SessionRow | None:
        """Return this browser's session. It ends when nobody knows its person any more.

        One that a proxy has opened counts only where the proxy goes on naming that person. Raises SourceUnavailable.
        """
        row = await self.sessions.find(cookie_of(request.scope, self.cookie))
        if row is None:
            return None
        if row.method == "proxy" and await self.named_by_proxy(request) != row.person:
            return None
        if not await self.known.may_sign_in(self.sessions.engine, row.person):
            await self.sessions.end(row.id)
            return None
        return row

    async def who(self, request: HttpRequest) -> str | None:
        """Return the address of the person who has signed in in this browser. Raises SourceUnavailable."""
        row = await self.find(request)
        return None if row is None else row.person

    async def named_by_proxy(self, request: HttpRequest) -> str | None:
        """Return the address of the person whom a trusted proxy names, if there is one."""
        return None if self._proxy is None else await self._proxy.person_at(request)

    async def begin(self, request: HttpRequest, response: Response, person: str, method: str, *, proved: bool) -> str:
        """Begin a new session in this browser, in place of the one it had. Returns the session's id."""
        await self._end_old(request)
        browser = browser_of(request.headers.get("user-agent", ""))
        token = await self.sessions.begin(person, method=method, browser=browser, proved=proved)
        self._set(response, token, self.sessions.lifetime)
        return id_of(token)

    async def end(self, request: HttpRequest, response: Response) -> SessionRow | None:
        """End this browser's session, and return it."""
        ended = await self._end_old(request)
        self._set(response, "", timedelta())
        return ended

    async def _end_old(self, request: HttpRequest) -> SessionRow | None:
        row = await self.sessions.find(cookie_of(request.scope, self.cookie))
        if row is None:
            return None
        await self.sessions.end(row.id)
        return row

    def _set(self, response: Response, value: str, time: timedelta) -> None:
        # Lax: a link in a mail opens the inbox; a form from elsewhere does not bring the cookie along.
        response.set_cookie(
            self.cookie,
            value,
            max_age=int(time.total_seconds()),
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="lax",
        )
