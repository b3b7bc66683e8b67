"""The copies of a card: each is sent, kept true, and finished.

Every copy has its own task in the run, so a slow or dead channel holds up neither a vote nor another copy. A task tries
to deliver until the stage's deadline, else for 48 hours, first again after at most 5 seconds, then ever more rarely, up
to every 15 minutes. What can't be delivered is said on the card and takes another way: a direct message becomes a mail,
a mail a direct message, a channel's card goes to the people one by one.

A Slack message is edited so that it shows the newest card. A mail can't be edited, so what is new comes as another mail
in its thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from approvals_bot.approvals.pace import LONGEST_TRY, wait_before
from approvals_bot.approvals.when_needed import MADE_WHEN_NEEDED, when_needed
from approvals_bot.channels import (
    Card,
    CardDelivery,
    Channels,
    Delivered,
    Destination,
    Dispatch,
    Mailbox,
    Occasion,
    Person,
    Receipt,
    Refused,
    Result,
    SlackChannel,
    SlackPerson,
    TryAgain,
)
from approvals_bot.core.authoring import now, random, resource, step
from approvals_bot.errors import StepFailedError

LONGEST_VALUE = {"slack": 9_000, "email": 24_000}
"""Characters of one field that are handed to a channel, and so lie in the log: more than it ever shows."""

NOT_THERE = ("users_not_found", "is not configured here")
"""In a refusal: this person has no such mailbox or account, so another way is the usual way."""

ALL_DOWN = timedelta(minutes=1)
"""How long to leave a channel alone that refuses everything."""

TOO_LATE = "it was decided before this could be delivered"


MadeDispatch = Annotated[Dispatch, MADE_WHEN_NEEDED]

Progress = Literal["sending", "delivered", "retrying", "not_delivered"]


@step(retries=0, timeout=120.0)  # seconds; a channel answers within 45, so this ends only what hangs
async def send_copy(dispatch: MadeDispatch, channels: Channels = resource(Channels)) -> Result:
    """Deliver a new copy, or a follow-up in its thread."""
    channel = channels.of(dispatch.to)
    if channel is None:
        return Refused(f"{_kind(dispatch.to)} is not configured here")
    return await channel.send(_with_page(dispatch, channels))


@step(retries=0, timeout=120.0)
async def update_copy(receipt: Receipt, dispatch: MadeDispatch, channels: Channels = resource(Channels)) -> Result:
    """Show the newest card in a copy that was delivered."""
    channel = channels.of(dispatch.to)
    if channel is None:
        return Refused(f"{_kind(dispatch.to)} is not configured here")
    return await channel.update(receipt, _with_page(dispatch, channels))


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
        return _kind(self.to)

    def show(self) -> CardDelivery:
        return CardDelivery(place(self.to), self.kind, self.state, self.attempts, self.error, self.is_uncertain)


class Copies:
    """All copies of one request."""

    def __init__(
        self,
        *,
        run_id: str,
        card: Callable[[str | None], Card],
        newest: Callable[[], int],
        report: Callable[[bool], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`card(reader)`: the card as it is now, and `newest()`: its version. `report(visible)`: a copy changed its
        state; `visible`: in a way that every reader should see. `spawn` starts a task that ends before the run does."""
        self._run_id = run_id
        self._card = card
        self._newest = newest
        self._report = report
        self._spawn = spawn
        self._all: list[Copy] = []
        self._told: list[Person] = []
        self._closed = asyncio.Event()
        self._round = 0
        self._troubles: tuple[CardDelivery, ...] | None = ()
        self.version = 0

    def show(self) -> tuple[CardDelivery, ...]:
        """What became of each card. Who is not in Slack at all got a mail, and that is no failure to show."""
        return tuple(
            copy.show()
            for copy in self._all
            if not copy.text and not (copy.is_replaced and any(word in copy.error for word in NOT_THERE))
        )

    def troubles(self) -> tuple[CardDelivery, ...]:
        """Those of them that cards tell of: what did not arrive, and what may have arrived twice."""
        if self._troubles is None:
            self._troubles = tuple(copy for copy in self.show() if copy.state == "not_delivered" or copy.uncertain)
        return self._troubles

    # ── what the request asks for ──

    def send(self, to: Destination, *, occasion: Occasion = "request", until: datetime | None = None) -> None:
        """Send a card there, or, where one lies already, a follow-up in its thread."""
        copy = self._at(to)
        if copy is None or (copy.state == "not_delivered" and not copy.is_replaced):
            self._add(Copy(self._next, to, _reader(to), occasion, until or now() + LONGEST_TRY))
            return
        copy.round = self._round
        if copy.is_replaced:
            self._fall_back(copy)
        else:
            self._follow_up(copy, occasion)

    def say(self, to: Destination, text: str, *, occasion: Occasion = "outcome") -> Copy:
        """Send an operator's text."""
        copy = Copy(self._next, to, _reader(to), occasion, now() + LONGEST_TRY, text=text)
        self._add(copy)
        return copy

    def remind(self, people: Sequence[Person], *, also_channel: bool = True) -> None:
        """Remind these people, each in one place, and the channel once."""
        addresses = [person.address for person in people]
        for copy in self._all:
            if copy.receipt is None or copy.text:
                continue
            in_channel = isinstance(copy.to, SlackChannel) and also_channel and bool(addresses)
            if in_channel or (copy.reader in addresses and copy is self._best(copy.reader)):
                self._follow_up(copy, "reminder")

    def tell(self, occasion: Occasion, *, only_channels: bool = False) -> None:
        """Tell everyone who has a card that something has changed."""
        for copy in self._all:
            if not copy.text and (isinstance(copy.to, SlackChannel) or not only_channels):
                self._follow_up(copy, occasion)

    def tell_one(self, address: str, occasion: Occasion) -> None:
        """Tell this person, where she got her card."""
        copy = self._best(address)
        if copy is not None:
            self._follow_up(copy, occasion)

    def confirm_vote(self, address: str) -> None:
        """Tell this person by mail that a vote was counted in her name: a link decides for whoever holds it."""
        for copy in self._all:
            if copy.kind == "email" and copy.reader == address and not copy.text:
                self._follow_up(copy, "vote")

    def change(self, version: int) -> None:
        """The card has changed; Slack messages are edited to show it."""
        self.version = version
        for copy in self._all:
            copy.news.set()

    def begin(self) -> None:
        """A stage opens: whoever is asked now is asked anew."""
        self._round += 1

    def told(self, people: Sequence[Person]) -> None:
        """Who is asked now: a card that a channel refuses goes to them."""
        self._told = list(people)

    def has_mail(self, address: str) -> bool:
        return any(isinstance(copy.to, Mailbox) and copy.reader == address and not copy.text for copy in self._all)

    def has_card(self, address: str) -> bool:
        return any(copy.reader == address and not copy.text and copy.state != "not_delivered" for copy in self._all)

    def came_back(self, number: int, reason: str) -> bool:
        """A mail was accepted by the relay and refused by the mailbox: this copy takes another way. False: there is no
        such copy, or it has come back already."""
        copy = next((copy for copy in self._all if copy.number == number and copy.kind == "email"), None)
        if copy is None or copy.receipt is None:
            return False
        copy.receipt, copy.is_back = None, True
        copy.due.clear()
        self._becomes(copy, "not_delivered", f"the mail came back: {reason}")
        self._fall_back(copy)
        return True

    def close(self) -> None:
        """The request is decided: whoever got a card is told how it ended, and nothing else is sent any more."""
        self._closed.set()
        for copy in self._all:
            copy.due = ["outcome"] if copy.kind == "email" and not copy.text and not copy.is_back else []
            copy.news.set()

    # ── one copy ──

    @property
    def _next(self) -> int:
        return len(self._all) + 1

    def _at(self, to: Destination, text: str = "") -> Copy | None:
        """The newest copy in this place."""
        mine = (copy for copy in reversed(self._all) if copy.kind == _kind(to) and place(copy.to) == place(to))
        return next((copy for copy in mine if copy.text == text), None)

    def _add(self, copy: Copy) -> None:
        copy.round = self._round
        self._all.append(copy)
        self._spawn(self._keep(copy))

    def _follow_up(self, copy: Copy, occasion: Occasion) -> None:
        if copy.receipt is not None:  # what is still on its way shows the newest card when it arrives
            copy.due.append(occasion)
            copy.news.set()

    async def _keep(self, copy: Copy) -> None:
        """Deliver, then follow the request to its end."""
        if not await self._deliver(copy, copy.occasion, copy.until):
            self._fall_back(copy)
            return
        while not copy.text:
            copy.news.clear()
            if copy.kind == "slack" and copy.is_editable and copy.shown < self.version:
                await self._update(copy)
            elif copy.due:
                await self._deliver(copy, copy.due.pop(0), now() + LONGEST_TRY)
            elif self._closed.is_set():
                return
            else:
                await copy.news.wait()

    async def _deliver(self, copy: Copy, occasion: Occasion, until: datetime) -> bool:
        copy.sent += 1
        delivery_id = f"{self._run_id}-{copy.number}-{copy.sent}"
        tries, lost_at = 0, None
        while not self._is_pointless(copy, occasion):
            tries += 1
            copy.attempts += copy.receipt is None
            dispatch, tried_at = partial(self._dispatch, copy, occasion, delivery_id, copy.receipt, lost_at), now()
            match await _tried(send_copy(when_needed(dispatch))):
                case Delivered(receipt, uncertain):
                    if copy.receipt is None:
                        copy.receipt, copy.shown, copy.is_uncertain = receipt, receipt.version, uncertain
                    copy.is_replaced = False
                    self._becomes(copy, "delivered")
                    return True
                case Refused(error, install) if install and copy.kind == "email":
                    # All mail is down, by a password perhaps: nothing is wrong with this one. It takes another way if
                    # there is one, and goes out once somebody has mended the relay.
                    if not copy.is_replaced:
                        self._fall_back(copy)
                    if not await self._wait(copy, _until_next(tries, ALL_DOWN), error, until):
                        return False
                case Refused(error):
                    self._failed(copy, error)
                    return False
                case TryAgain(error, timedelta() as turn, held=True):
                    tries -= 1  # it was not its turn, so nothing was tried
                    copy.attempts -= copy.receipt is None
                    if not await self._wait(copy, turn, error, until):
                        return False
                case TryAgain(error, after, lost):
                    lost_at = lost_at or (tried_at if lost else None)
                    paced = 1 if copy.kind == "slack" and after else tries  # Slack's line keeps a pace of its own
                    if not await self._wait(copy, _until_next(paced, after), error, until):
                        return False
        self._failed(copy, copy.error or TOO_LATE)
        return False

    def _is_pointless(self, copy: Copy, occasion: Occasion) -> bool:
        """After the decision, nobody is asked any more. A Slack message that may have arrived is still made true."""
        if not self._closed.is_set() or copy.text or occasion == "outcome":
            return False
        return copy.receipt is not None or copy.kind == "email" or copy.attempts == 0

    async def _update(self, copy: Copy) -> None:
        """Edit the message until it shows the newest card. One that can't be edited is answered in its thread."""
        assert copy.receipt is not None, "only what was delivered can be edited"
        until, tries = now() + LONGEST_TRY, 0
        while copy.is_editable and copy.shown < self.version:
            dispatch = partial(self._dispatch, copy, copy.occasion, f"{self._run_id}-{copy.number}-1")
            newest = self._newest()
            match await _tried(update_copy(copy.receipt, when_needed(dispatch))):
                case Delivered():
                    copy.shown, tries = newest, 0
                    self._becomes(copy, "delivered")
                case Refused():
                    copy.is_editable = False
                    await self._replace(copy)
                case TryAgain(error, after):
                    tries += 1
                    copy.is_editable = await self._wait(copy, _until_next(tries, after), error, until)

    async def _replace(self, copy: Copy) -> None:
        """The message can't be edited: answer in its thread, or, if it is gone, post the card once more."""
        occasion: Occasion = "outcome" if self._closed.is_set() else "change"
        if await self._deliver(copy, occasion, now() + LONGEST_TRY):
            return
        copy.receipt = None
        if await self._deliver(copy, "outcome" if self._closed.is_set() else "request", now() + LONGEST_TRY):
            copy.is_editable = True
        else:
            self._fall_back(copy)

    async def _wait(self, copy: Copy, wait: timedelta, error: str, until: datetime) -> bool:
        """Wait before the next attempt; the decision ends the wait. False: the time is up."""
        if now() + wait > until:
            self._failed(copy, error)
            return False
        self._becomes(copy, "retrying", error)
        if self._closed.is_set():
            await asyncio.sleep(wait.total_seconds())
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), wait.total_seconds())
        return True

    def _failed(self, copy: Copy, error: str) -> None:
        """A card that lies somewhere stays delivered, though a follow-up failed."""
        self._becomes(copy, "delivered" if copy.receipt else "not_delivered", error)

    def _becomes(self, copy: Copy, state: Progress, error: str = "") -> None:
        is_news = state == "not_delivered" != copy.state and not copy.text and not self._closed.is_set()
        copy.state, copy.error, self._troubles = state, error, None
        self._report(is_news)

    def _dispatch(
        self,
        copy: Copy,
        occasion: Occasion,
        delivery_id: str,
        thread: Receipt | None = None,
        lost_at: datetime | None = None,
    ) -> Dispatch:
        card = _shortened(self._card(copy.reader), LONGEST_VALUE[copy.kind])
        return Dispatch(delivery_id, copy.to, card, occasion, copy.text, thread, lost_at)

    # ── other ways ──

    def _fall_back(self, copy: Copy) -> None:
        """Take another way to the same people, unless it was taken already."""
        if self._closed.is_set() and copy.occasion != "outcome":
            return
        match copy.to:
            case SlackPerson(person):
                self._instead(copy, Mailbox(person))
            case Mailbox(person):
                self._instead(copy, SlackPerson(person))
            case SlackChannel():
                for person in self._told:
                    if not self.has_card(person.address) and not copy.text:
                        self._instead(copy, SlackPerson(person))

    def _instead(self, failed: Copy, to: Destination) -> None:
        """Send it there, unless that was done already, by itself or because of another copy."""
        failed.is_replaced, self._troubles = True, None
        copy = self._at(to, failed.text)
        if copy is None:
            until = max(failed.until, now() + timedelta(minutes=5))
            self._add(Copy(self._next, to, _reader(to), failed.occasion, until, text=failed.text))
        elif copy.round < failed.round:
            copy.round = failed.round
            self._follow_up(copy, "request")

    def _best(self, reader: str | None) -> Copy | None:
        """Where this person is reminded: her direct message, else her mail."""
        mine = [copy for copy in self._all if copy.reader == reader and copy.receipt is not None and not copy.text]
        return next((copy for copy in mine if copy.kind == "slack"), mine[0] if mine else None)


def place(to: Destination) -> str:
    """Where a copy goes, for people: "#deploys", or an address."""
    return to.channel if isinstance(to, SlackChannel) else to.person.address


async def _tried(sending: Coroutine[Any, Any, Result]) -> Result:
    """A bug in a channel must not end the request, and may be mended while it waits."""
    try:
        return await sending
    except StepFailedError as failure:
        return TryAgain(failure.cause_message, lost=True)


def _until_next(tries: int, wish: timedelta | None) -> timedelta:
    return wait_before(tries, wish, random().random())


def _reader(to: Destination) -> str | None:
    return None if isinstance(to, SlackChannel) else to.person.address


def _kind(to: Destination) -> Literal["slack", "email"]:
    return "email" if isinstance(to, Mailbox) else "slack"


def _with_page(dispatch: Dispatch, channels: Channels) -> Dispatch:
    """The link to the request's page is added as the copy leaves; the log holds no links."""
    return replace(dispatch, card=replace(dispatch.card, url=channels.page(dispatch.card.run_id)))


def _shortened(card: Card, longest: int) -> Card:
    fields = [
        field if len(field.value) <= longest else replace(field, value=field.value[:longest] + "…")
        for field in card.fields
    ]
    return replace(card, fields=tuple(fields))
