"""The page behind a mail's link: GET shows the request, POST decides.

GET and HEAD read and do nothing else, whoever asks and however often: mail scanners open every link. A POST counts only
from the form that the page showed, bound to this request, this person and what she was shown. Where the workflow says
`link_auth = "code"`, it also needs the digits that were mailed to her, and without them the page shows no more than the
title: the link may have been forwarded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import cast, get_args
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Reassign, Reply, Word
from approvals_bot.approvals.ballot import have, missing, need, rejections_needed, standing, tally
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import Card, Channels, ChoiceName, Delivered, Dispatch, ToPerson
from approvals_bot.approvals.request import RecordedVote, Request, RequestStage, ballot_of
from approvals_bot.durable.engine import Engine
from approvals_bot.people import Person
from approvals_bot.service.act import RECEIVED, STATUS, asks_herself, perform
from approvals_bot.service.codes import Codes
from approvals_bot.service.links import Link, Links
from approvals_bot.web.forms import act_on_own, change_of, is_from_own_page, lacking, read_form, vote_of
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.render import Renderer, root_of

STALE = "This page was open for a long time, so nothing was changed. Have another look, then press again."
NOT_OURS = (
    "This did not come from the request's own page, so nothing was changed. Look at the request, then press again."
)
NO_CHOICE = "No choice came with this form, so nothing was changed. Press one of the buttons."
WRONG_CODE = (
    "These are not the digits that we sent you, so nothing was changed. Look into the newest mail and try again."
)
CODE_OVER = "This code is too old or was tried too often, so nothing was changed. Let us send you a new one."
NO_MORE_CODES = "We have sent you several codes already. Nothing was changed; wait an hour, then ask for another one."
CODE_NOT_SENT = "The code could not be sent just now. Nothing was changed; try again in a few minutes."
CODE_MAIL = (
    "Your code is {digits}. Enter it within ten minutes, on the page where you asked for it. "
    "If you did not ask for a code, somebody else has your link: tell {requester}."
)

LONGEST_ADDRESS = 320  # characters: 64 before the @, 255 after it
LONGEST_REASON = 500

GONE = ("expired", "withdrawn")


class Decisions:
    """`/decisions/{signed}`."""

    def __init__(
        self,
        *,
        engine: Engine,
        links: Links,
        codes: Codes,
        channels: Channels,
        pages: Renderer,
        metrics: Metrics,
        base_url: str,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._pages = pages
        self._metrics = metrics
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(base_url))
        self._root = root_of(base_url)
        self._now = now
        self._links = links
        self._codes = codes

    async def show(self, request: HttpRequest) -> Response:
        """GET: the request as it stands. 410 once it expired or was withdrawn, 404 for every bad link."""
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found()
        said = result(link.view, link.address, request.query_params.get("done", ""))
        status = 410 if link.view.state in GONE else 200
        return self._page(
            link,
            status,
            said=said or "",
            chosen=said is not None,
            values={
                "code_token": request.query_params.get("code", ""),
                "choice": request.query_params.get("choice", ""),  # shown first, and no more than that
            },
        )

    async def decide(self, request: HttpRequest) -> Response:
        """POST: count the choice, then 303 to the page that says so, or the refusal with its sentence."""
        form = await read_form(request)
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found()
        if refusal := self._refuse(request, link, form):
            status, said = refusal
            await self._audit("form_refused", link, {"status": status})
            return self._page(link, status, said=said, refused=True, values=form)
        if "send_code" in form and link.hook.is_live:
            return await self._send_code(link, form)
        if "look" in form and link.hook.is_live:
            return self._page(link, 200, values=form, proven=True)
        if "hand_over" in form:
            return await self._hand_over(link, form)
        if "own" in form:
            return await self._own(link, form)
        choice = form.get("choice")
        if choice not in get_args(ChoiceName):
            return self._page(link, 422, said=NO_CHOICE, refused=True, values=form, proven=link.hook.is_live)
        return await self._vote(link, cast(ChoiceName, choice), form)

    def _refuse(self, request: HttpRequest, link: Link, form: Mapping[str, str]) -> tuple[int, str] | None:
        """Why this form is not taken: it isn't ours, is too old, or its code isn't right."""
        if not is_from_own_page(request.headers, self._origin):
            return 403, NOT_OURS
        if not link.hook.is_live:
            return None  # there is no form any more; nothing can change, so saying how it ended needs no proof
        form_token = form.get("form_token", "")
        if not self._links.is_form_of(link, form_token):
            return 403, NOT_OURS
        if not self._links.is_fresh(form_token):
            return 403, STALE
        if link.view.link_auth == "code" and "send_code" not in form:
            match self._codes.check(link.binding, form.get("code_token", ""), form.get("code", "")):
                case "wrong":
                    return 403, WRONG_CODE
                case "over":
                    return 403, CODE_OVER
        return None

    async def _vote(self, link: Link, choice: ChoiceName, form: Mapping[str, str]) -> Response:
        shown = self._links.digest_of(form.get("form_token", ""))
        vote = vote_of(link, choice, form, self._card(link), shown)
        reply = await perform(self._engine, link.target, vote)
        self._metrics.voted(reply.verdict, link.via)
        if reply.changed:
            return RedirectResponse(f"{self._root}{link.path}?done={reply.verdict}", 303)
        link = await self._links.open(link.signed) or link
        status = STATUS[reply.verdict]
        if link.view.state in GONE:
            status = 410
        elif reply.verdict in ("already_decided", "already_voted") and decides_the_same(choice, link.view.state):
            status = 200
        refused = status >= 400
        proven = link.hook.is_live
        return self._page(
            link, status, said=reply.text, refused=refused, chosen=not refused, values=form, proven=proven
        )

    async def _hand_over(self, link: Link, form: Mapping[str, str]) -> Response:
        """Somebody else is asked: in the reader's place, or besides her."""
        act = Reassign(
            by=link.address,
            via="email",
            person=form.get("person", "")[:LONGEST_ADDRESS],
            instead_of="" if form["hand_over"] == "reassign" else None,
            reason=form.get("reason", "").strip()[:LONGEST_REASON],
        )
        reply = await perform(self._engine, link.target, act)
        self._metrics.voted(reply.verdict, "email")
        if reply.changed:
            return RedirectResponse(f"{self._root}{link.path}?done={reply.verdict}", 303)
        link = await self._links.open(link.signed) or link
        status = 410 if link.view.state in GONE else STATUS[reply.verdict]
        return self._page(link, status, said=reply.text, refused=True, values=form, proven=link.hook.is_live)

    async def _own(self, link: Link, form: Mapping[str, str]) -> Response:
        """The request is changed or withdrawn by whoever asked for it."""
        reply = await act_on_own(self._engine, link, form)
        self._metrics.voted(reply.verdict, link.via)
        if reply.changed:
            return RedirectResponse(f"{self._root}{link.path}?done={reply.verdict}", 303)
        link = await self._links.open(link.signed) or link
        status = 410 if link.view.state in GONE else STATUS[reply.verdict]
        return self._page(link, status, said=reply.text, refused=True, values=form, proven=link.hook.is_live)

    async def _send_code(self, link: Link, form: Mapping[str, str]) -> Response:
        """Mail new digits to whom the link was made for, and lead to the page that takes them."""
        issued = self._codes.issue(link.binding)
        if issued is None:
            await self._audit("code_refused", link, {})
            return self._page(link, 429, said=NO_MORE_CODES, refused=True, values=form)
        code_token, digits = issued
        card = self._card(link)
        text = CODE_MAIL.format(digits=digits, requester=card.requester.text)
        person = self._person(link)
        to = ToPerson("email", person)
        sent = await self._channels.send(Dispatch(code_token[-40:], to, card, "code", text))
        await self._audit("code_sent", link, {"delivered": isinstance(sent, Delivered)})
        if not isinstance(sent, Delivered):
            return self._page(link, 503, said=CODE_NOT_SENT, refused=True, values=form)
        chosen = form.get("preselected", "")
        also = f"&choice={chosen}" if chosen in get_args(ChoiceName) else ""
        return RedirectResponse(f"{self._root}{link.path}?code={code_token}{also}", 303)

    def _page(
        self,
        link: Link,
        status: int,
        *,
        said: str = "",
        refused: bool = False,
        chosen: bool = False,
        values: Mapping[str, str],
        proven: bool = False,
    ) -> Response:
        """`chosen`: the reader has just decided, so the card comes without the form, with a link to change her mind.
        `proven`: the code that came with the form was checked and is right."""
        card, person = self._card(link), self._person(link)
        code_token = values.get("code_token", "")
        with_code = link.view.link_auth == "code"
        wished = (values.get("choice"), values.get("look"))
        return self._pages.page(
            "decision.html",
            status,
            card=card,
            acting=person,
            zone=person.zone,
            action=link.path,
            form_token="" if chosen else self._links.form_token(link),
            with_code=with_code,
            is_closed=with_code and not proven,
            code=values.get("code", "") if with_code and proven else "",
            code_token=code_token if with_code and self._codes.is_open(link.binding, code_token) else "",
            said=said,
            refused=refused,
            again=chosen and bool(card.choices),
            change=change_of(link.view, link.address),
            may_withdraw=asks_herself(link.view, link.address) and link.hook.is_live,
            values=values,
            preselected=next((offer for offer in card.choices if offer.choice in wished), None),
            wrong=lacking(card, values) if status == 422 else (),
        )

    def _card(self, link: Link) -> Card:
        return card_of(link.view, link.address, self._now())

    def _person(self, link: Link) -> Person:
        return link.view.people.get(link.address) or Person(link.address, link.address)

    async def _audit(self, what: str, link: Link, data: dict[str, object]) -> None:
        await self._engine.audit(what, who=link.address, run_id=link.hook.run_id, data=data)

    def _not_found(self) -> Response:
        return self._pages.page("not_found.html", 404)


# ── What a person reads on the page that their act led to: the reply, from the request as it stands now. Pure. ──

DONE = ("counted", "decided", "changed", "taken_back", "already_voted", "received")
"""Verdicts that lead to the result page."""

CHANGES_REQUESTED = Reply("counted", params={"choice": "changes"})


def result(request: Request, reader: str, done: str) -> str | None:
    """The sentence for this reader. None when they did nothing that fits, as when a link was opened by hand."""
    reply = _result(request, reader, done)
    return reply.text if reply is not None else None


def _result(request: Request, reader: str, done: str) -> Reply | None:
    if done == "edited":
        reset = request.is_open and not any(vote.stands for vote in request.votes)
        return Reply("edited", code="edited_and_reset" if reset else "")
    if done in ("reassigned", "added"):
        return _reassigned(request, reader)
    mine = next((vote for vote in reversed(request.votes) if vote.by == reader), None)
    if done == "received" and mine is None:
        return RECEIVED
    if mine is None or done not in DONE:
        return None
    if done == "taken_back":
        return None if mine.stands else _counted("taken_back", request, mine)
    if not mine.stands:
        return None
    if request.outcome is not None and request.outcome.by == reader:
        return _decided(request)
    return _counted("changed" if done == "changed" else "counted", request, mine)


def _reassigned(request: Request, reader: str) -> Reply | None:
    done = next((each for each in reversed(request.handovers) if each.by == reader), None)
    if done is None:
        return None
    instead_of = request.name(done.instead_of).text if done.instead_of else ""
    params = {"person": request.name(done.person).text, "instead_of": instead_of}
    return Reply("reassigned" if instead_of else "added", params=params)


def _decided(request: Request) -> Reply | None:
    match request.state:
        case "approved":
            return Reply("decided", params={"standing": "filled"})
        case "rejected" | "answered":
            return Reply("decided", params={"standing": request.state})
        case "changes_requested":
            return CHANGES_REQUESTED
    return None


def _counted(word: Word, request: Request, mine: RecordedVote) -> Reply | None:
    if request.held is not None and request.held.by == mine.by:
        return Reply(
            "counted", code="held", params={"outcome": request.held.state.capitalize(), "grace": request.grace}
        )
    if mine.choice == "changes":
        return CHANGES_REQUESTED
    stage = next((stage for stage in request.stages if stage.id == mine.stage), None)
    if stage is None:
        return None
    ballot = ballot_of(request, stage)
    if mine.choice == "reject":
        rejections = sum(vote.stands and vote.choice == "reject" for vote in ballot.votes)
        return Reply(word, params=tally("reject", "open", rejections, rejections_needed(ballot)))
    params = tally(mine.choice, standing(ballot), have(ballot), need(ballot), missing(ballot))
    return Reply(word, params={**params, "next_stage": _following(request, stage)})


def _following(request: Request, stage: RequestStage) -> str:
    """The stage after this one, which may not have been opened yet."""
    if request.stage is not None and request.stage.id != stage.id:
        return request.stage.title
    ahead = [later.title for later in request.stages if later.state == "ahead"]
    return ahead[0] if stage.state == "done" and ahead and request.is_open else ""


def decides_the_same(choice: ChoiceName, state: str) -> bool:
    """Whether a request that ended in this state ended as this choice would have it."""
    return {"approve": "approved", "edit": "approved", "reject": "rejected", "answer": "answered"}.get(choice) == state
