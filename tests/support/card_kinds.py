"""Every kind of card, in every state: what mails and Slack messages of all kinds are made from."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from approvals_bot.approvals.card import REPLACED, moved
from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardComment,
    CardDelivery,
    CardField,
    CardGrant,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    FollowUp,
    FormField,
    GrantState,
    Name,
    NextCalls,
    StageState,
    State,
    TalkName,
)
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.request import BREAK_GLASS, plain_name
from approvals_bot.people import Person, SourceFault

ANN = Person("ann@acme.eu", "Ann Ode", "U0ANN", zone="America/Sao_Paulo")
BO = Person("bo@acme.eu", "Bo Lund", "U0BO", zone="Europe/Berlin")
CY = Person("cy@acme.eu", "Cy Rus", zone="Asia/Kathmandu")
DI = Name("di@acme.eu", "Di Ops")
AGENT = Name("app:desk", "desk")

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
        on_behalf_of=DI,
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
    choices = tuple(replace(one, label=f"{one.short}: refund_order for Zoë") for one in card.choices)
    return replace(card, fields=call, title="refund_order for Zoë", choices=choices)


def ended(card: Card, outcome: CardOutcome, state: State, because: str = "", comment: str = "") -> Card:
    """Return the card decided so."""
    how = replace(outcome, state=state, because=because, comment=comment)
    if state == "expired":
        how = replace(how, via="clock")
    stage_state: StageState = "done"
    match state:
        case "rejected" | "expired" | "withdrawn" | "cancelled" | "failed":
            stage_state = state
    steps = tuple(replace(stage, state=stage_state) for stage in card.stages)
    return replace(
        card,
        state=state,
        outcome=how,
        choices=(),
        deadline=None,
        on_deadline="",
        stages=steps,
        waiting_for=(),
        talk=(),
        why_me="",
    )


def granted(card: Card, outcome: CardOutcome, state: GrantState, error: str = "") -> Card:
    """Return the approved card of a grant that is in this state."""
    by = BO_NAME if state == "revoked" else None
    at = outcome.at + timedelta(hours=8) if state in ("active", "ended", "revoked") else None
    grant = CardGrant(state, at, by, "no longer needed" if by else "", error)
    title = "Read access to the billing database for Bo Lund"
    given = replace(ended(replace(card, title=title), outcome, "approved"), grant=grant)
    return replace(given, talk=("revoke", "extend") if state == "active" else ())


def decided(card: Card, outcome: CardOutcome) -> dict[str, Card]:
    """Return decided requests by name."""
    by_rule = replace(outcome, by=Name("rule:1", "rule 1"), via="rule")
    by_grant = replace(outcome, by=Name("grant:run_1", plain_name("grant:run_1")), via="rule")
    calls = (
        FollowUp("call erp", "done", 2, status=200, target="erp"),
        FollowUp("mail to fin@acme.eu", "failed", 1, "mailbox full"),
    )
    review = "⚑ Review needed by 5 Nov 2026, 10:05 UTC."
    glass = replace(outcome, by=Name(BREAK_GLASS, plain_name(BREAK_GLASS)), via="rule")
    opened = "Opened without a vote by Bo Lund: The primary is down and nobody answers."
    emergency = ended(replace(card, votes=()), glass, "approved", opened)
    covering = "Covered by the approval of “refund_order for Bo” by Ann Ode: use 3 of 20, until 30 Nov 2026."
    covered = ended(replace(tool_call(card), votes=()), by_grant, "approved", covering)
    return {
        "approved": ended(card, outcome, "approved", "All votes are in.", "Go.\nBut slowly."),
        "rejected": ended(card, outcome, "rejected", "", "The migration locks the table."),
        "expired": ended(card, outcome, "expired", "Nobody decided in time."),
        "withdrawn": ended(card, replace(outcome, by=BO_NAME), "withdrawn", "", "Found a bug in it."),
        "cancelled": ended(card, replace(outcome, by=AGENT, via="api"), "cancelled", "", "The release is postponed."),
        "failed": ended(card, replace(outcome, by=Name("", ""), via="rule"), "failed"),
        "answered": ended(card, outcome, "answered", "", "Blue."),
        "by-rule": ended(card, by_rule, "approved", "The amount is 20.00 EUR (under 50)."),
        "follow-ups": replace(ended(card, outcome, "approved"), follow_ups=calls),
        "standing-covered": covered,
        "break-glass": replace(emergency, notes=(review,)),
        "break-glass-unjustified": replace(
            emergency, notes=("⚑ Review: not justified, says Ann Ode: “Cy was on call and answered.”",)
        ),
    }


def grants(card: Card, outcome: CardOutcome) -> dict[str, Card]:
    """Return approvals that end, by name."""
    refused = "aws-revoke: it answered 503"
    extension = replace(
        replace(card, choices=tuple(replace(one, label=one.short) for one in card.choices)),
        title="Extend: Read access to the billing database for Bo Lund",
        fields=(CardField("lasts", "Longer by", "2 hours", pinned=True), CardField("reason", "Reason", "One more run")),
    )
    return {
        "grant-active": granted(card, outcome, "active"),
        "grant-giving": granted(card, outcome, "giving", "aws-grant: it answered 503"),
        "grant-ending": granted(card, outcome, "ending"),
        "grant-overdue": granted(card, outcome, "overdue", refused),
        "grant-ended": granted(card, outcome, "ended"),
        "grant-revoked": granted(card, outcome, "revoked"),
        "grant-not-given": granted(card, outcome, "not_given", "aws-grant: it answered 403"),
        "grant-extension": extension,
    }


def waiting(card: Card) -> dict[str, Card]:
    """Return open requests by name."""
    first = replace(card, have=0, votes=(), stages=(CardStage("go", "Go", "open", (CardSeat("SRE", 2),)),))
    either = CardStage("go", "Go", "open", (CardSeat("SRE", 2), CardSeat("Board", 1, alternative=1)), "Security")
    said = CardComment(via="slack", comment="Is the backup done?", at=card.asked_at, by=ANN_NAME)
    lost = CardDelivery("#ops", "slack", "delivered", 2, uncertain=True)
    undelivered = (
        CardDelivery("ed@acme.eu", "email", "not_delivered", 3, "mailbox full"),
        CardDelivery("#old", "slack", "not_delivered", 1, "the channel is archived"),
        lost,
    )
    colour = FieldSpec(type="enum", values=["blue", "green"])
    asks = (FormField("centre", "Cost centre", FieldSpec(type="string")), FormField("colour", "Colour", colour))
    answering = (
        replace(card.choices[0], asks=asks),
        CardChoice("edit", "Approve with changes", "Approve with changes"),
        CardChoice("answer", "Answer", "Answer", comment="required"),
        *card.choices[1:],
    )
    everybody: tuple[TalkName, ...] = ("comment", "claim", "snooze", "remind")
    edited = replace(
        card,
        have=0,
        notes=("✎ Edited by Bo Lund: 1 vote reset",),
        votes=tuple(replace(vote, counts=False) for vote in card.votes),
    )
    nobody_known = (SourceFault("slack:@sre", "no such group"),)
    return {
        "waiting": replace(first, talk=everybody),
        "waiting-1-of-2": replace(card, talk=everybody),
        "everything": full(card),
        "long-title": replace(full(card), title=LONG_TITLE, choices=labelled(card)),
        "either": replace(first, stages=(either,), talk=everybody),
        "edited": edited,
        "claimed": replace(card, claimed_by=ANN_NAME, talk=("comment", "unclaim", "snooze")),
        "snoozed": replace(card, snoozed_until=card.asked_at + timedelta(hours=1), talk=("comment", "claim", "snooze")),
        "commented": replace(card, comments=(said, replace(said, by=BO_NAME, comment="Yes, at noon.")), talk=everybody),
        "stalled": replace(card, is_stalled=True),
        "not-delivered": replace(card, deliveries=undelivered),
        "group-unreadable": replace(first, waiting_for=(), unresolved=nobody_known),
        "group-unreadable-and-people": replace(first, unresolved=nobody_known),
        "changes-requested": changes_requested(card),
        "held": replace(
            card,
            choices=(),
            waiting_for=(),
            notes=("⏳ Approved by Ann Ode. It takes effect in 5 minutes unless Ann Ode undoes it.",),
        ),
        "moved": moved(card, "#team-data"),
        "replaced": replace(card, choices=(), notes=(REPLACED,)),
        "asks": replace(first, choices=answering),
        "tool-call": replace(tool_call(first), requester=AGENT, on_behalf_of=DI, talk=everybody),
        "tool-call-next": replace(tool_call(first), requester=AGENT, next_calls=NextCalls("Later calls …", ())),
        "allowance": replace(
            tool_call(first),
            talk=("revoke",),
            notes=(
                "↻ The approval also covers later calls like this one until 30 Nov 2026: at most 20 of them, "
                "amount up to 500 in all.",
            ),
        ),
        "many-approvers": replace(
            first, waiting_for=tuple(Name(f"p{n}@acme.eu", f"Person Number {n}") for n in range(12))
        ),
    }


def changes_requested(card: Card) -> Card:
    """Return the card that is back with its requester."""
    how = CardVote(ANN_NAME, "changes", at=card.asked_at, via="slack", comment="Please add a roll-back.")
    back = replace(card, state="changes_requested", choices=(), deadline=None, on_deadline="")
    return replace(back, votes=(*card.votes, how), waiting_for=(card.requester,), have=0, need=0)


def labelled(card: Card) -> tuple[CardChoice, ...]:
    """Return the card's choices, with labels as long as the long title."""
    return tuple(replace(one, label=f"{one.short}: {LONG_TITLE}") if ":" in one.label else one for one in card.choices)


ANN_NAME, BO_NAME = Name(ANN.address, ANN.name, ANN.slack), Name(BO.address, BO.name, BO.slack)
