"""One delivered card, or one that is still on its way, and where it goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.port import CardDelivery, Destination, Mailbox, Occasion, Receipt, SlackChannel

Progress = Literal["sending", "delivered", "retrying", "not_delivered"]


@dataclass(eq=False)
class Copy:
    """One delivered card, or one that is still on its way."""

    number: int
    to: Destination
    reader: str | None
    occasion: Occasion
    until: datetime
    text: str = ""
    state: Progress = "sending"
    attempts: int = 0
    error: str = ""
    receipt: Receipt | None = None
    shown: int = 0  # the version of the card that it shows
    sent: int = 0  # how many things were sent in it: part of their delivery ids
    is_editable: bool = True  # False: an update was refused for good
    round: int = 0  # for which opening of a stage it was last asked for
    is_replaced: bool = False  # another way was taken
    is_uncertain: bool = False  # the card may have arrived twice
    is_back: bool = False  # the mail was accepted and came back later
    due: list[Occasion] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def kind(self) -> Literal["slack", "email"]:
        return kind_of(self.to)

    def show(self) -> CardDelivery:
        return CardDelivery(place(self.to), self.kind, self.state, self.attempts, self.error, self.is_uncertain)


def place(to: Destination) -> str:
    """Where a copy goes, for people: "#deploys", or an address."""
    return to.channel if isinstance(to, SlackChannel) else to.person.address


def reader_of(to: Destination) -> str | None:
    return None if isinstance(to, SlackChannel) else to.person.address


def kind_of(to: Destination) -> Literal["slack", "email"]:
    return "email" if isinstance(to, Mailbox) else "slack"
