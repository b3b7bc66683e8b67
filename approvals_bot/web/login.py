"""Signing in to the pages for people: an address, a six-digit code by mail, and a cookie for the day.

There are no passwords and no accounts: anybody who can read an address's mail is its person, as everywhere in this
service. The answer doesn't reveal whether an address is known; codes go only to people whom the configuration names or
for whom a request is waiting.
"""

from __future__ import annotations

import logging

from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.port import Card, Channels, Dispatch, Name, ToPerson
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.service.codes import Codes
from approvals_bot.service.sessions import SESSION_TIME, Sessions
from approvals_bot.web.guard import cookie_of
from approvals_bot.web.responses import Renderer, origin_of, root_of
from approvals_bot.web.validation import is_from_own_page, read_form

log = logging.getLogger(__name__)

LONGEST_ADDRESS = 254  # characters; RFC 5321

SENT = "If we know this address, we've emailed it a six-digit code. It's valid for ten minutes."
WRONG = "That's not the code we sent you. Check the newest email and try again."
OVER = "This code has expired or was tried too often. Ask for a new one."
NO_ADDRESS = "Enter your email address, like ann@acme.eu."
ELSEWHERE = "This form didn't come from our own page, so nobody was signed in. Try again here."
CODE_MAIL = (
    "Your code is {digits}. Enter it within ten minutes on the page where you asked for it. "
    "If you didn't ask for it, someone else typed in your address. Nobody got in, and you don't need to do anything."
)


class SessionCookies:
    """The session of a browser, kept in its cookie."""

    def __init__(self, sessions: Sessions, *, base_url: str) -> None:
        self._sessions = sessions
        self._is_secure = base_url.startswith("https:")
        self._name = "__Host-approvals" if self._is_secure else "approvals"

    def who(self, request: HttpRequest) -> str | None:
        """Return the address of the person who has signed in in this browser."""
        return self._sessions.who(cookie_of(request.scope, self._name))

    def begin(self, response: Response, address: str) -> None:
        self._set(response, self._sessions.begin(address), int(SESSION_TIME.total_seconds()))

    def end(self, response: Response) -> None:
        self._set(response, "", 0)

    def _set(self, response: Response, value: str, seconds: int) -> None:
        # Lax: a link in a mail opens the inbox; a form from elsewhere does not bring the cookie along.
        response.set_cookie(
            self._name, value, max_age=seconds, path="/", secure=self._is_secure, httponly=True, samesite="lax"
        )


class Login:
    """`/login`, `/logout`."""

    def __init__(
        self,
        *,
        engine: Engine,
        people: People,
        channels: Channels,
        codes: Codes,
        sessions: SessionCookies,
        pages: Renderer,
        base_url: str,
    ) -> None:
        self._engine = engine
        self._people = people
        self._channels = channels
        self._sessions = sessions
        self._pages = pages
        self._origin = origin_of(base_url)
        self._root = root_of(base_url)
        self._codes = codes

    async def show(self, request: HttpRequest) -> Response:
        return self._page()

    async def submit(self, request: HttpRequest) -> Response:
        """First the address, then the digits: 303 into the inbox once they are right."""
        form = await read_form(request)
        if not is_from_own_page(request.headers, self._origin):
            return self._page(403, ELSEWHERE)
        address = form.get("address", "").strip().lower()
        if not (3 <= len(address) <= LONGEST_ADDRESS and "@" in address and address.isprintable()):
            return self._page(422, NO_ADDRESS)
        if "code" not in form:
            return self._send(address)
        code_token = form.get("code_token", "")
        match self._codes.check(_binding(address), code_token, form["code"]):
            case "right":
                answer = RedirectResponse(f"{self._root}/inbox", 303)
                self._sessions.begin(answer, address)
                await self._engine.audit("signed_in", who=address)
                return answer
            case "wrong":
                await self._engine.audit("sign_in_refused", who=address)
                return self._page(403, WRONG, address=address, code_token=code_token)
            case _:
                return self._page(403, OVER, address=address)

    async def leave(self, request: HttpRequest) -> Response:
        if not is_from_own_page(request.headers, self._origin):
            return self._page(403, ELSEWHERE)
        answer = RedirectResponse(f"{self._root}/login", 303)
        self._sessions.end(answer)
        return answer

    def _send(self, address: str) -> Response:
        """Give the same page, as fast, for every address; the mail is sent after it."""
        issued = self._codes.issue(_binding(address))
        if issued is None:
            return self._page(429, "We've already sent several codes. Wait an hour, then ask for a new one.")
        code_token, digits = issued
        page = self._page(200, SENT, address=address, code_token=code_token)
        page.background = BackgroundTask(self._mail, address, digits, code_token[-40:])
        return page

    async def _mail(self, address: str, digits: str, delivery_id: str) -> None:
        """Mail the digits to somebody whom we know. The answer is out already, so a failure is only logged."""
        card = Card("", "", "", 0, "waiting", "Sign in to Approvals", Name("", ""), self._engine.now(), "")
        person = self._people.person(address)
        to = ToPerson("email", Person(person.address, person.name, zone=person.zone))
        try:
            if "email" in self._channels and await self._is_known(address):
                await self._channels.send(Dispatch(delivery_id, to, card, "code", CODE_MAIL.format(digits=digits)))
        except Exception as error:  # noqa: BLE001  # neither the store nor a channel breaks an answer that was given
            log.error("%s while a code was mailed", type(error).__name__)

    async def _is_known(self, address: str) -> bool:
        if any(person.address == address for person in self._people.known()):
            return True
        return bool((await self._engine.records(waiting_for=address, is_open=True, limit=1)).records)

    def _page(self, status: int = 200, said: str = "", *, address: str = "", code_token: str = "") -> Response:
        values = {"said": said, "refused": status >= 400, "address": address, "code_token": code_token}
        return self._pages.page("login.html", status, by_mail="email" in self._channels, **values)


def _binding(address: str) -> dict[str, str]:
    return {"login": address}
