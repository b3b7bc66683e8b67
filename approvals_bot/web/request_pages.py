"""`/requests/{id}`: the card of one request, what its rules say, its timeline, and what its reader can do about it.

People who have signed in decide here, by the form of their own decision page. Whatever decides nothing (comments,
claims, reminders, snoozes) is sent from here by everybody whom the request concerns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Reply, Revoke
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.grants import is_revocable, may_end
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.talk import may_comment, talk_result
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.engine import RunRecord
from approvals_bot.people import Person
from approvals_bot.service.act import is_requester
from approvals_bot.service.history import history_of
from approvals_bot.service.read import requests_of
from approvals_bot.service.revocations import counted_grant
from approvals_bot.service.talk import talk
from approvals_bot.web.decision_forms import change_of, talk_of
from approvals_bot.web.decisions import result
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.links import Link
from approvals_bot.web.pages import PeoplePages
from approvals_bot.web.responses import STATUS, Problem
from approvals_bot.web.run_pages import live_run
from approvals_bot.web.sessions import actor_at
from approvals_bot.web.timeline import draw
from approvals_bot.web.validation import read_form

YOURS = "Your request was sent. You'll be notified of the outcome."
JUST_SENT = timedelta(seconds=15)
"""How long the requester's page confirms that it was sent: the form leads here, at an address as everybody's."""
NOT_OURS = "This form didn't come from the request's own page, so nothing was changed. Load the page again."


@dataclass(frozen=True, slots=True)
class OwnForm:
    """Where somebody's own form of a request is. `may_decide`: the request's page may have it, too."""

    link: Link | None
    may_decide: bool


class RequestPages:
    """`/requests/{id}`, and what decides nothing, below it."""

    def __init__(self, desk: WebDesk, readers: PeoplePages, *, has_evidence: bool) -> None:
        self._engine, self._people, self._links = desk.engine, desk.people, desk.links
        self._sessions, self._forms, self._login = desk.sessions, desk.forms, desk.login
        self._navigation, self._pages = desk.navigation, desk.pages
        self._now, self._root = desk.now, desk.root
        self._readers = readers
        self._has_evidence = has_evidence

    async def show(self, request: HttpRequest) -> Response:
        """Show one request, for those who have to do with it."""
        view = await self._readers.find_visible(request)
        if isinstance(view, Response):
            return view
        if view.run_id != request.path_params["id"].partition(".")[0]:  # that run was reset
            return RedirectResponse(view.id, 303)
        reader, done = await self._sessions.who(request), request.query_params.get("done", "")
        if reader is None:
            return await self._page(request, view, reader)
        talked, voted = talk_result(view, reader, done, self._now()), result(view, reader, done)
        is_just_sent = view.is_open and reader == view.requester and self._now() - view.asked_at < JUST_SENT
        if is_just_sent and not done:
            said = YOURS
        else:
            said = voted or (talked.text if talked is not None else "")
        return await self._page(request, view, reader, said=said, is_vote=voted is not None)

    async def talk(self, request: HttpRequest) -> Response:
        """Comment, claim, remind or snooze: 303 to the request's page, or the page with why nothing was changed."""
        view = await self._readers.find_visible(request)
        if isinstance(view, Response):
            return view
        session, form = await self._sessions.find(request), await read_form(request)
        if session is None:
            return await self._login.instead_of(request)
        if not self._forms.is_ours(request, "talk", form.get("form_token", "")):
            raise Problem(403, "Not from the request's page", NOT_OURS)
        act = talk_of(self._engine, session.person, "inbox", form)
        if isinstance(act, Revoke):
            act = replace(act, operates=await self._readers.is_operator(session.person))
        actor = actor_at(request, session)
        reply = act if isinstance(act, Reply) else await talk(self._engine, view, replace(act, actor=actor))
        if reply.changed:
            query = urlencode({"done": reply.verdict})
            return RedirectResponse(f"{self._root}/requests/{view.id}?{query}", 303)
        status = STATUS[reply.verdict]
        return await self._page(request, view, session.person, status, said=reply.text, refused=True, values=form)

    async def _page(
        self,
        request: HttpRequest,
        view: Request,
        reader: str | None,
        status: int = 200,
        *,
        said: str = "",
        refused: bool = False,
        is_vote: bool = False,
        values: dict[str, str] | None = None,
    ) -> Response:
        card, person = card_of(view, reader, self._now()), self._people.person(reader) if reader else None
        own = await self._own_form(view, reader)
        lacks_revoke = view.grant is not None and is_revocable(view.grant) and "revoke" not in card.talk
        if reader and lacks_revoke and await self._readers.may_end_grant(view, reader):
            card = replace(card, talk=("revoke", *card.talk))
        record, log = await self._engine.read(view.run_id)
        extension = _open_extension(record, view)
        if extension is not None:  # one at a time
            card = replace(card, talk=tuple(name for name in card.talk if name != "extend"))
        counted = None if view.standing is None else await counted_grant(self._engine, view.standing)
        if view.standing is not None and view.grant is None:
            card = replace(card, talk=())
        is_covering = counted is not None and counted.state(self._now()) == "active" and "revoke" not in card.talk
        if reader and is_covering and (may_end(view, reader) or await self._readers.may_end_grant(view, reader)):
            card = replace(card, talk=("revoke", *card.talk))
        may_talk = card.talk and reader and (may_comment(view, reader) or "revoke" in card.talk)
        nav = await self._navigation.of(reader)
        return self._pages.page(
            "request.html",
            status,
            nav=nav,
            here="",
            zone=person.zone if person is not None else "UTC",
            live=live_run(view.run_id) if status == 200 else "",
            card=card if reader is not None else card_of(view, None, self._now()),
            files=f"/requests/{view.id}/files/",
            run_id=view.run_id,
            acting=person,
            evidence=self._has_evidence,
            said=said,
            refused=refused,
            is_vote=is_vote,
            values=values or {},
            talk_path=f"/requests/{view.id}/talk",
            talk_token=self._forms.make(request, "talk") if may_talk else "",
            counted=counted,
            extension=extension,
            now=self._now(),
            **self._decision(view, card, person, own),
            **self._history(view, record, log),
        )

    async def _own_form(self, view: Request, reader: str | None) -> OwnForm:
        """Find the reader's own form. Where a vote needs more than a session, it is on their own page alone."""
        path = await self._links.inbox_path(view, reader) if reader else ""
        link = await self._links.open(path.rpartition("/")[2]) if path else None
        is_live = link is not None and view.is_open and link.target.hook.is_live
        return OwnForm(link, is_live and view.link_auth == "link")

    def _decision(self, view: Request, card: Card, person: Person | None, own: OwnForm) -> dict[str, Any]:
        link = own.link
        is_own = link is not None and view.is_open and is_requester(view, link.address) and link.target.hook.is_live
        return {
            "decide": link.path if link is not None else "",
            "in_place": own.may_decide,
            "form_token": self._links.form_token(link) if link is not None and own.may_decide else "",
            "may_withdraw": is_own,
            "change": change_of(view, link.address) if link is not None else None,
            "is_hers": is_own and not card.choices,
        }

    def _history(self, view: Request, record: RunRecord, log: Sequence[Event]) -> dict[str, Any]:
        history = history_of(log, requests={view.hook_id: view.title})
        explained = explain(view)
        names = {each["person"]: view.name(each["person"]).text for each in explained["waiting_for"]}
        return {
            "drawing": draw(history.spans, start=record.created_at, end=record.ended_at or self._now()),
            "started": record.created_at,
            "ended": record.ended_at,
            "rules": [rule for rule in explained["rules"] if rule["rule"] or rule["because"]],
            "reasons": [each | {"name": names[each["person"]]} for each in explained["waiting_for"]],
            "coming": [
                each | {"at": datetime.fromisoformat(each["at"].replace("Z", "+00:00"))} for each in explained["next"]
            ],
        }


def _open_extension(record: RunRecord, view: Request) -> Request | None:
    """Return the request by which this one's grant may last longer, while nobody has decided it."""
    if view.grant is None:
        return None
    return next((one for one in requests_of(record) if one.extends and one.is_open), None)
