"""The page behind a mail's link: GET shows the request, POST decides.

GET and HEAD read and do nothing else, whoever asks and however often: mail scanners open every link. A POST counts only
from the form that the page showed, bound to this request and this person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import cast, get_args
from urllib.parse import urlsplit

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.card import card_of
from approvals_bot.channels import Ask, Card, ChoiceName, Person
from approvals_bot.engine import Engine
from approvals_bot.tokens import Tokens
from approvals_bot.web import votes
from approvals_bot.web.limits import LINK_BODY, whole
from approvals_bot.web.links import Link, Links, decides_the_same, is_same_site
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.render import Pages
from approvals_bot.web.results import result

MOST_FIELDS = 200  # of one form; no workflow asks that many things of an approver

STALE = "This page was open for a long time, so nothing was changed. Have another look, then press again."
NOT_OURS = (
    "This did not come from the request's own page, so nothing was changed. Look at the request, then press again."
)
NO_CHOICE = "No choice came with this form, so nothing was changed. Press one of the buttons."

GONE = ("expired", "withdrawn")


class Decisions:
    """`/decisions/{signed}`."""

    def __init__(
        self,
        *,
        engine: Engine,
        tokens: Tokens,
        pages: Pages,
        metrics: Metrics,
        base_url: str,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._pages = pages
        self._metrics = metrics
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(base_url))
        self._now = now
        self._links = Links(engine=engine, tokens=tokens, now=now)

    async def show(self, request: Request) -> Response:
        """GET: the request as it stands. 410 once it expired or was withdrawn, 404 for every bad link."""
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found()
        said = result(link.view, link.address, request.query_params.get("done", ""), votes.RECEIVED)
        status = 410 if link.view.state in GONE else 200
        return self._page(link, status, said=said or "", chosen=said is not None)

    async def decide(self, request: Request) -> Response:
        """POST: count the choice, then 303 to the page that says so, or the refusal with its sentence."""
        form = await _form(request)
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found()
        if refusal := self._refuse(request, link, form):
            await self._engine.audit(
                "form_refused", who=link.address, run_id=link.hook.run_id, data={"status": refusal.status_code}
            )
            return refusal
        choice = cast(ChoiceName, form["choice"])
        offered = {offer.choice: offer.asks for offer in card_of(link.view, link.address, self._now()).choices}
        vote = _vote(link, choice, form, offered.get(choice, ()))
        verdict = await votes.cast(self._engine, link.hook.hook_id, vote)
        self._metrics.voted(verdict.verdict, "email")
        if verdict.changed:
            return RedirectResponse(f"{link.path}?done={verdict.verdict}", 303)
        return await self._answer(link, choice, verdict, form)

    def _refuse(self, request: Request, link: Link, form: Mapping[str, str]) -> Response | None:
        """The refusal of a form that isn't ours, is too old, or has no choice; None for a good one."""
        if not is_same_site(request.headers, self._origin):
            return self._page(link, 403, said=NOT_OURS, refused=True)
        form_token = form.get("form_token", "")
        if link.hook.is_live:
            if not self._links.is_form_of(link, form_token):
                return self._page(link, 403, said=NOT_OURS, refused=True, values=form)
            if not self._links.is_fresh(form_token):
                return self._page(link, 403, said=STALE, refused=True, values=form)
        # an ended request has no form any more; nothing can change, so saying how it ended needs no proof
        if form.get("choice") not in get_args(ChoiceName):
            return self._page(link, 422, said=NO_CHOICE, refused=True, values=form)
        return None

    async def _answer(
        self, link: Link, choice: ChoiceName, verdict: votes.Verdict, form: Mapping[str, str]
    ) -> Response:
        """The page for a choice that changed nothing, with the request as it stands after it."""
        link = await self._links.open(link.signed) or link
        status = votes.STATUS[verdict.verdict]
        if link.view.state in GONE:
            status = 410
        elif verdict.verdict in ("already_decided", "already_voted") and decides_the_same(choice, link.view.state):
            status = 200
        refused = status >= 400
        return self._page(link, status, said=verdict.text, refused=refused, chosen=not refused, values=form)

    def _page(
        self,
        link: Link,
        status: int,
        *,
        said: str = "",
        refused: bool = False,
        chosen: bool = False,
        values: Mapping[str, str] | None = None,
    ) -> Response:
        """`chosen`: the reader has just decided, so the card comes without the form, with a link to change her mind."""
        person = link.view.people.get(link.address) or Person(link.address, link.address)
        card = card_of(link.view, link.address, self._now())
        return self._pages.page(
            "decision.html",
            status,
            card=card,
            acting=person,
            zone=person.zone,
            action=link.path,
            form_token="" if chosen else self._links.form_token(link),
            said=said,
            refused=refused,
            again=chosen and bool(card.choices),
            values=values or {},
            wrong=_wrong(card, values or {}) if status == 422 else (),
        )

    def _not_found(self) -> Response:
        return self._pages.page("not_found.html", 404)


async def _form(request: Request) -> dict[str, str]:
    """The form's fields; of a repeated one the last, files dropped. Raises Problem 400, 408, 413 or 415."""
    read = await whole(request, LINK_BODY)
    async with read.form(max_files=0, max_fields=MOST_FIELDS) as form:
        return {name: value for name, value in form.items() if not isinstance(value, UploadFile)}


def _vote(link: Link, choice: ChoiceName, form: Mapping[str, str], asks: Sequence[Ask]) -> votes.Vote:
    """The form as a vote. What an `edit` changes of the request are its fields; all else are answers to the stage."""
    filled = {ask.name: _value(ask, form.get(f"{choice}.{ask.name}", "")) for ask in asks}
    given = {name: value for name, value in filled.items() if value}
    editable = {ask.name for ask in link.view.editable} if choice == "edit" else set()
    return votes.Vote(
        by=link.address,
        choice=choice,
        via="email",
        comment=form.get("comment", "").replace("\r\n", "\n").strip(),
        answers={name: value for name, value in given.items() if name not in editable},
        fields={name: value for name, value in given.items() if name in editable},
        digest=form.get("digest") or None,
    )


def _value(ask: Ask, text: str) -> str:
    """What a person typed, "" for a blank; an unticked box sends nothing. The request reads it by its field's type."""
    text = text.replace("\r\n", "\n").strip()
    return (text or "false") if ask.type == "boolean" else text


def _wrong(card: Card, values: Mapping[str, str]) -> tuple[str, ...]:
    """What the chosen act still lacks, as far as the card tells: where the page points at."""
    wrong: list[str] = []
    for choice in card.choices:
        if choice.choice == values.get("choice"):
            if choice.comment == "required" and not values.get("comment", "").strip():
                wrong.append("comment")
            wrong += [ask.name for ask in choice.asks if not values.get(f"{choice.choice}.{ask.name}")]
    return tuple(wrong)
