"""Every kind of mail, as letters: what the tests of layout look at, and what pictures are taken of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from approvals_bot.agents.chat import WEBHOOK_MAIL
from approvals_bot.approvals.card_model import Card, CardChoice, CardComment, CardOutcome, Name
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.approvals.text import TO_CHANGE
from approvals_bot.channels.email import letter
from approvals_bot.channels.email.replies import ANSWERS, CHANGED_NOTHING
from approvals_bot.service.alerts import Alert, words_of
from approvals_bot.service.troubles import LastingTrouble
from approvals_bot.web import decisions, login
from tests.support import card_kinds
from tests.support.card_kinds import ANN, BO, CY, STEPS, TOKEN, full, tool_call

SLACK_IS_DOWN = "Slack takes no deliveries now (timeout); they are tried again"
LINK = "https://approve.acme.eu/decisions/signed.token-1"


def dispatches(card: Card, outcome: CardOutcome) -> dict[str, Dispatch]:
    """Return what is sent in a mail of its own, of every kind by name."""
    to = {"ann": ToPerson("email", ANN), "cy": ToPerson("email", CY), "bo": ToPerson("email", BO)}
    take_back = CardChoice("take_back", "Undo vote", "Undo vote")
    voted = replace(card, choices=(*card.choices, take_back))
    by_mail = replace(voted, votes=tuple(replace(vote, via="email") for vote in voted.votes), decides_by_reply=True)
    said = CardComment(via="email", comment=STEPS, at=outcome.at, by=card.requester)
    short = replace(said, comment="Is the backup done?")
    open_cards, decided = card_kinds.waiting(card), card_kinds.decided(card, outcome)
    to_rewrite = replace(open_cards["changes-requested"], why_me=TO_CHANGE)
    digits = {"digits": "123456", "requester": card.requester.text}
    kinds = {
        "request": Dispatch("a", to["ann"], card),
        "everything": Dispatch("b", to["ann"], full(card)),
        "long-title": Dispatch("c", to["ann"], open_cards["long-title"]),
        "tool-call": Dispatch("d", to["ann"], tool_call(card)),
        "reminder": Dispatch("e", to["ann"], card, "reminder"),
        "escalation": Dispatch("f", to["ann"], card, "escalation"),
        "edited": Dispatch("g", to["ann"], open_cards["edited"], "change"),
        "comment": Dispatch("u", to["ann"], replace(card, comments=(said,)), "comment", comments=(said,)),
        "short-comment": Dispatch("A", to["ann"], replace(card, comments=(short,)), "comment", comments=(short,)),
        "stalled": Dispatch("h", to["ann"], replace(card, is_stalled=True), "reminder"),
        "group-unreadable": Dispatch("v", to["ann"], open_cards["group-unreadable"]),
        "voted": Dispatch("i", to["cy"], voted, "vote"),
        "voted-by-reply": Dispatch("w", to["cy"], by_mail, "vote"),
        "reply-changed-nothing": Dispatch("x", to["ann"], card, "outcome", ANSWERS["old_card"]),
        "reply-not-offered": Dispatch("y", to["ann"], card, "outcome", CHANGED_NOTHING),
        "reassigned": Dispatch("j", to["ann"], replace(card, choices=()), "reassigned"),
        "changes-requested": Dispatch("k", to["bo"], to_rewrite, "change"),
        "code": Dispatch("l", to["ann"], card, "code", decisions.CODE_MAIL.format_map(digits)),
        "text": Dispatch("m", to["bo"], decided["approved"], "outcome", "Deployed:\n  api 2.1.0\n  web 3.0"),
    }
    readers = {"approved": "bo", "rejected": "cy", "expired": "bo", "answered": "bo", "by-rule": "bo"}
    outcomes = {name: Dispatch(name, to[readers.get(name, "ann")], one, "outcome") for name, one in decided.items()}
    given = card_kinds.grants(card, outcome)
    kinds |= outcomes | {name: Dispatch(name, to["ann"], one, "outcome") for name, one in given.items()}
    kinds["grant-extension"] = Dispatch("z", to["ann"], given["grant-extension"])
    return {name: replace(kind, link=LINK) for name, kind in kinds.items()} | notices(card)


def notices(card: Card) -> dict[str, Dispatch]:
    """Return mails about no request, by name: to people who look after the service, or sign in."""
    budget = (
        "The agent desk has used the budget of its session night (calls, 20 per day). Further tool calls of the "
        "session are refused until 5 Nov 2026, 00:00 UTC, and nobody is asked about them."
    )
    mend, at, page = (
        "Check [slack], and run `approvals-bot doctor`",
        card.asked_at,
        "https://approve.acme.eu/operations",
    )
    down = Alert(LastingTrouble("channel slack", "", SLACK_IS_DOWN, mend, at, at), BO.address, is_over=False)
    later = card.asked_at + timedelta(minutes=17)
    texts = {
        "alert-down": words_of([down], later, BO.zone, page),
        "alert-back": words_of([replace(down, is_over=True)], later, BO.zone, page),
        "budget-spent": ("An agent has used its budget", budget),
        "webhook": ("Book LH 441", WEBHOOK_MAIL.format(url=f"{LINK}/hook", subject="Book LH 441")),
    }
    about = Card("", "", "", 0, "waiting", "", Name("", ""), card.asked_at, "")
    to = ToPerson("email", BO)
    found = {
        name: Dispatch(name, to, replace(about, title=title), "outcome", text) for name, (title, text) in texts.items()
    }
    title = "Sign in to Approvals"
    code = Dispatch("sign-in", to, replace(about, title=title), "code", login.CODE_MAIL.format(digits="123456"))
    return found | {"sign-in-code": code}


def digest(card: Card, outcome: CardOutcome, now: datetime) -> list[Dispatch]:
    """Return what comes in one mail."""
    kinds = dispatches(card, outcome)
    several = [
        replace(kinds[name], link=f"{LINK}{at}") for at, name in enumerate(("request", "reminder", "long-title"))
    ]
    return [*several, replace(several[0], card=replace(card, deadline=now + timedelta(days=3), title=TOKEN))]


def mails(card: Card, outcome: CardOutcome, now: datetime) -> dict[str, letter.Letter]:
    """Return a letter of every kind by name."""
    to_requester = letter.Replies(card.requester.text)
    letters = {
        name: letter.write(kind, now, to_requester if kind.card.run_id else letter.Replies())
        for name, kind in dispatches(card, outcome).items()
    }
    return letters | {"digest": letter.write_together(digest(card, outcome, now), now)}
