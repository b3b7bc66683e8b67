"""Notifications: which copies of a request's card to send, and what each copy needs next. Pure.

`[deliver]` says where cards go. Each copy is one frozen `Copy`; `copies` holds them, and sends what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.ballot import current_votes, waiting_for
from approvals_bot.approvals.card_model import CardDelivery
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.port import (
    EMAIL,
    SLACK,
    Delivered,
    Destination,
    Occasion,
    Place,
    Receipt,
    RefusedCode,
    ToPerson,
    place_name,
)
from approvals_bot.approvals.request import Request, RequestStage
from approvals_bot.people import Person

ELSEWHERE: tuple[RefusedCode, ...] = ("not_configured", "no_account")
"""Why a reader isn't on a channel, which is no failure while they are on another."""

FEW = 5  # approvers whom a card mentions one by one, even if they are in groups
MOST_MENTIONED = 30  # people whom one message mentions
ASKING: tuple[Occasion, ...] = ("request", "reminder", "escalation", "change")
"""The occasions on which somebody has to do something."""

Progress = Literal["sending", "delivered", "retrying", "held", "not_delivered", "not_sent"]
Retried = Literal["", "update", "reply"]

UNDELIVERED: tuple[Progress, ...] = ("not_delivered", "not_sent")
"""The states of a copy that its reader doesn't have, and won't get unless something else sends it."""

TOO_LATE = "it was decided before this could be delivered"


@dataclass(frozen=True, slots=True)
class Copy:
    """A card, delivered or on its way; with a `text`, an operator's message instead."""

    number: int
    to: Destination
    occasion: Occasion
    until: datetime
    delivery: CardDelivery  # as people see it
    text: str = ""
    code: RefusedCode | None = None  # why it was refused, if it was
    receipt: Receipt | None = None
    shown: int = 0  # the card version that it shows
    sent: int = 0  # how many messages were sent in it: part of their delivery ids
    round: int = 0  # the opening of a stage for which it was last sent
    is_editable: bool = True  # False: an update was refused for good
    is_replaced: bool = False  # a fallback was sent
    has_bounced: bool = False  # the mail was accepted and bounced later: its mailbox gets no more
    returned: int = 0  # how often it came back for a fault of ours
    is_returned: bool = False  # … and is to be sent again
    due: tuple[Occasion, ...] = ()
    unseen: tuple[int, ...] = ()  # numbers of the comments to notify its reader of
    owing: tuple[str, ...] = ()  # the people for whom reminders are, in a place

    @property
    def reader(self) -> str | None:
        """The address of the one person who reads it; None for a place."""
        return self.to.person.address if isinstance(self.to, ToPerson) else None

    @property
    def is_mail(self) -> bool:
        """Whether it is a mail: it can't be edited, so an update is another mail."""
        return self.to.channel == EMAIL

    @property
    def is_elsewhere(self) -> bool:
        """Whether the reader isn't on this channel and got a fallback, which is no failure."""
        return self.is_replaced and self.code in ELSEWHERE

    def became(self, state: Progress, error: str = "", code: RefusedCode | None = None, retried: Retried = "") -> Copy:
        """Return the copy after an attempt."""
        return replace(self, delivery=replace(self.delivery, state=state, error=error, retried=retried), code=code)

    def arrived(self, result: Delivered) -> Copy:
        """Return the copy after a delivery: of the card, or of a reply in its thread."""
        copy = replace(self, is_replaced=False).became("delivered")
        if copy.receipt is not None:
            return copy
        delivery = replace(copy.delivery, uncertain=result.uncertain)
        return replace(copy, receipt=result.receipt, shown=result.receipt.version, delivery=delivery)

    def failed(self, error: str, code: RefusedCode | None = None) -> Copy:
        """Return the copy after a delivery was given up. A card that has arrived stays delivered."""
        undelivered: Progress = "not_sent" if code == "too_late" else "not_delivered"
        return self.became("delivered" if self.receipt else undelivered, error, code)

    def dropped(self) -> Copy:
        """Return the copy after a decision that came before it. If it was tried in vain, the reason stays."""
        if self.delivery.attempts and self.delivery.error:
            return self.failed(self.delivery.error, self.code)
        return self.failed(TOO_LATE, "too_late")


@dataclass(frozen=True, slots=True)
class Notification:
    """A card to send, and why now; if there is one already, a reply in its thread."""

    to: Destination
    occasion: Occasion


# ── Where cards go: `[deliver]` as destinations. It says nothing about eligibility. ──


def places(deliver: Deliver) -> Iterator[Place]:
    """Yield the places that get every stage's card."""
    if deliver.slack:
        yield Place(SLACK, deliver.slack)
    for channel, to in deliver.channels.items():
        if to is not True:
            yield Place(channel, to)


def personal(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
    """Yield the destinations of an approver's own cards, which are sent at once."""
    if deliver.dm:
        yield ToPerson(SLACK, person)
    if deliver.email is not None and not deliver.email:
        yield ToPerson(EMAIL, person)
    for channel, to in deliver.channels.items():
        if to is True:
            yield ToPerson(channel, person)


def to_new_approver(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
    """Yield the destinations for an approver added later: their own, even if the file has none."""
    own = tuple(ToPerson(channel, person) for channel, to in deliver.channels.items() if to is True)
    if deliver.dm or (deliver.email is None and not own):
        yield ToPerson(SLACK, person)
    if deliver.email is not None:
        yield ToPerson(EMAIL, person)
    yield from own


def to_escalated(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
    """Yield the destinations of a person to whom a stage escalates: always a direct message, and the file's own ways.

    Without Slack, the direct message falls back to mail.
    """
    yield ToPerson(SLACK, person)
    yield from (way for way in personal(deliver, person) if way.channel != SLACK)


def to_requester(deliver: Deliver, person: Person) -> ToPerson | None:
    """Return the destination for the requester; None if the file delivers nothing."""
    if deliver.email is not None and not deliver.dm:
        return ToPerson(EMAIL, person)
    if deliver.dm or deliver.slack:
        return ToPerson(SLACK, person)
    return next((ToPerson(channel, person) for channel in deliver.channels), None)


def fallback_channel(channel: str) -> str:
    """Return the channel for people whom this one can't reach."""
    return EMAIL if channel == SLACK else SLACK


# ── What to send when something has happened. ──


def stage_notifications(
    request: Request, deliver: Deliver, copies: Sequence[Copy], occasion: Occasion, notified: Sequence[str] = ()
) -> Iterator[Notification]:
    """Yield the open stage's cards, for all approvers but those who were `notified` or have approved before.

    Replies in the threads announce a change, so only people without a card get one then.
    """
    assert request.stage is not None, "a stage is open"
    if not notified:
        known = {copy.to for copy in copies} if occasion == "change" else ()
        yield from (Notification(place, occasion) for place in places(deliver) if place not in known)
    notified = (*notified, *(vote.by for vote in request.stage.votes if vote.carried_from and vote.counts))
    for address in request.stage.notified:
        if address not in notified and not (occasion == "change" and has_card(copies, address)):
            yield from (Notification(way, occasion) for way in personal(deliver, request.people[address]))


def escalation_notifications(request: Request, deliver: Deliver, escalated: Sequence[str]) -> Iterator[Notification]:
    """Yield the cards of the people to whom the open stage escalates, whatever `deliver` says.

    Also of those who were notified before, and of all who get a card now for another reason.
    """
    assert request.stage is not None, "a stage is open"
    for address in request.stage.notified:
        if address in escalated:
            yield from (Notification(way, "escalation") for way in to_escalated(deliver, request.people[address]))


def emergency_notifications(request: Request, deliver: Deliver, people: Sequence[str]) -> Iterator[Notification]:
    """Yield the cards of a request that was opened without a vote, for those who would have decided it."""
    for address in people:
        yield from (Notification(way, "outcome") for way in to_escalated(deliver, request.people[address]))


def mentions(
    request: Request, copies: Sequence[Copy], copy: Copy, occasion: Occasion, readers: Sequence[str] = ()
) -> tuple[tuple[Person, ...], tuple[str, ...]]:
    """Return the people and the Slack user groups that a message has to mention, so that it notifies them.

    In a place these are the people who owe a vote and have no message of their own on that channel. Of many, their
    groups are mentioned; but a reminder, which must not reach those who have voted, names up to MOST_MENTIONED.
    `readers`: those of a comment.
    """
    stage = request.stage
    if stage is None or request.outcome is not None:
        return (), ()
    wanted = list(readers) if occasion == "comment" else _asked(request, stage, copy, occasion)
    if isinstance(copy.to, ToPerson):
        return (((copy.to.person,) if copy.to.person.address in wanted else ()), ())
    wanted = [address for address in wanted if not has_card(copies, address, copy.to.channel)]
    groups: tuple[str, ...] = ()
    if len(wanted) > (FEW if occasion in ("request", "change") else MOST_MENTIONED):
        groups, wanted = _grouped(stage, wanted)
    return tuple(request.people[one] for one in wanted[:MOST_MENTIONED] if one in request.people), groups


def _asked(request: Request, stage: RequestStage, copy: Copy, occasion: Occasion) -> list[str]:
    """Return the people from whom this message wants something: a vote."""
    if request.state != "waiting" or occasion not in ASKING:
        return []
    owing = waiting_for(request)
    return [address for address in owing if address in (copy.owing if occasion == "reminder" else stage.notified)]


def _grouped(stage: RequestStage, addresses: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the Slack user groups that these people are in, and the people who are in none."""
    groups, inside = dict[str, None](), set[str]()
    for seat in stage.seats:
        if seat.slack_groups and any(address in seat.eligible for address in addresses):
            groups |= dict.fromkeys(seat.slack_groups)
            inside |= seat.eligible.keys() - set(seat.ungrouped)
    return tuple(groups), [address for address in addresses if address not in inside]


def late_mails(request: Request, copies: Sequence[Copy]) -> Iterator[Notification]:
    """Yield the mails that were delayed in case somebody would vote without them."""
    assert request.stage is not None, "a stage is open"
    mailed = [copy.reader for copy in copies if copy.is_mail and not copy.text]
    for address in request.stage.notified:
        if address not in mailed:
            yield Notification(ToPerson(EMAIL, request.people[address]), "request")


def requester_notifications(
    request: Request, deliver: Deliver, copies: Sequence[Copy], occasion: Occasion
) -> Iterator[Notification]:
    """Yield what the requester and the person they act for get.

    People whose own copy shows the outcome get nothing more.
    """
    for address in dict.fromkeys((request.requester, request.on_behalf_of)):
        if address in request.people and not (occasion == "outcome" and has_card(copies, address)):
            way = to_requester(deliver, request.people[address])
            if way is not None:
                yield Notification(way, occasion)


def to_remind(copies: Iterable[Copy], people: Sequence[str]) -> list[Copy]:
    """Return the copies to remind these people in: one for each, and every place that has the card."""
    arrived = [copy for copy in copies if copy.receipt is not None and not copy.text]
    best = [best_copy(arrived, address) for address in people]
    return [copy for copy in arrived if copy in best or (isinstance(copy.to, Place) and people)]


def has_card(copies: Iterable[Copy], reader: str, channel: str | None = None) -> bool:
    """Whether this person has a card of their own, on this channel if one is given, or one is on its way."""
    mine = (copy for copy in copies if copy.reader == reader and not copy.text)
    return any(copy.delivery.state not in UNDELIVERED and channel in (None, copy.to.channel) for copy in mine)


def best_copy(copies: Iterable[Copy], reader: str) -> Copy | None:
    """Return the copy to remind this person in: in Slack, else where their card arrived first."""
    mine = [copy for copy in copies if copy.reader == reader and copy.receipt is not None and not copy.text]
    return next((copy for copy in mine if copy.to.channel == SLACK), mine[0] if mine else None)


def newest_copy(copies: Sequence[Copy], to: Destination, text: str = "") -> Copy | None:
    """Return the newest copy at this destination."""
    where = (to.channel, place_name(to))
    mine = (copy for copy in reversed(copies) if (copy.to.channel, place_name(copy.to)) == where)
    return next((copy for copy in mine if copy.text == text), None)


# ── What a copy needs next. ──


def next_act(copy: Copy, newest: int, *, is_closed: bool) -> Literal["again", "edit", "send", "wait", "end"]:
    """Return what a delivered copy needs now. `newest`: the card's version; `is_closed`: there is a decision."""
    if copy.text:
        return "end"
    if copy.is_returned:
        return "again"
    if not copy.is_mail and copy.is_editable and copy.shown < newest:
        return "edit"
    if copy.due:
        return "send"
    return "end" if is_closed else "wait"


def is_pointless(copy: Copy, occasion: Occasion, *, is_closed: bool) -> bool:
    """Whether to stop trying. After the decision only cards that may have arrived are still brought up to date."""
    if not is_closed or copy.text or occasion == "outcome":
        return False
    return copy.receipt is not None or copy.is_mail or copy.delivery.attempts == 0


def fallbacks(copy: Copy, request: Request, copies: Sequence[Copy]) -> Iterator[ToPerson]:
    """Yield the fallbacks to the same people; of a place's card, to each approver without one or a vote."""
    match copy.to:
        case ToPerson(channel, person):
            yield ToPerson(fallback_channel(channel), person)
        case Place(channel) if request.stage is not None and not copy.text:
            voters = {vote.by for vote in current_votes(request.stage)}
            for address in request.stage.notified:
                if address not in voters and not has_card(copies, address):
                    yield ToPerson(channel, request.people[address])
