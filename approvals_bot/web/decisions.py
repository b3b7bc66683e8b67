"""The page behind a mail's link: GET shows the request, POST decides.

GET and HEAD read and do nothing else, however often: mail scanners open every link. A POST counts only
from the form that the page showed, bound to this request, this person and what they were shown. Where the workflow says
`link_auth = "code"`, it also needs the digits that were mailed to them, and without them the page shows no more than
the title: the link may have been forwarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import cast, get_args

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from approvals_bot.approvals.acts import Act, Actor, Reply, Revoke, Vote, Word
from approvals_bot.approvals.ballot import rejections_needed, tally, tally_of
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_model import Card, ChoiceName
from approvals_bot.approvals.next_calls import with_next_calls
from approvals_bot.approvals.port import Delivered, Dispatch, ToPerson
from approvals_bot.approvals.request import RecordedVote, Request, RequestStage
from approvals_bot.approvals.talk import talk_result
from approvals_bot.people import Person
from approvals_bot.service.act import PUT_BACK, is_requester, perform, received
from approvals_bot.service.audited import audit_refusal
from approvals_bot.service.talk import talk
from approvals_bot.web.decision_forms import (
    UNFIT,
    change_of,
    input_of,
    missing_inputs,
    own_act_of,
    reassignment_of,
    talk_of,
    unused_edit,
    vote_of,
)
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.guard import audited_peer_of, peer_of
from approvals_bot.web.links import Link, ShownForm
from approvals_bot.web.responses import STATUS, origin_of
from approvals_bot.web.validation import is_from_own_page, read_form

STALE = "This page was open too long, so nothing was changed. Check the request, then press again."
NOT_OURS = (
    "This form didn't come from the request's own page, so nothing was changed. Check the request, then press again."
)
NO_CHOICE = "No choice was sent, so nothing was changed. Press one of the buttons."
EDITED_BUT_APPROVED = (
    "You changed values, but pressed Approve, which would approve the old ones. Nothing was changed. "
    "To approve your values, press “{edit}” below them; to approve the old ones, open this page again."
)
WRONG_CODE = "That's not the code we sent you, so nothing was changed. Check the newest email and try again."
SIGN_IN_FIRST = "This request needs a new sign-in, so nothing was changed. Sign in, then decide."
CODE_OVER = "This code has expired, was used, or was tried too often, so nothing was changed. Ask for a new one."
TOO_MANY_CODES = "There were too many wrong codes from here, so nothing was changed. Wait an hour, then try again."
NO_MORE_CODES = "We've already sent you several codes. Nothing was changed. Wait an hour, then ask for a new one."
CODE_NOT_SENT = "We couldn't send the code. Nothing was changed. Try again in a few minutes."
CODE_MAIL = (
    "Your code is {digits}. Enter it within ten minutes on the page where you asked for it. "
    "If you didn't ask for a code, someone else has your link: let {requester} know."
)


ON_REQUEST = "page"  # in the address of a form on the request's page: what comes of it is shown there

GONE = ("expired", "withdrawn", "cancelled", "failed")


class Decisions:
    """`/decisions/{signed}`."""

    def __init__(self, desk: WebDesk) -> None:
        self._engine, self._channels, self._metrics = desk.engine, desk.channels, desk.metrics
        self._links, self._codes, self._refused = desk.links, desk.codes, desk.refused
        self._sessions, self._navigation, self._pages = desk.sessions, desk.navigation, desk.pages
        self._origin, self._root, self._now = origin_of(desk.base_url), desk.root, desk.now

    async def show(self, request: HttpRequest) -> Response:
        """GET: the request as it is now. 410 once it ended undecided, 404 for every bad link."""
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found(request)
        done = request.query_params.get("done", "")
        said = result(link.view, link.address, done)
        talked = talk_result(link.view, link.address, done, self._now())
        status = 410 if link.view.state in GONE else 200
        return await self._page(
            request,
            link,
            status,
            said=said or (talked.text if talked is not None else ""),
            chosen=said is not None,
            proven=link.view.link_auth == "login" and await self._has_signed_in(request, link),
            values={
                "code_token": request.query_params.get("code", ""),
                "choice": request.query_params.get("choice", ""),  # shown first, and no more than that
            },
        )

    async def find_shown(self, request: HttpRequest) -> Request | Response:
        """Return the request behind a link, if its page would show all of it; else the page that the reader gets."""
        link = await self._links.open(request.path_params["signed"])
        if link is None:
            return self._not_found(request)
        if link.view.link_auth == "link":
            return link.view
        if link.view.link_auth == "login" and await self._has_signed_in(request, link):
            return link.view
        return await self._page(request, link, 403, values={})

    async def decide(self, request: HttpRequest) -> Response:
        """POST: count the choice, then 303 to the page that says so, or the refusal with its sentence."""
        form = await read_form(request)
        link = await self._links.open(request.path_params["signed"])
        if link is None and await self._links.is_lost(request.path_params["signed"], form.get("form_token", "")):
            return self._pages.page("error.html", 409, title="The request has changed", detail=PUT_BACK.text)
        if link is None:
            return self._not_found(request)
        shown = self._links.shown_form(link, form.get("form_token", ""))
        refusal, proof = await self._examine(request, link, form, shown)
        form = {name: text for name, text in form.items() if name not in ("code", "proof")} | {"proof": proof}
        if refusal is not None:
            status, said = refusal
            await self._audit_refusal(request, "form_refused", link, {"status": status})
            return await self._page(request, link, status, said=said, refused=True, values=form)
        if "send_code" in form and link.target.hook.is_live:
            return await self._send_code(request, link, form)
        if "look" in form and link.target.hook.is_live:
            return await self._page(request, link, 200, values=form, proven=True)
        if "reassign" in form:
            return await self._perform(request, link, reassignment_of(link, form), form)
        if "talk" in form:
            return await self._talk(request, link, form)
        if "own" in form:
            return await self._perform(request, link, own_act_of(link, form), form)
        choice = "approve" if "next_calls" in form else form.get("choice")
        if choice not in get_args(ChoiceName):
            return await self._page(
                request, link, 422, said=NO_CHOICE, refused=True, values=form, proven=link.target.hook.is_live
            )
        if choice == "approve" and (offer := unused_edit(link, self._card(link), form)) is not None:
            said = EDITED_BUT_APPROVED.format(edit=offer.short)
            return await self._page(
                request,
                link,
                422,
                said=said,
                refused=True,
                values={**form, "choice": "edit"},
                proven=link.target.hook.is_live,
            )
        digest, text = (None, "") if shown is None else (shown.digest, self._links.text_shown(link, shown))
        vote = vote_of(link, cast(ChoiceName, choice), form, digest)
        ready = with_next_calls(vote, link.view, form) if "next_calls" in form else vote
        if isinstance(ready, Reply):
            return await self._said(request, link, vote, ready, form)
        return await self._perform(request, link, ready, form, text, None if shown is None else shown.state)

    async def _has_signed_in(self, request: HttpRequest, link: Link) -> bool:
        """Return whether the person of this link has signed in in this browser lately, and was asked for it."""
        session = await self._sessions.find(request)
        if session is None or session.person != link.address or not session.proved:
            return False
        return self._now() - session.created_at <= timedelta(seconds=link.view.max_age)

    async def _examine(
        self, request: HttpRequest, link: Link, form: Mapping[str, str], shown: ShownForm | None
    ) -> tuple[tuple[int, str] | None, str]:
        """Return why this form is not taken (it isn't ours, is too old, or its code isn't right), and its proof.

        The proof stands for the code, which counts once: it goes into the following form.
        """
        if not is_from_own_page(request.headers, self._origin, has_token=shown is not None):
            return (403, NOT_OURS), ""
        if not link.target.hook.is_live:
            return None, ""  # there is no form any more; nothing can change, so saying how it ended needs no proof
        if shown is None:
            return (403, NOT_OURS), ""
        if not shown.is_fresh:
            return (403, STALE), ""
        if link.view.link_auth == "login" and not await self._has_signed_in(request, link):
            return (403, SIGN_IN_FIRST), ""
        if link.view.link_auth != "code" or "send_code" in form:
            return None, ""
        if self._codes.is_proven(link.binding, form.get("proof", "")):
            return None, form["proof"]
        given = (form.get("code_token", ""), form.get("code", ""))
        match await self._codes.check(link.binding, *given, link.address, peer_of(request.scope)):
            case "right":
                return None, self._codes.prove(link.binding)
            case "wrong":
                return (403, WRONG_CODE), ""
            case "too_many":
                return (429, TOO_MANY_CODES), ""
            case _:
                return (403, CODE_OVER), ""

    async def _perform(
        self,
        request: HttpRequest,
        link: Link,
        act: Act,
        form: Mapping[str, str],
        shown: str = "",
        state: str | None = None,
    ) -> Response:
        """Do it: 303 to the page that says so; else the page again, with why nothing was changed."""
        act = replace(act, actor=await self._actor(request, link))
        reply = await perform(self._engine, link.target, act, shown=shown, state=state)
        return await self._said(request, link, act, reply, form)

    async def _talk(self, request: HttpRequest, link: Link, form: Mapping[str, str]) -> Response:
        """Do what decides nothing, and show the page that says so."""
        act = talk_of(self._engine, link.address, link.via, form)
        if isinstance(act, Reply):
            return await self._page(
                request, link, 422, said=act.text, refused=True, values=form, proven=link.target.hook.is_live
            )
        if isinstance(act, Revoke) and not link.target.hook.is_live:  # whose form would have had no proof
            return await self._page(request, link, 403, said=NOT_OURS, refused=True, values=form)
        reply = await talk(self._engine, link.view, replace(act, actor=await self._actor(request, link)))
        return await self._said(request, link, act, reply, form)

    async def _said(
        self, request: HttpRequest, link: Link, act: Act, reply: Reply, form: Mapping[str, str]
    ) -> Response:
        """Answer with the reply: 303 if something was changed."""
        self._metrics.voted(reply.verdict, act.via)
        if reply.changed:
            path = f"/requests/{link.view.id}" if ON_REQUEST in request.query_params else link.path
            return RedirectResponse(f"{self._root}{path}?done={reply.verdict}", 303)
        link = await self._links.open(link.signed) or link
        status, refused = _status(reply, act, link.view)
        inputs = {field.name for choice in self._card(link).choices for field in choice.asks}
        faults = {input_of(each, inputs): each.text for each in reply.rejections if each.path}
        return await self._page(
            request,
            link,
            status,
            said=UNFIT if faults and inputs.issuperset(faults) else reply.text,
            refused=refused,
            chosen=not refused,
            values=form,
            proven=link.target.hook.is_live,
            faults=faults,
        )

    async def _send_code(self, request: HttpRequest, link: Link, form: Mapping[str, str]) -> Response:
        """Mail new digits to the person of this link, and lead to the page that takes them."""
        issued = await self._codes.issue(link.binding, link.address, peer_of(request.scope))
        if issued is None:
            await self._audit_refusal(request, "code_refused", link, {})
            return await self._page(request, link, 429, said=NO_MORE_CODES, refused=True, values=form)
        code_token, digits = issued
        card = self._card(link)
        text = CODE_MAIL.format(digits=digits, requester=card.requester.text)
        person = self._person(link)
        to = ToPerson("email", person)
        sent = await self._channels.send(Dispatch(code_token[-40:], to, card, "code", text))
        await self._engine.audit(
            "code_sent",
            who=link.address,
            actor=(await self._actor(request, link)).as_json(),
            run_id=link.target.hook.run_id,
            data={"delivered": isinstance(sent, Delivered)},
        )
        if not isinstance(sent, Delivered):
            return await self._page(request, link, 503, said=CODE_NOT_SENT, refused=True, values=form)
        chosen = form.get("preselected", "")
        also = f"&choice={chosen}" if chosen in get_args(ChoiceName) else ""
        return RedirectResponse(f"{self._root}{link.path}?code={code_token}{also}", 303)

    async def _page(
        self,
        request: HttpRequest,
        link: Link,
        status: int,
        *,
        said: str = "",
        refused: bool = False,
        chosen: bool = False,
        values: Mapping[str, str],
        proven: bool = False,
        faults: Mapping[str, str] | None = None,
    ) -> Response:
        """Show the page of this link.

        `chosen`: the reader has just decided, so the card comes without the form, with a link to decide otherwise.
        `proven`: the code that came with the form was checked and is right. `faults`: what is wrong, by the input.
        """
        card, person = self._card(link), self._person(link)
        code_token = values.get("code_token", "")
        with_code, with_login = link.view.link_auth == "code", link.view.link_auth == "login"
        is_theirs = await self._is_signed_in(request, link)
        is_on_request = is_theirs and ON_REQUEST in request.query_params
        has_menu = is_on_request or (is_theirs and link.via == "inbox")
        wished = (values.get("choice"), values.get("look"))
        return self._pages.page(
            "decision.html",
            status,
            card=card,
            # a code is proved by a form, and a link can't carry it: the file is for people who have signed in
            files=f"/requests/{link.view.id}/files/" if with_code else f"{link.path}/files/",
            acting=person,
            zone=person.zone,
            action=f"{link.path}?{ON_REQUEST}=request" if is_on_request else link.path,
            nav=await self._navigation.of(link.address) if has_menu else (),
            form_token="" if chosen else self._links.form_token(link),
            with_code=with_code,
            with_login=with_login,
            is_closed=(with_code or with_login) and not proven,
            is_from_inbox=link.via == "inbox",
            is_on_request=is_on_request,
            proof=values.get("proof", "") if with_code and proven else "",
            code_token=code_token if with_code and self._codes.is_open(link.binding, code_token) else "",
            said=said,
            refused=refused,
            again=chosen and bool(card.choices),
            change=change_of(link.view, link.address),
            may_withdraw=link.view.is_open and is_requester(link.view, link.address) and link.target.hook.is_live,
            values=values,
            preselected=next((offer for offer in card.choices if offer.choice in wished), None),
            wrong={**dict.fromkeys(missing_inputs(card, values), ""), **(faults or {})} if status == 422 else {},
        )

    async def _is_signed_in(self, request: HttpRequest, link: Link) -> bool:
        return await self._sessions.who(request) == link.address

    def _card(self, link: Link) -> Card:
        card = card_of(link.view, link.address, self._now())
        return card if link.target.hook.is_live else replace(card, talk=())  # an allowance ends on the request's page

    def _person(self, link: Link) -> Person:
        return link.view.people.get(link.address) or Person(link.address, link.address)

    async def _actor(self, request: HttpRequest, link: Link) -> Actor:
        """Return who acts behind this link: in a session, if it was found in one or asks for one."""
        peer = audited_peer_of(request.scope)
        if link.via == "email" and link.view.link_auth != "login":
            return Actor("mail", link.address, peer=peer)
        session = await self._sessions.find(request)
        is_theirs = session is not None and session.person == link.address
        id = session.id if session is not None and is_theirs else ""
        return Actor("mail" if link.via == "email" else "person", link.address, session=id, peer=peer)

    async def _audit_refusal(self, request: HttpRequest, what: str, link: Link, data: dict[str, object]) -> None:
        """Write that something of this link was refused. Its holder may send any number of those."""
        actor = (await self._actor(request, link)).as_json()
        run_id = link.target.hook.run_id
        await audit_refusal(self._engine, what, who=link.address, actor=actor, run_id=run_id, data=data)

    def _not_found(self, request: HttpRequest) -> Response:
        self._refused.refuse(request.scope)
        return self._pages.page("not_found.html", 404)


# The reply on the page that an act led to, from the request as it is now. Pure.

DONE = ("counted", "decided", "changed", "taken_back", "already_voted", "received")
"""Verdicts that lead to the result page."""

CHANGES_REQUESTED = Reply("counted", params={"choice": "changes"})


def result(request: Request, reader: str, done: str) -> str | None:
    """The sentence for this reader. None when they did nothing that fits, as when a link was opened by hand."""
    reply = _result(request, reader, done)
    return reply.text if reply is not None else None


def _result(request: Request, reader: str, done: str) -> Reply | None:
    if done == "edited":
        reset = request.is_open and not any(vote.counts for vote in request.votes)
        return Reply("edited", code="edited_and_reset" if reset else "")
    if done in ("reassigned", "added"):
        return _reassigned(request, reader)
    own = (vote for vote in reversed(request.votes) if vote.by == reader)
    mine = next((vote for vote in own if not (vote.carried_from and vote.counts)), None)
    if done == "received" and (mine is None or request.is_stalled):
        return received(request, Vote(reader))
    if mine is None or done not in DONE:
        return None
    if done == "taken_back":
        return None if mine.counts else _counted("taken_back", request, mine)
    if not mine.counts:
        return None
    if request.outcome is not None and request.outcome.by == reader:
        return Reply("decided", code="notified")  # the page opens with the outcome itself
    return _counted("changed" if done == "changed" else "counted", request, mine)


def _reassigned(request: Request, reader: str) -> Reply | None:
    done = next((each for each in reversed(request.reassignments) if each.act.by == reader), None)
    if done is None:
        return None
    instead_of = request.name(done.act.instead_of).text if done.act.instead_of else ""
    params = {"person": request.name(done.act.person).text, "instead_of": instead_of}
    return Reply("reassigned" if instead_of else "added", params=params)


def _counted(word: Word, request: Request, mine: RecordedVote) -> Reply | None:
    if request.held is not None and request.held.by == mine.by:
        return Reply(
            "counted", code="held", params={"outcome": request.held.state.capitalize(), "grace": request.grace}
        )
    if mine.choice == "changes":
        return CHANGES_REQUESTED
    stage = next((stage for stage in request.stages if mine in stage.votes), None)
    if stage is None:
        return None
    if mine.choice == "reject":
        rejections = sum(vote.counts and vote.choice == "reject" for vote in stage.votes)
        return Reply(word, params=tally("reject", "open", rejections, rejections_needed(stage)))
    return Reply(word, params={**tally_of(stage, mine.choice), "next_stage": _following(request, stage)})


def _following(request: Request, stage: RequestStage) -> str:
    """The stage after this one, which may not have been opened yet."""
    if request.stage is not None and request.stage.id != stage.id:
        return request.stage.title
    ahead = [later.title for later in request.stages if later.state == "ahead"]
    return ahead[0] if stage.state == "done" and ahead and request.is_open else ""


def _status(reply: Reply, act: Act, request: Request) -> tuple[int, bool]:
    """Return the status of a page that shows an act which changed nothing, and whether it was refused.

    A vote that says once more what the request ended with is no refusal.
    """
    if request.state in GONE:
        return 410, True
    if not isinstance(act, Vote):
        return STATUS[reply.verdict], True
    repeated = reply.verdict in ("already_decided", "already_voted") and _ends_as(act.choice, request.state)
    status = 200 if repeated else STATUS[reply.verdict]
    return status, status >= 400


def _ends_as(choice: ChoiceName, state: str) -> bool:
    """Return whether this state is the outcome that this choice wanted."""
    return {"approve": "approved", "edit": "approved", "reject": "rejected", "answer": "answered"}.get(choice) == state
