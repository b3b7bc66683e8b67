"""Notifications: the copies of a request's card, each sent, kept true, and finished.

Every copy has its own task in the run, so a slow or dead channel holds up neither a vote nor another copy. What can't
be delivered is said on the card and takes another way: a direct message becomes a mail, a mail a direct message, a
place's card goes to the people one by one.

A message is edited so that it shows the newest card. A mail can't be edited, so what is new comes as another mail in
its thread. A delivery is tried until the stage's deadline, else for 48 hours.

What is to be done is decided by pure functions over `Copy` values; `Copies` holds those and has one loop for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from approvals_bot.approvals.delivery import (
    LONGEST_MAIL_VALUE,
    LONGEST_TRY,
    LONGEST_VALUE,
    Pause,
    pause_after,
    send_copy,
    shortened,
    tried,
    update_copy,
    when_needed,
)
from approvals_bot.approvals.policy import Deliver
from approvals_bot.approvals.port import (
    EMAIL,
    SLACK,
    Card,
    CardDelivery,
    Delivered,
    Destination,
    Dispatch,
    Occasion,
    Place,
    Receipt,
    Refused,
    RefusedCode,
    ToPerson,
    TryAgain,
    place_name,
)
from approvals_bot.durable.core.api import now, random
from approvals_bot.people import Person

TOO_LATE = "it was decided before this could be delivered"

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
    is_back: bool = False  # the mail was accepted and came back later
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


def in_person(deliver: Deliver, person: Person) -> Iterator[ToPerson]:
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


def other_way(channel: str) -> str:
    """The channel for people whom this one can't reach."""
    return EMAIL if channel == SLACK else SLACK


# ── What to do with a copy next. Pure. ──


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
        self._all: list[Copy] = []  # by number, from 1
        self._news: list[asyncio.Event] = []  # of each: there may be something to do
        self._told: list[Person] = []
        self._closed = asyncio.Event()
        self._round = 0
        self._version = 0  # what every message is to show
        self._troubles: tuple[CardDelivery, ...] | None = ()

    def __getitem__(self, number: int) -> Copy:
        return self._all[number - 1]

    def show(self) -> tuple[CardDelivery, ...]:
        """What became of each card."""
        return tuple(copy.delivery for copy in self._all if not copy.text and not copy.is_elsewhere)

    def troubles(self) -> tuple[CardDelivery, ...]:
        """Those of them that cards tell of: what did not arrive, and what may have arrived twice."""
        if self._troubles is None:
            self._troubles = tuple(copy for copy in self.show() if copy.state == "not_delivered" or copy.uncertain)
        return self._troubles

    def has_mail(self, address: str) -> bool:
        """Whether a mail with the card is on its way to this person, or was."""
        return any(copy.is_mail and copy.reader == address and not copy.text for copy in self._all)

    def has_card(self, address: str) -> bool:
        """Whether this person has the card in a copy of their own, or will."""
        return any(
            copy.reader == address and not copy.text and copy.delivery.state != "not_delivered" for copy in self._all
        )

    def send(self, to: Destination, *, occasion: Occasion = "request", until: datetime | None = None) -> None:
        """Send a card there, or, where there is one already, a follow-up in its thread."""
        copy = self._at(to)
        if copy is None or (copy.delivery.state == "not_delivered" and not copy.is_replaced):
            self._add(to, occasion, until or now() + LONGEST_TRY)
            return
        copy = self._change(copy, round=self._round)
        if copy.is_replaced:
            self._fall_back(copy.number)
        else:
            self._follow_up(copy, occasion)

    def say(self, to: Destination, text: str, *, occasion: Occasion = "outcome") -> int:
        """Send an operator's text; the number of its copy."""
        return self._add(to, occasion, now() + LONGEST_TRY, text)

    def remind(self, people: Sequence[Person], *, also_channel: bool = True) -> None:
        """Remind these people, each in one place, and every place that has the card once."""
        addresses = [person.address for person in people]
        for copy in self._all:
            if copy.receipt is None or copy.text:
                continue
            in_place = isinstance(copy.to, Place) and also_channel and bool(addresses)
            if in_place or (copy.reader in addresses and copy is self._best(copy.reader)):
                self._follow_up(copy, "reminder")

    def tell(self, occasion: Occasion, *, only_channels: bool = False) -> None:
        """Tell everyone who has a card that something has changed."""
        for copy in self._all:
            if not copy.text and (isinstance(copy.to, Place) or not only_channels):
                self._follow_up(copy, occasion)

    def tell_one(self, address: str, occasion: Occasion) -> None:
        """Tell this person, where they got their card."""
        copy = self._best(address)
        if copy is not None:
            self._follow_up(copy, occasion)

    def confirm_vote(self, address: str) -> None:
        """Tell this person by mail that a vote was counted in their name: anybody who holds a link can use it."""
        for copy in self._all:
            if copy.is_mail and copy.reader == address and not copy.text:
                self._follow_up(copy, "vote")

    def change(self, version: int) -> None:
        """The card has changed; messages are edited to show it."""
        self._version = version
        for news in self._news:
            news.set()

    def begin(self) -> None:
        """A stage opens: those who are asked now are asked once more."""
        self._round += 1

    def told(self, people: Sequence[Person]) -> None:
        """Those who are asked now: a card that a place refuses goes to them."""
        self._told = list(people)

    def came_back(self, number: int, reason: str) -> bool:
        """A mail was accepted by the relay and refused by the mailbox: this copy takes another way. False: there is no
        such copy, or it has come back already."""
        if not 1 <= number <= len(self._all):
            return False
        copy = self[number]
        if not copy.is_mail or copy.receipt is None:
            return False
        self._change(copy, receipt=None, is_back=True, due=())
        self._becomes(number, "not_delivered", f"the mail came back: {reason}")
        self._fall_back(number)
        return True

    def close(self) -> None:
        """The request is decided: everyone who got a card hears how it ended, and nothing else is sent any more."""
        self._closed.set()
        for copy in self._all:
            self._change(copy, due=("outcome",) if copy.is_mail and not copy.text and not copy.is_back else ())
            self._news[copy.number - 1].set()

    def _at(self, to: Destination, text: str = "") -> Copy | None:
        """The newest copy in this place."""
        where = (to.channel, place_name(to))
        mine = (copy for copy in reversed(self._all) if (copy.to.channel, place_name(copy.to)) == where)
        return next((copy for copy in mine if copy.text == text), None)

    def _best(self, reader: str | None) -> Copy | None:
        """Where this person is reminded: in Slack, else where their card arrived first."""
        mine = [copy for copy in self._all if copy.reader == reader and copy.receipt is not None and not copy.text]
        return next((copy for copy in mine if copy.to.channel == SLACK), mine[0] if mine else None)

    def _add(self, to: Destination, occasion: Occasion, until: datetime, text: str = "") -> int:
        number = len(self._all) + 1
        delivery = CardDelivery(place_name(to), to.channel, "sending")
        self._all.append(Copy(number, to, occasion, until, delivery, text, round=self._round))
        self._news.append(asyncio.Event())
        self._spawn(self._keep(number))
        return number

    def _change(self, copy: Copy, **changes: Any) -> Copy:
        """The copy as it is from now on. It must be the newest value: others may have changed it during an `await`."""
        self._all[copy.number - 1] = changed = replace(copy, **changes)
        return changed

    def _follow_up(self, copy: Copy, occasion: Occasion) -> None:
        if copy.receipt is not None:  # what is still on its way shows the newest card when it arrives
            self._change(copy, due=(*copy.due, occasion))
            self._news[copy.number - 1].set()

    def _becomes(self, number: int, state: Progress, error: str = "", code: RefusedCode | None = None) -> None:
        copy = self[number]
        is_news = state == "not_delivered" != copy.delivery.state and not copy.text and not self._closed.is_set()
        self._change(copy, delivery=replace(copy.delivery, state=state, error=error), code=code)
        self._troubles = None
        self._report(is_news)

    def _failed(self, number: int, error: str, code: RefusedCode | None = None) -> None:
        """A card that has arrived somewhere stays delivered, though a follow-up failed."""
        self._becomes(number, "delivered" if self[number].receipt else "not_delivered", error, code)

    def _fall_back(self, number: int) -> None:
        """Take another way to the same people, unless it was taken already."""
        copy = self[number]
        if self._closed.is_set() and copy.occasion != "outcome":
            return
        match copy.to:
            case ToPerson(channel, person):
                self._instead(number, ToPerson(other_way(channel), person))
            case Place(channel):
                for person in self._told:
                    if not self.has_card(person.address) and not copy.text:
                        self._instead(number, ToPerson(channel, person))

    def _instead(self, number: int, to: Destination) -> None:
        """Send it there, unless that was done already, or is done because of another copy."""
        self._troubles = None
        failed = self._change(self[number], is_replaced=True)
        copy = self._at(to, failed.text)
        if copy is None:
            self._add(to, failed.occasion, max(failed.until, now() + timedelta(minutes=5)), failed.text)
        elif copy.round < failed.round:
            self._follow_up(self._change(copy, round=failed.round), "request")

    async def _keep(self, number: int) -> None:
        """Deliver one copy, then follow the request to its end."""
        copy = self[number]
        if not await self._deliver(number, copy.occasion, copy.until):
            self._fall_back(number)
            return
        while True:
            self._news[number - 1].clear()
            copy = self[number]
            match next_act(copy, self._version, is_closed=self._closed.is_set()):
                case "edit":
                    await self._edit(number)
                case "send":
                    self._change(copy, due=copy.due[1:])
                    await self._deliver(number, copy.due[0], now() + LONGEST_TRY)
                case "wait":
                    await self._news[number - 1].wait()
                case "end":
                    return

    async def _deliver(self, number: int, occasion: Occasion, until: datetime) -> bool:
        """Send one thing, again and again until it has arrived, is refused, or comes too late."""
        sent = self._change(self[number], sent=self[number].sent + 1).sent
        delivery_id = f"{self._run_id}-{number}-{sent}"
        tries, lost_at = 0, None
        while not is_pointless(self[number], occasion, is_closed=self._closed.is_set()):
            tries += 1
            self._count_attempt(number, 1)
            thread, tried_at = self[number].receipt, now()
            dispatch = partial(self._dispatch, number, occasion, delivery_id, thread, lost_at)
            result = await tried(send_copy(when_needed(dispatch)))
            if isinstance(result, Delivered):
                self._arrived(number, result)
                return True
            if isinstance(result, TryAgain) and result.held and result.after is not None:
                tries -= 1  # it was not its turn, so nothing was tried
                self._count_attempt(number, -1)
            elif isinstance(result, TryAgain):
                lost_at = lost_at or (tried_at if result.lost else None)
            pause = pause_after(tries, result, is_mail=self[number].is_mail)
            if pause is None:
                self._failed(number, result.error, result.code if isinstance(result, Refused) else None)
                return False
            if isinstance(result, Refused) and not self[number].is_replaced:
                self._fall_back(number)
            if not await self._wait(number, pause, result.error, until):
                return False
        copy = self[number]
        self._failed(number, copy.delivery.error or TOO_LATE, copy.code)
        return False

    def _count_attempt(self, number: int, by: int) -> None:
        copy = self[number]
        if copy.receipt is None:
            self._change(copy, delivery=replace(copy.delivery, attempts=copy.delivery.attempts + by))

    def _arrived(self, number: int, result: Delivered) -> None:
        copy = self._change(self[number], is_replaced=False)
        if copy.receipt is None:
            self._change(
                copy,
                receipt=result.receipt,
                shown=result.receipt.version,
                delivery=replace(copy.delivery, uncertain=result.uncertain),
            )
        self._becomes(number, "delivered")

    async def _edit(self, number: int) -> None:
        """Edit the message until it shows the newest card. One that can't be edited is answered in its thread."""
        until, tries = now() + LONGEST_TRY, 0
        while (copy := self[number]).is_editable and copy.shown < self._version:
            assert copy.receipt is not None, "only what was delivered can be edited"
            dispatch = partial(self._dispatch, number, copy.occasion, f"{self._run_id}-{number}-1")
            newest = self._newest()
            match await tried(update_copy(copy.receipt, when_needed(dispatch))):
                case Delivered():
                    self._change(self[number], shown=newest)
                    tries = 0
                    self._becomes(number, "delivered")
                case Refused():
                    self._change(self[number], is_editable=False)
                    await self._repost(number)
                case TryAgain(error, after):
                    tries += 1
                    is_in_time = await self._wait(number, Pause(tries, after), error, until)
                    self._change(self[number], is_editable=is_in_time)

    async def _repost(self, number: int) -> None:
        """The message can't be edited: answer in its thread, or, if it is gone, post the card once more."""
        if await self._deliver(number, "outcome" if self._closed.is_set() else "change", now() + LONGEST_TRY):
            return
        self._change(self[number], receipt=None)
        if await self._deliver(number, "outcome" if self._closed.is_set() else "request", now() + LONGEST_TRY):
            self._change(self[number], is_editable=True)
        else:
            self._fall_back(number)

    async def _wait(self, number: int, pause: Pause, error: str, until: datetime) -> bool:
        """Wait before the next attempt; the decision ends the wait. False: the time is up."""
        wait = pause.length(random().random)
        if now() + wait > until:
            self._failed(number, error)
            return False
        self._becomes(number, "retrying", error)
        if self._closed.is_set():
            await asyncio.sleep(wait.total_seconds())
        else:
            # Not wait_for: how many turns of the loop it takes is another number on Python 3.11 than on later ones, and
            # a run must go on where another Python left it.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait.total_seconds()):
                    await self._closed.wait()
        return True

    def _dispatch(
        self,
        number: int,
        occasion: Occasion,
        delivery_id: str,
        thread: Receipt | None = None,
        lost_at: datetime | None = None,
    ) -> Dispatch:
        copy = self[number]
        card = shortened(self._card(copy.reader), LONGEST_MAIL_VALUE if copy.is_mail else LONGEST_VALUE)
        return Dispatch(delivery_id, copy.to, card, occasion, copy.text, thread, lost_at)
