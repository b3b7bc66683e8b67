"""Notifications: which copies of a request's card are to be sent, and what each needs next. Pure.

Where cards go is what `[deliver]` says. What becomes of each card is one frozen `Copy`: `copies` holds those, and sends
what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.policy import Deliver
from approvals_bot.approvals.port import (
    EMAIL,
    SLACK,
    CardDelivery,
    Delivered,
    Destination,
    Occasion,
    Place,
    Receipt,
    RefusedCode,
    ToPerson,
    place_name,
)
from approvals_bot.approvals.request import Request
from approvals_bot.people import Person

Progress = Literal["sending", "delivered", "retrying", "not_delivered"]


@dataclass(frozen=True, slots=True)
class Copy:
    """One delivered card, or one that is still on its way. With a `text`, an operator's message instead of a card."""

    number: int
    to: Destination
    occasion: Occasion
    until: datetime
    delivery: CardDelivery  # what people see of it
    text: str = ""
    code: RefusedCode | None = None  # why it was refused, if that is what its error says
    receipt: Receipt | None = None
    shown: int = 0  # the version of the card that it shows
    sent: int = 0  # how many things were sent in it: part of their delivery ids
    round: int = 0  # for which opening of a stage it was last asked for
    is_editable: bool = True  # False: an update was refused for good
    is_replaced: bool = False  # another way was taken
    has_bounced: bool = False  # the mail was accepted and came back later
    due: tuple[Occasion, ...] = ()

    @property
    def reader(self) -> str | None:
        """The address of the one person who reads it; None for a place."""
        return self.to.person.address if isinstance(self.to, ToPerson) else None

    @property
    def is_mail(self) -> bool:
        """Whether it can't be edited, so that what is new comes as another one."""
        return self.to.channel == EMAIL

    @property
    def is_elsewhere(self) -> bool:
        """Whether the reader is not to be found on this channel and has got it by another, which is no failure."""
        return self.is_replaced and self.code in ("not_configured", "no_account")

    def became(self, state: Progress, error: str = "", code: RefusedCode | None = None) -> Copy:
        """The copy after what was just tried with it."""
        return replace(self, delivery=replace(self.delivery, state=state, error=error), code=code)

    def arrived(self, result: Delivered) -> Copy:
        """The copy once something was delivered: the card, or, where that is there already, what followed it."""
        copy = replace(self, is_replaced=False).became("delivered")
        if copy.receipt is not None:
            return copy
        delivery = replace(copy.delivery, uncertain=result.uncertain)
        return replace(copy, receipt=result.receipt, shown=result.receipt.version, delivery=delivery)

    def failed(self, error: str, code: RefusedCode | None = None) -> Copy:
        """The copy once a delivery was given up. A card that has arrived stays so, though a follow-up failed."""
        return self.became("delivered" if self.receipt else "not_delivered", error, code)


@dataclass(frozen=True, slots=True)
class Notification:
    """A card that is to go somewhere, and why now; where one is already, it is a follow-up in its thread."""

    to: Destination
    occasion: Occasion


# ── Where cards go: what `[deliver]` says, as destinations. It says nothing about who may decide. ──


def places(deliver: Deliver) -> Iterator[Place]:
    """The places that get every stage's card."""
    if deliver.slack:
        yield Place(SLACK, deliver.slack)
    for channel, to in deliver.channels.items():
        if to is not True:
            yield Place(channel, to)


def personal(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
    """The ways by which each person who is asked gets a card at once."""
    if deliver.dm:
        yield ToPerson(SLACK, person)
    if deliver.email is not None and not deliver.email:
        yield ToPerson(EMAIL, person)
    for channel, to in deliver.channels.items():
        if to is True:
            yield ToPerson(channel, person)


def to_new_approver(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
    """The ways to one person who is asked in another's place: their own ones, at once, even where the file has none."""
    own = tuple(ToPerson(channel, person) for channel, to in deliver.channels.items() if to is True)
    if deliver.dm or (deliver.email is None and not own):
        yield ToPerson(SLACK, person)
    if deliver.email is not None:
        yield ToPerson(EMAIL, person)
    yield from own


def to_requester(deliver: Deliver, person: Person) -> ToPerson | None:
    """The way to the requester; None where the file delivers nothing."""
    if deliver.email is not None and not deliver.dm:
        return ToPerson(EMAIL, person)
    if deliver.dm or deliver.slack:
        return ToPerson(SLACK, person)
    return next((ToPerson(channel, person) for channel in deliver.channels), None)


def fallback_channel(channel: str) -> str:
    """The channel for people whom this one can't reach."""
    return EMAIL if channel == SLACK else SLACK


# ── What is to be sent when something has happened. ──


def stage_notifications(
    request: Request, deliver: Deliver, copies: Sequence[Copy], occasion: Occasion, notified: Sequence[str] = ()
) -> Iterator[Notification]:
    """The open stage's cards, for all who are asked but those who were `told` before.

    A change was told in the copies there are, so only those without one get a card.
    """
    assert request.stage is not None, "a stage is open"
    if occasion == "request" and not notified:
        yield from (Notification(place, occasion) for place in places(deliver))
    for who in request.stage.notified:
        if who not in notified and not (occasion == "change" and has_card(copies, who)):
            yield from (Notification(way, occasion) for way in personal(deliver, request.people[who]))


def late_mails(request: Request, copies: Sequence[Copy]) -> Iterator[Notification]:
    """The mails that waited whether somebody votes without them."""
    assert request.stage is not None, "a stage is open"
    mailed = [copy.reader for copy in copies if copy.is_mail and not copy.text]
    for who in request.stage.notified:
        if who not in mailed:
            yield Notification(ToPerson(EMAIL, request.people[who]), "request")


def requester_notifications(
    request: Request, deliver: Deliver, copies: Sequence[Copy], occasion: Occasion
) -> Iterator[Notification]:
    """What the requester gets, and the person they ask for, unless a copy tells them the outcome anyway."""
    for who in dict.fromkeys((request.requester, request.on_behalf_of)):
        if who in request.people and not (occasion == "outcome" and has_card(copies, who)):
            way = to_requester(deliver, request.people[who])
            if way is not None:
                yield Notification(way, occasion)


def to_remind(copies: Iterable[Copy], people: Sequence[str]) -> list[Copy]:
    """The copies to remind these people in: for each of them one, and every place that has the card."""
    arrived = [copy for copy in copies if copy.receipt is not None and not copy.text]
    best = [best_copy(arrived, who) for who in people]
    return [copy for copy in arrived if copy in best or (isinstance(copy.to, Place) and people)]


def has_card(copies: Iterable[Copy], reader: str) -> bool:
    """Whether this person has the card in a copy of their own, or will."""
    mine = (copy for copy in copies if copy.reader == reader and not copy.text)
    return any(copy.delivery.state != "not_delivered" for copy in mine)


def best_copy(copies: Iterable[Copy], reader: str) -> Copy | None:
    """Where this person is reminded: in Slack, else where their card arrived first."""
    mine = [copy for copy in copies if copy.reader == reader and copy.receipt is not None and not copy.text]
    return next((copy for copy in mine if copy.to.channel == SLACK), mine[0] if mine else None)


def newest_copy(copies: Sequence[Copy], to: Destination, text: str = "") -> Copy | None:
    """The newest copy in this place."""
    where = (to.channel, place_name(to))
    mine = (copy for copy in reversed(copies) if (copy.to.channel, place_name(copy.to)) == where)
    return next((copy for copy in mine if copy.text == text), None)


# ── What a copy needs next. ──


def next_act(copy: Copy, newest: int, *, is_closed: bool) -> Literal["edit", "send", "wait", "end"]:
    """What a delivered copy needs now. `newest`: the version that it should show; `is_closed`: there is a decision."""
    if copy.text:
        return "end"
    if not copy.is_mail and copy.is_editable and copy.shown < newest:
        return "edit"
    if copy.due:
        return "send"
    return "end" if is_closed else "wait"


def is_pointless(copy: Copy, occasion: Occasion, *, is_closed: bool) -> bool:
    """Whether to stop trying. After the decision nobody is asked any more, but a message that may have arrived is still
    made true."""
    if not is_closed or copy.text or occasion == "outcome":
        return False
    return copy.receipt is not None or copy.is_mail or copy.delivery.attempts == 0


def fallbacks(copy: Copy, request: Request, copies: Sequence[Copy]) -> Iterator[ToPerson]:
    """The other ways to the same people: of a place's card to each who is asked and has none."""
    match copy.to:
        case ToPerson(channel, person):
            yield ToPerson(fallback_channel(channel), person)
        case Place(channel) if request.stage is not None and not copy.text:
            for who in request.stage.notified:
                if not has_card(copies, who):
                    yield ToPerson(channel, request.people[who])
