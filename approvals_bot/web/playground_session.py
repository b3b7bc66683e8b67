"""`POST /playground/session`: on a developer's machine, you sign in as any person of the configuration, without a code.

Only `dev` has this route. It takes no caller from another machine, and no form of another site's page.
"""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.config.hosts import is_loopback
from approvals_bot.people import AddressError
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.guard import peer_of
from approvals_bot.web.login import own_path
from approvals_bot.web.responses import JsonResponse, Problem, origin_of
from approvals_bot.web.validation import LINK_BODY, StrictBody, is_from_own_page, json_object, read_form, validate

METHOD = "playground"  # how the session says that it began
ELSEWHERE = "Sessions begin here only from this machine, and from this service's own pages."
NOBODY = "Nobody in the configuration has this address, so nobody was signed in."


class PersonBody(StrictBody):
    """Who to be: an address; "" signs out."""

    person: str = Field(max_length=320)


class PlaygroundSession:
    """`/playground/session`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._people = desk.engine, desk.people
        self._known, self._login = desk.known, desk.login
        self._origin, self._root = origin_of(desk.base_url), desk.root

    async def change(self, request: HttpRequest) -> Response:
        """Sign in as a person, or out: 200 for JSON; for a form, 303 to the page it names in `next`."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            form = await read_form(request)
            return await self._changed(request, form.get("person", ""), own_path(form.get("next", "")))
        try:
            body = validate(PersonBody, await json_object(request, LINK_BODY))
            return await self._changed(request, body.person, None)
        except Problem as refused:  # the paths of the playground answer people, but this caller is a program
            return refused.response()

    async def _changed(self, request: HttpRequest, wanted: str, back: str | None) -> Response:
        """`back`: where a form leads; None for a program."""
        if not (is_loopback(peer_of(request.scope)) and is_from_own_page(request.headers, self._origin)):
            raise Problem(403, "Not signed in", ELSEWHERE)
        if not wanted:
            answer = self._answer("", back)
            await self._login.sign_out(request, answer)
            return answer
        try:
            person = self._people.canonical(wanted.strip())
        except AddressError:
            raise Problem(422, "Not signed in", NOBODY) from None
        if not await self._known.may_sign_in(self._engine, person):
            raise Problem(404, "Not signed in", NOBODY)
        answer = self._answer(person, back)
        await self._login.begin(request, answer, person, METHOD, proved=True)
        return answer

    def _answer(self, person: str, back: str | None) -> Response:
        if back is None:
            return JsonResponse({"person": person, "name": self._people.person(person).name if person else ""})
        return RedirectResponse(f"{self._root}{back or ('/inbox' if person else '/playground')}", 303)
