"""The copies of a card: each is sent, kept true, and finished.

Every copy has its own task in the run, so a slow or dead channel holds up neither a vote nor another copy. What
can't be delivered is said on the card and takes another way: a direct message becomes a mail, a mail a direct message,
a channel's card goes to the people one by one.

A Slack message is edited so that it shows the newest card. A mail can't be edited, so what is new comes as another mail
in its thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.approvals.deliveries import Deliveries
from approvals_bot.approvals.one_copy import Copy, Progress, kind_of, place, reader_of
from approvals_bot.approvals.pace import LONGEST_TRY
from approvals_bot.approvals.port import Card, CardDelivery, Destination, Mailbox, Occasion, SlackChannel, SlackPerson
from approvals_bot.durable.core.api import now
from approvals_bot.people import Person

NOT_THERE = ("users_not_found", "is not configured here")
"""In a refusal: this person has no such mailbox or account, so another way is the usual way."""


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
        self._report = report
        self._spawn = spawn
        self._all: list[Copy] = []
        self._told: list[Person] = []
        self._closed = asyncio.Event()
        self._round = 0
        self._troubles: tuple[CardDelivery, ...] | None = ()
        self._deliveries = Deliveries(
            run_id=run_id,
            card=card,
            newest=newest,
            closed=self._closed,
            becomes=self._becomes,
            fall_back=self._fall_back,
        )

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
            self._add(Copy(self._next, to, reader_of(to), occasion, until or now() + LONGEST_TRY))
            return
        copy.round = self._round
        if copy.is_replaced:
            self._fall_back(copy)
        else:
            self._follow_up(copy, occasion)

    def say(self, to: Destination, text: str, *, occasion: Occasion = "outcome") -> Copy:
        """Send an operator's text."""
        copy = Copy(self._next, to, reader_of(to), occasion, now() + LONGEST_TRY, text=text)
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
        self._deliveries.version = version
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
        mine = (copy for copy in reversed(self._all) if copy.kind == kind_of(to) and place(copy.to) == place(to))
        return next((copy for copy in mine if copy.text == text), None)

    def _add(self, copy: Copy) -> None:
        copy.round = self._round
        self._all.append(copy)
        self._spawn(self._deliveries.keep(copy))

    def _follow_up(self, copy: Copy, occasion: Occasion) -> None:
        if copy.receipt is not None:  # what is still on its way shows the newest card when it arrives
            copy.due.append(occasion)
            copy.news.set()

    def _becomes(self, copy: Copy, state: Progress, error: str = "") -> None:
        is_news = state == "not_delivered" != copy.state and not copy.text and not self._closed.is_set()
        copy.state, copy.error, self._troubles = state, error, None
        self._report(is_news)

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
            self._add(Copy(self._next, to, reader_of(to), failed.occasion, until, text=failed.text))
        elif copy.round < failed.round:
            copy.round = failed.round
            self._follow_up(copy, "request")

    def _best(self, reader: str | None) -> Copy | None:
        """Where this person is reminded: her direct message, else her mail."""
        mine = [copy for copy in self._all if copy.reader == reader and copy.receipt is not None and not copy.text]
        return next((copy for copy in mine if copy.kind == "slack"), mine[0] if mine else None)
