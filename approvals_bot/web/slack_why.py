"""The answer to "Why am I asked?": why this person, whom else, and what was left out. Pure."""

from __future__ import annotations

from datetime import datetime

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import RequestView
from approvals_bot.channels import phrases

NAMED = 6  # people who are named with their reasons


def why(view: RequestView, address: str | None, now: datetime) -> str:
    """Some sentences of plain text. `address`: who asks; None for somebody who may look on only."""
    card = card_of(view, address, now)
    if card.outcome is not None:
        return f"{phrases.outcome(card.outcome)}. Nobody is asked any more."
    voted = any(vote.by == address and vote.stands for vote in view.votes) if address else False
    if voted:
        own = "You have voted."
    elif address is not None and address in (view.requester, view.on_behalf_of):
        own = "You asked for this yourself." if address == view.requester else "This is asked for you."
    else:
        own = "You are not one of the people who are asked here."
    sentences = [card.why_me or own, own if card.why_me and voted else "", _others(view, address)]
    skipped = [f"{stage.title} was skipped: {stage.because}." for stage in view.stages if stage.state == "skipped"]
    return " ".join(sentence for sentence in [*sentences, *skipped] if sentence)


def _others(view: RequestView, address: str | None) -> str:
    stage = view.stage
    people = [person for person in view.waiting_for if person != address]
    if stage is None or not people:
        return ""
    named = []
    for person in people[:NAMED]:
        reasons = [seat.eligible[person] for seat in stage.seats if person in seat.eligible]
        named.append(view.name(person).text + (f" ({reasons[0]})" if reasons else ""))
    if others := len(people) - len(named):
        named.append("1 other" if others == 1 else f"{others} others")
    opening = "Also waiting for" if address in view.waiting_for else "Waiting for"
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    return f"{opening} {listed}."
