"""Every kind of mail, as letters: what the tests of layout look at, and what pictures are taken of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardComment,
    CardDelivery,
    CardField,
    CardOutcome,
    CardSeat,
    CardStage,
    Name,
    State,
)
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.channels.email import letter
from approvals_bot.people import Person

LINK = "https://approve.acme.eu/decisions/signed.token-1"
ANN = Person("ann@acme.eu", "Ann Ode", zone="America/Sao_Paulo")
CY = Person("cy@acme.eu", "Cy Rus", zone="Asia/Kathmandu")
BO = Person("bo@acme.eu", "Bo Lund", zone="Europe/Berlin")

STEPS = "1. Stop the workers.\n2. Migrate:\n   - table orders\n   - table lines\n3. Start.\n" + "".join(
    f"{n}. Check replica {n}: its health page is green, and its queue is empty.\n" for n in range(4, 30)
)
JSON = "items.0.name: chair\nitems.0.count: 4\n" + "".join(f"items.{n}.name: desk {n}\n" for n in range(1, 20))
LONG_TITLE = (
    "Give the contractors of the Kathmandu office read access to the billing database until the end of the audit"
)
TOKEN = "x" * 120  # nothing in it to break a line at


def full(card: Card) -> Card:
    """Return the card with everything that a card can have."""
    return replace(
        card,
        instructions="Check the plan against the runbook.\nAsk Cy if in doubt.",
        on_behalf_of=Name("di@acme.eu", "Di Ops"),
        fields=(
            *card.fields,
            CardField("amount", "Amount", "1,250.00 EUR", pinned=True),
            CardField("steps", "Steps", STEPS, "long", pinned=True),
            CardField("order", "Order", JSON, "json"),
            CardField("why", "Why", "Cheap\nand fast, says the model.", "long", untrusted=True),
            CardField("token", "Token", TOKEN),
        ),
        stages=(
            CardStage("manager", "Manager", "done", (CardSeat("Managers", 1, (card.requester,)),)),
            *card.stages,
            CardStage("board", "Board", "ahead", (CardSeat("The board", 2),)),
        ),
        notes=("⇄ Ann Ode reassigned this to Di Ops: on holiday",),
        deliveries=(CardDelivery("ed@acme.eu", "email", "not_delivered", 1, "mailbox full"),),
    )


def tool_call(card: Card) -> Card:
    """Return what a model wants to do."""
    call = CardField("tool", "Tool", "refund_order", "code"), CardField("a", "Arguments", JSON, "json", untrusted=True)
    return replace(card, fields=call, title="refund_order for Zoë")


def dispatches(card: Card, outcome: CardOutcome) -> dict[str, Dispatch]:
    """Return what is sent in a mail of its own, of every kind by name."""
    to = {"ann": ToPerson("email", ANN), "cy": ToPerson("email", CY), "bo": ToPerson("email", BO)}
    take_back = CardChoice("take_back", "Undo vote", "Undo vote")
    voted = replace(card, choices=(*card.choices, take_back))
    rewrite = replace(card, state="changes_requested", choices=(), deadline=None)

    def ended(state: State, because: str = "", comment: str = "") -> Card:
        how = replace(outcome, state=state, because=because, comment=comment)
        if state == "expired":
            how = replace(how, via="clock")
        return replace(card, state=state, outcome=how, choices=(), deadline=None)

    said = CardComment(via="email", comment=STEPS, at=outcome.at, by=card.requester)
    kinds = {
        "request": Dispatch("a", to["ann"], card),
        "everything": Dispatch("b", to["ann"], full(card)),
        "long-title": Dispatch("c", to["ann"], replace(full(card), title=LONG_TITLE, choices=_labelled(card))),
        "tool-call": Dispatch("d", to["ann"], tool_call(card)),
        "reminder": Dispatch("e", to["ann"], card, "reminder"),
        "escalation": Dispatch("f", to["ann"], card, "escalation"),
        "edited": Dispatch("g", to["ann"], card, "change"),
        "comment": Dispatch("u", to["ann"], replace(card, comments=(said,)), "comment", comments=(said,)),
        "stalled": Dispatch("h", to["ann"], replace(card, is_stalled=True), "reminder"),
        "voted": Dispatch("i", to["cy"], voted, "vote"),
        "reassigned": Dispatch("j", to["ann"], replace(card, choices=()), "reassigned"),
        "changes-requested": Dispatch("k", to["bo"], rewrite, "change"),
        "code": Dispatch("l", to["ann"], card, "code", "Your code is 123456."),
        "text": Dispatch("m", to["bo"], ended("approved"), "outcome", "Deployed:\n  api 2.1.0\n  web 3.0"),
        "approved": Dispatch("n", to["bo"], ended("approved", "All votes are in.", "Go.\nBut slowly."), "outcome"),
        "rejected": Dispatch("o", to["cy"], ended("rejected", "", "The migration locks the table."), "outcome"),
        "expired": Dispatch("p", to["bo"], ended("expired", "Nobody decided in time."), "outcome"),
        "withdrawn": Dispatch("q", to["ann"], ended("withdrawn"), "outcome"),
        "cancelled": Dispatch("r", to["ann"], ended("cancelled"), "outcome"),
        "failed": Dispatch("s", to["ann"], ended("failed"), "outcome"),
        "answered": Dispatch("t", to["bo"], ended("answered", "", "Blue."), "outcome"),
    }
    return {name: replace(kind, link=LINK) for name, kind in kinds.items()}


def digest(card: Card, outcome: CardOutcome, now: datetime) -> list[Dispatch]:
    """Return what comes in one mail."""
    kinds = dispatches(card, outcome)
    several = [
        replace(kinds[name], link=f"{LINK}{at}") for at, name in enumerate(("request", "reminder", "long-title"))
    ]
    return [*several, replace(several[0], card=replace(card, deadline=now + timedelta(days=3), title=TOKEN))]


def mails(card: Card, outcome: CardOutcome, now: datetime) -> dict[str, letter.Letter]:
    """Return a letter of every kind by name."""
    replies = letter.Replies(card.requester.text)
    letters = {name: letter.write(kind, now, replies) for name, kind in dispatches(card, outcome).items()}
    return letters | {"digest": letter.write_together(digest(card, outcome, now), now)}


def _labelled(card: Card) -> tuple[CardChoice, ...]:
    return tuple(replace(one, label=one.label.partition(":")[0] + f": {LONG_TITLE}") for one in card.choices)
