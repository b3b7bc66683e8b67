"""Signing in to the pages for people: an address, a six-digit code by mail, and a session.

There are no passwords and no accounts: anybody who can read an address's mail is its person, as everywhere in this
service. The answer doesn't reveal whether an address is known; codes go only to people whom somebody knows now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.card_model import Card, Name
from approvals_bot.approvals.port import Channels, Dispatch, ToPerson
from approvals_bot.config.login import Method
from approvals_bot.durable.engine import Engine
from approvals_bot.people import AddressError, People, Person, SourceUnavailable
from approvals_bot.service.audited import AuditedRefusals
from approvals_bot.service.codes import Codes
from approvals_bot.service.known import KnownPeople
from approvals_bot.web.form_tokens import NAME as FORM_TOKEN
from approvals_bot.web.form_tokens import FormTokens
from approvals_bot.web.guard import audited_peer_of, peer_of
from approvals_bot.web.responses import Renderer, root_of
from approvals_bot.web.sessions import SessionCookies, actor_at
from approvals_bot.web.validation import read_form

log = logging.getLogger(__name__)

FREE = frozenset(("over", "too_many", "state", "too_late", "too_many_attempts", "no_answer"))
"""Why a sign-in is refused before it counts as an attempt: anybody may send any number of those."""

PROVING: tuple[Method, ...] = ("oidc", "code")
"""The methods that prove a sign-in of just now. Slack and a proxy may have remembered the person."""

LONGEST_NEXT = 1_000  # characters of the page that people come back to

SENT = "If we know this address, we've emailed it a six-digit code. It's valid for ten minutes."
WRONG = "That's not the code we sent you. Check the newest email and try again."
OVER = "This code has expired, was used, or was tried too often. Ask for a new one."
TOO_MANY = "There were too many wrong codes for this address from here. Wait an hour, or use another way to sign in."
NO_MORE_CODES = "We've already sent several codes. Wait an hour, then ask for a new one."
NO_ADDRESS = "Enter your email address, like ann@acme.eu."
LEFT = "signed-out"  # in the query of the page that signing out leads to
SIGNED_OUT = "You're signed out."
ELSEWHERE = "This form didn't come from our own page, so nobody was signed in. Try again here."
CODE_MAIL = (
    "Your code is {digits}. Enter it within ten minutes on the page where you asked for it. "
    "If you didn't ask for it, someone else typed in your address. Nobody got in, and you don't need to do anything."
)


class LoginPage:
    """The page to sign in, with each method that there is."""

    def __init__(
        self,
        pages: Renderer,
        methods: Sequence[Method],
        forms: FormTokens,
        *,
        provider: str = "",
        trying: Sequence[Person] = (),
    ) -> None:
        """`provider`: where people sign in with OpenID Connect, as they know it: `id.acme.eu`.

        `trying`: the people that a developer may be, on their own machine, without signing in.
        """
        self._pages = pages
        self._methods = methods
        self._forms = forms
        self._provider = provider
        self._trying = trying

    def show(self, request: HttpRequest, status: int = 200, said: str = "", **values: Any) -> Response:
        form_token, secret = self._forms.make_first(request)
        shown = {"said": said, "refused": status >= 400 and bool(said), "address": "", "code_token": "", "next": ""}
        shown |= {"methods": self._methods, "provider": self._provider, "again": False, "form_token": form_token}
        shown["trying"] = self._trying
        if values.get("again"):
            shown["methods"] = [method for method in self._methods if method in PROVING]
        page = self._pages.page("login.html", status, **shown | values)
        self._forms.keep(page, secret)
        return page

    def refused(self, status: int = 403) -> Response:
        return self._pages.page("not_signed_in.html", status)


def own_path(text: str) -> str:
    """Return this path if it is one of ours, for after signing in; else ""."""
    is_ours = text.startswith("/") and not text.startswith("//") and text.isascii() and text.isprintable()
    return text if is_ours and not set('\\" <>') & set(text) and len(text) <= LONGEST_NEXT else ""


class Login:
    """`/login`, `/logout`."""

    def __init__(
        self,
        *,
        engine: Engine,
        people: People,
        known: KnownPeople,
        channels: Channels,
        codes: Codes,
        sessions: SessionCookies,
        page: LoginPage,
        forms: FormTokens,
        base_url: str,
        counted: Callable[[str, str], None],
    ) -> None:
        """`counted`: called with the method and the outcome of each sign-in, for the metrics."""
        self._engine = engine
        self._people = people
        self._known = known
        self._channels = channels
        self._sessions = sessions
        self._page = page
        self._forms = forms
        self._counted = counted
        self._root = root_of(base_url)
        self._codes = codes
        self._audited = AuditedRefusals(engine.now)

    async def show(self, request: HttpRequest) -> Response:
        again, is_left = "again" in request.query_params, LEFT in request.query_params
        said = SIGNED_OUT if is_left and await self._sessions.who(request) is None else ""
        return self._page.show(request, 200, said, next=own_path(request.query_params.get("next", "")), again=again)

    async def instead_of(self, request: HttpRequest) -> Response:
        """Return what a page shows without a session: 401, and the way back to it.

        Where a proxy has signed the person in, their session begins, and the page comes.
        """
        query = f"?{request.url.query}" if request.url.query else ""
        back = own_path(request.scope["path"] + query) if request.method == "GET" else ""
        person = await self._sessions.named_by_proxy(request) if request.method == "GET" else None
        if person is not None:
            return await self.sign_in(request, person, "proxy", back, proved=False)
        return self._page.show(request, 401, next=back)

    def and_back(self, request: HttpRequest, path: str, said: str = "") -> Response:
        """Return the page to sign in, which leads to this path of ours afterwards. `said`: why they sign in again."""
        return self._page.show(request, 401, said, next=own_path(path), again=bool(said))

    async def submit(self, request: HttpRequest) -> Response:
        """First the address, then the digits: 303 into the inbox, or back to the page that was asked for."""
        form = await read_form(request)
        back = own_path(form.get("next", ""))
        if not self._forms.is_ours(request, "login", form.get(FORM_TOKEN, "")):
            return self._page.show(request, 403, ELSEWHERE, next=back)
        try:
            address = self._people.canonical(form.get("address", "").strip())
        except AddressError:
            return self._page.show(request, 422, NO_ADDRESS, next=back)
        if "code" not in form:
            return await self._send(request, address, back)
        code_token = form.get("code_token", "")
        checked = await self._codes.check(_binding(address), code_token, form["code"], address, peer_of(request.scope))
        if checked == "right":
            return await self.sign_in(request, address, "code", back, proved=True)
        await self._audit_refusal("code", checked, audited_peer_of(request.scope), address)
        match checked:
            case "wrong":
                return self._page.show(request, 403, WRONG, address=address, code_token=code_token, next=back)
            case "too_many":
                return self._page.show(request, 429, TOO_MANY, address=address, next=back)
            case _:
                return self._page.show(request, 403, OVER, address=address, next=back)

    async def sign_in(self, request: HttpRequest, person: str, method: Method, back: str, *, proved: bool) -> Response:
        """Begin the session of a person whose address is certain. Only known people get in.

        `proved`: whether they proved it just now; a provider may have remembered them.
        Raises SourceUnavailable if that can't be known now: then nobody gets in.
        """
        peer = audited_peer_of(request.scope)
        try:
            is_known = await self._known.may_sign_in(self._engine, person)
        except SourceUnavailable:
            await self._audit_refusal(method, "source_unavailable", peer, person)
            raise
        if not is_known:
            return await self.refuse(method, "unknown", peer, person)
        answer = RedirectResponse(f"{self._root}{back or '/inbox'}", 303)
        await self.begin(request, answer, person, method, proved=proved)
        return answer

    async def begin(self, request: HttpRequest, answer: Response, person: str, method: str, *, proved: bool) -> None:
        """Begin the session of a person who may sign in, and put it into the audit."""
        session = await self._sessions.begin(request, answer, person, method, proved=proved)
        actor = Actor("person", person, session=session, peer=audited_peer_of(request.scope)).as_json()
        await self._engine.audit("signed_in", who=person, actor=actor, data={"method": method})
        self._counted(method, "signed_in")

    async def refuse(self, method: Method, because: str, peer: str, person: str = "") -> Response:
        """Return the one page of all failures; the audit has the cause."""
        await self._audit_refusal(method, because, peer, person)
        return self._page.refused(503 if because == "no_answer" else 403)

    def refuse_method(self, request: HttpRequest) -> Response:
        """Return what a method shows that isn't there: the page with those that are."""
        return self._page.show(request, 404)

    async def _audit_refusal(self, method: Method, because: str, peer: str, person: str) -> None:
        self._counted(method, because)
        said = {"event": "login_refused", "target": method, "outcome": because}
        if because == "no_answer":
            log.warning(
                "a sign-in failed, because the identity provider doesn't answer. Check [login.%s], and run "
                "`approvals-bot doctor`",
                method,
                extra=said,
            )
        else:
            log.info("a sign-in was refused (%s)", because, extra=said)
        if because in FREE and not self._audited.has_room(peer):
            return
        actor = Actor("person", person, peer=peer).as_json()
        data = {"method": method, "because": because}
        await self._engine.audit("sign_in_refused", who=person or None, actor=actor, data=data)

    async def leave(self, request: HttpRequest) -> Response:
        form = await read_form(request)
        if not self._forms.is_ours(request, "logout", form.get(FORM_TOKEN, "")):
            return self._page.show(request, 403, ELSEWHERE)
        answer = RedirectResponse(f"{self._root}/login?{LEFT}=1", 303)
        await self.sign_out(request, answer)
        return answer

    async def sign_out(self, request: HttpRequest, answer: Response) -> None:
        """End this browser's session, if it has one."""
        ended = await self._sessions.end(request, answer)
        if ended is not None:
            await self._engine.audit("signed_out", who=ended.person, actor=actor_at(request, ended).as_json())

    async def _send(self, request: HttpRequest, address: str, back: str) -> Response:
        """Give the same page, as fast, for every address; the mail is sent after it."""
        issued = await self._codes.issue(_binding(address), address, peer_of(request.scope))
        if issued is None:
            return self._page.show(request, 429, NO_MORE_CODES, next=back)
        code_token, digits = issued
        page = self._page.show(request, 200, SENT, address=address, code_token=code_token, next=back)
        page.background = BackgroundTask(self._mail, address, digits, code_token[-40:])
        return page

    async def _mail(self, address: str, digits: str, delivery_id: str) -> None:
        """Mail the digits to somebody whom we know. The answer is out already, so a failure is only logged."""
        card = Card("", "", "", 0, "waiting", "Sign in to Approvals", Name("", ""), self._engine.now(), "")
        person = self._people.person(address)
        to = ToPerson("email", replace(person, slack=None))
        try:
            if "email" in self._channels and await self._known.may_sign_in(self._engine, address):
                await self._channels.send(Dispatch(delivery_id, to, card, "code", CODE_MAIL.format(digits=digits)))
        except Exception as error:  # noqa: BLE001  # neither the store nor a channel breaks an answer that was given
            log.error("%s while a code was mailed", type(error).__name__)


def _binding(address: str) -> dict[str, str]:
    return {"login": address}
