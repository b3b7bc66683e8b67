"""`/me`: a person's own page: their time zone, when they are away, keys on pages, and their sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from zoneinfo import available_timezones

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.durable.store.sessions import SessionRow
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from approvals_bot.service.own_people import (
    AbsenceRefused,
    absence_id,
    add_absence,
    current_absences,
    remove_absences,
)
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.form_tokens import NAME
from approvals_bot.web.login import LEFT
from approvals_bot.web.sessions import actor_at
from approvals_bot.web.validation import read_form

STALE = "This page was open too long, so nothing was changed. Check it, then press again."
SAVED = {
    "zone": "Saved. Times are shown in this zone.",
    "away": "Saved. Your delegates are asked in your place on these days.",
    "back": "Removed.",
    "keys": "Saved.",
}
NO_ZONE = "There's no such time zone. Choose one from the list, such as Europe/Berlin."
FRESH = timedelta(minutes=10)  # age of the sign-in that may name a delegate, who gets this person's votes
TOO_OLD = "Nothing was added: to name a delegate, sign in again first. Sign-ins count for that for ten minutes."
METHODS: dict[str, str] = {
    "oidc": "your company account",
    "slack": "Slack",
    "code": "a code by email",
    "proxy": "your company's proxy",
    "playground": "the playground",
}


class _WrongError(ApprovalsBotError):
    """What somebody entered can't be kept; the message says why."""


@cache
def _zones() -> Sequence[str]:
    return sorted(available_timezones())


class MyPage:
    """`/me` and `/me/settings`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people, self._known = desk.engine, desk.people, desk.known
        self._sessions, self._forms, self._login = desk.sessions, desk.forms, desk.login
        self._navigation, self._pages, self._root = desk.navigation, desk.pages, desk.root
        self._own = desk.own

    async def show(self, request: HttpRequest) -> Response:
        session = await self._sessions.find(request)
        if session is None:
            return await self._login.instead_of(request)
        return await self._page(request, session, saved=SAVED.get(request.query_params.get("saved", ""), ""))

    async def sign_out_everywhere(self, request: HttpRequest) -> Response:
        """End all sessions of this person, at every replica: 303 to the page to sign in."""
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        if not self._forms.is_ours(request, "me", form.get(NAME, "")):
            return await self._page(request, session, 403, STALE)
        ended = await self._sessions.sessions.end_all(session.person)
        actor = actor_at(request, session).as_json()
        await self._engine.audit("signed_out_everywhere", who=session.person, actor=actor, data={"sessions": ended})
        answer = RedirectResponse(f"{self._root}/login?{LEFT}=1", 303)
        await self._sessions.end(request, answer)
        return answer

    async def change(self, request: HttpRequest) -> Response:
        """Change what people set themselves: 303 back to the page, or the page with what is wrong."""
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        if not self._forms.is_ours(request, "me", form.get(NAME, "")):
            return await self._page(request, session, 403, STALE)
        before = self._people.own.of(session.person)
        act = form.get("act", "")
        try:
            after = await self._changed(session, before, act, form)
        except (_WrongError, AbsenceRefused) as wrong:
            return await self._page(request, session, 422, str(wrong), form)
        await self._own.change(session.person, after, actor_at(request, session).as_json())
        return RedirectResponse(f"{self._root}/me?saved={act}", 303)

    async def _changed(
        self, session: SessionRow, before: OwnSettings, act: str, form: Mapping[str, str]
    ) -> OwnSettings:
        match act:
            case "zone":
                zone = form.get("zone", "").strip()
                if zone not in _zones():
                    raise _WrongError(NO_ZONE)
                return replace(before, zone=zone)
            case "away":
                delegate = form.get("delegate", "").strip()
                if delegate and self._engine.now() - session.created_at > FRESH:
                    raise _WrongError(TOO_OLD)
                first, last = form.get("first", ""), form.get("last", "")
                return await add_absence(self._engine, before, session.person, first, last, delegate)
            case "back":
                return remove_absences(before, (form.get("absence", ""),))
            case "keys":
                return replace(before, has_keys=form.get("keys") == "on")
            case _:
                raise _WrongError(STALE)

    async def _page(
        self,
        request: HttpRequest,
        session: SessionRow,
        status: int = 200,
        said: str = "",
        form: Mapping[str, str] | None = None,
        saved: str = "",
    ) -> Response:
        person = self._people.person(session.person)
        rows = [
            {"session": row, "method": METHODS.get(row.method, ""), "is_this": row.id == session.id}
            for row in await self._sessions.sessions.list(session.person)
        ]
        own, today = self._people.own.of(session.person), self._engine.now().date()
        others = current_absences(self._people.absences_of(session.person), today)
        values = {
            "person": person,
            "rows": rows,
            "form_token": self._forms.make(request, "me"),
            "said": said,
            "saved": saved,
            "given": form or {},
            "has_keys": own.has_keys,
            "zones": _zones(),
            "away": [(absence_id(each), each, self._names(each)) for each in own.away],
            "others_away": [(each, self._names(each)) for each in others],
        }
        nav = await self._navigation.of(session.person)
        return self._pages.page("me.html", status, nav=nav, here="/me", zone=person.zone, **values)

    def _names(self, absence: Absence) -> list[str]:
        return [self._people.person(one).name for one in absence.delegates]
