"""Every kind of Slack message, as dispatches: cards in each state, notes in threads, an operator's text."""

from __future__ import annotations

from dataclasses import replace

from approvals_bot.approvals.card import moved
from approvals_bot.approvals.card_model import Card, CardComment, CardOutcome
from approvals_bot.approvals.port import SLACK, Dispatch, Occasion, Place, Receipt, ToPerson
from approvals_bot.channels.slack.blocks import Mentions
from tests.support import card_kinds
from tests.support.card_kinds import ANN, ANN_NAME

THREAD = Receipt("C0DEPLOYS", "1700000000.000100")
MENTIONED = {
    "mention-people": Mentions({"ann@acme.eu": "U0ANN", "bo@acme.eu": "U0BO"}, ()),
    "mention-group": Mentions({}, ("S0SRE",)),
    "mention-group-and-people": Mentions({"ann@acme.eu": "U0ANN"}, ("S0SRE",)),
    "note-reminder": Mentions({"ann@acme.eu": "U0ANN"}, ()),
    "note-comment": Mentions({"ann@acme.eu": "U0ANN"}, ()),
}
"""Whom the messages of these kinds mention."""


def cards(card: Card, outcome: CardOutcome) -> dict[str, Dispatch]:
    """Return cards of their own, of every kind by name."""
    to = Place(SLACK, "#deploys")
    known = {
        **card_kinds.waiting(card),
        **card_kinds.decided(card, outcome),
        **card_kinds.grants(card, outcome),
        "mention-people": card_kinds.waiting(card)["waiting"],
        "mention-group": card_kinds.waiting(card)["many-approvers"],
        "mention-group-and-people": card_kinds.waiting(card)["waiting-1-of-2"],
    }
    found = {name: Dispatch(name, to, replace(one, why_me="")) for name, one in known.items()}
    direct = replace(known["waiting-1-of-2"], talk=("comment", "claim", "snooze"))
    return found | {
        "direct-message": Dispatch("direct", ToPerson(SLACK, ANN), direct),
        "own-text": Dispatch("text", to, known["approved"], "outcome", "Deployed:\n  api 2.1.0\n  web 3.0"),
    }


def notes(card: Card, outcome: CardOutcome) -> dict[str, Dispatch]:
    """Return replies in the thread of a card, of every kind by name."""
    to = Place(SLACK, "#deploys")
    given = card_kinds.grants(card, outcome)
    made = CardComment(via="email", comment="Is the backup done?\nI can't see it.", at=outcome.at, by=ANN_NAME)
    kinds: dict[str, tuple[Card, Occasion]] = {
        "note-reminder": (card, "reminder"),
        "note-escalation": (card, "escalation"),
        "note-edited": (card_kinds.waiting(card)["edited"], "change"),
        "note-changes-requested": (card_kinds.changes_requested(card), "change"),
        "note-comment": (replace(card, comments=(made,)), "comment"),
        "note-reassigned": (replace(card, choices=()), "reassigned"),
        "note-moved": (moved(card, "#team-data"), "change"),
        "note-approved": (card_kinds.decided(card, outcome)["approved"], "outcome"),
        "note-rejected": (card_kinds.decided(card, outcome)["rejected"], "outcome"),
        "note-expired": (card_kinds.decided(card, outcome)["expired"], "outcome"),
        "note-grant-overdue": (given["grant-overdue"], "outcome"),
        "note-grant-ended": (given["grant-ended"], "outcome"),
        "note-grant-not-given": (given["grant-not-given"], "outcome"),
    }
    found = {name: Dispatch(name, to, one, why, thread=THREAD) for name, (one, why) in kinds.items()}
    return found | {"note-comment": replace(found["note-comment"], comments=(made,))}
