"""The copies of a request's card: sent, kept up to date, and closed.

Every copy has its own task in the run, so a slow or dead channel delays neither a vote nor another copy. A failed
delivery shows on the card and falls back: from a direct message to mail, from mail to a direct message, from a place to
its people one by one.

Messages are edited to show the newest card. Mails can't be edited, so updates come as further mails in the thread. A
delivery is tried until the stage's deadline, else for 48 hours.

The pure functions of `notifications` decide over `Copy` values what to do next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from approvals_bot.approvals.ballot import waiting_for
from approvals_bot.approvals.card import card_of, comment_of, moved
from approvals_bot.approvals.card_model import CardDelivery
from approvals_bot.approvals.delivery import (
    FILTERED,
    LONGEST_MAIL_VALUE,
    LONGEST_TRY,
    LONGEST_VALUE,
    Pause,
    attempt,
    lazily,
    pause_after,
    send_copy,
    shortened,
    update_copy,
)
from approvals_bot.approvals.notifications import (
    ASKING,
    ELSEWHERE,
    UNDELIVERED,
    Copy,
    Notification,
    Progress,
    Retried,
    best_copy,
    fallbacks,
    has_card,
    is_pointless,
    mentions,
    newest_copy,
    next_act,
    to_remind,
)
from approvals_bot.approvals.port import (
    Delivered,
    Destination,
    Dispatch,
    Occasion,
    Place,
    Receipt,
    Refused,
    ToPerson,
    TryAgain,
    place_name,
)
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.talk import readers_of
from approvals_bot.durable.core.api import now, random
from approvals_bot.people import Person


class Copies:
    """All copies of one request, and a task for each."""

    def __init__(self, request: Request, tasks: asyncio.TaskGroup) -> None:
        """`tasks`: the group for deliveries; it ends before the run does."""
        self.all: list[Copy] = []  # by number, from 1
        self.request = request  # as every message should show it
        self.failures = 0  # all cards show each failure, so it makes a new version
        self._tasks = tasks
        self._wake_ups: list[asyncio.Event] = []  # one for each copy: there may be something to do
        self._closed = asyncio.Event()
        self._stays = False  # cards are updated after the decision, too: a grant has still to end
        self._pauses: dict[int, asyncio.Event] = {}  # of the copies that wait for their next attempt, by number
        self._over: set[int] = set()  # numbers of the copies whose task has ended
        self.round = 0  # openings of a stage so far; with a new one, people who have a card are asked again
        self._places: tuple[Place, ...] = ()  # that get the open stage's card
        self._left: dict[Place, str] = {}  # places that it has left by an edit, and where it is instead
        self._troubles: dict[int, CardDelivery] = {}

    @property
    def version(self) -> int:
        """The card's version, which every message should show."""
        return self.request.version + self.failures

    def deliveries(self) -> tuple[CardDelivery, ...]:
        """Return the state of each card."""
        return tuple(copy.delivery for copy in self.all if not copy.text and not copy.is_elsewhere)

    def begin_round(self, places: Iterable[Place]) -> None:
        """Begin a round: a stage has opened, whose card goes to these places."""
        self.round += 1
        self.move(places, is_edit=False)

    def move(self, places: Iterable[Place], *, is_edit: bool = True) -> None:
        """Show the open stage's card in these places. After an edit, those that it has left say where it is."""
        before, self._places = self._places, tuple(places)
        for place in before if is_edit else ():
            instead = next((one.place for one in self._places if one.channel == place.channel), "")
            if place not in self._places and instead:
                self._left[place] = instead
        for place in self._places:
            self._left.pop(place, None)

    def show(self, request: Request) -> None:
        """Show the changed card: messages are edited."""
        self.request = request
        for wake_up in self._wake_ups:
            wake_up.set()

    def send(self, notifications: Iterable[Notification]) -> None:
        """Send each card, or, if there is one already, a reply in its thread."""
        for notification in notifications:
            copy = newest_copy(self.all, notification.to)
            if copy is None or (copy.delivery.state in UNDELIVERED and not copy.is_replaced):
                self._add(notification.to, notification.occasion, self.request.deadline or now() + LONGEST_TRY)
                continue
            copy = self._put(replace(copy, round=self.round))
            if copy.is_replaced:
                self._fall_back(copy.number)
            elif copy.receipt is None and copy.reader is None:  # on its way, and it may mention others
                self._put(replace(copy, due=tuple(dict.fromkeys((*copy.due, notification.occasion)))))
            else:
                self.follow_up([copy], notification.occasion)

    def send_text(self, to: Destination, text: str) -> int:
        """Send an operator's text. Returns the number of its copy."""
        return self._add(to, "outcome", now() + LONGEST_TRY, text)

    def follow_up(self, copies: Iterable[Copy], occasion: Occasion) -> None:
        """Notify the readers of these copies that something has happened."""
        for copy in copies:
            if copy.receipt is not None:  # what is still on its way shows the newest card when it arrives
                self._put(replace(copy, due=(*copy.due, occasion)))
                self._wake_ups[copy.number - 1].set()

    def remind(self, people: Sequence[str], *, in_places: bool = True) -> None:
        """Remind these people, each once: where they got their card, or by a mention in a place."""
        for copy in to_remind(self.all, people):
            if copy.reader is None and not (in_places and copy.to in self._places):
                continue
            is_due = "reminder" in copy.due
            earlier = copy.owing if is_due else ()
            self._put(replace(copy, owing=tuple(dict.fromkeys((*earlier, *people)))))
            self.follow_up([] if is_due else [self.all[copy.number - 1]], "reminder")

    def notify_comment(self, copies: Iterable[Copy], number: int) -> None:
        """Notify the readers of these copies of a comment. Several that come before it is sent go together."""
        for copy in copies:
            due = copy.due if "comment" in copy.due else (*copy.due, "comment")
            self._put(replace(copy, due=due, unseen=(*copy.unseen, number)))
            self._wake_ups[copy.number - 1].set()

    def notify_all(self, occasion: Occasion, *, only_places: bool = False) -> None:
        """Notify everyone who has a card that something has changed."""
        readers = (copy for copy in self.all if copy.to in self._places or not only_places)
        self.follow_up([copy for copy in readers if not copy.text], occasion)

    def notify_one(self, address: str, occasion: Occasion) -> None:
        """Notify this person where they got their card."""
        copy = best_copy(self.all, address)
        self.follow_up([copy] if copy is not None else [], occasion)

    def confirm_vote(self, address: str) -> None:
        """Mail this person that their vote counts: anybody with the link could have cast it."""
        self.follow_up([copy for copy in self.all if copy.is_mail and copy.reader == address and not copy.text], "vote")

    def mark_bounced(self, number: int, reason: str, *, is_ours: bool) -> bool:
        """Fall back to another channel after a bounce. A mail that came back for a fault of ours is sent again later.

        Returns False if there is no such copy, or it has bounced already.
        """
        copy = self.all[number - 1] if 1 <= number <= len(self.all) else None
        if copy is None or not copy.is_mail or copy.receipt is None:
            return False
        back = replace(copy, receipt=None, due=(), has_bounced=not is_ours, is_returned=is_ours)
        back = replace(back, returned=copy.returned + is_ours)
        self._put(back.became("retrying" if is_ours else "not_delivered", f"the mail came back: {reason}"))
        self._fall_back(number)
        if is_ours:
            self._wake_ups[number - 1].set()
        return True

    def try_now(self, channel: str, to: str) -> bool:
        """Try a delivery now that waits for its next attempt, or was given up.

        Returns False if there is nothing to try: it has arrived, is being tried, has a turn, or the request is decided.
        """
        mine = (copy for copy in reversed(self.all) if (copy.to.channel, place_name(copy.to)) == (channel, to))
        copy = next((copy for copy in mine if not copy.text and not copy.is_elsewhere), None)
        if copy is None or copy.delivery.state == "held" or self._closed.is_set():
            return False
        if (pause := self._pauses.get(copy.number)) is not None:
            pause.set()
            return True
        if copy.delivery.state != "not_delivered":
            return False
        until = self.request.deadline or now() + LONGEST_TRY
        copy = self._put(replace(copy, until=until, has_bounced=False).became("sending"))
        if copy.number in self._over:
            self._over.remove(copy.number)
            self._tasks.create_task(self._keep(copy.number))
        else:  # a mail that bounced, or a message that could neither be edited nor posted again
            self._put(replace(copy, due=(*copy.due, copy.occasion)))
            self._wake_ups[copy.number - 1].set()
        return True

    def close(self, *, stays: bool = False) -> None:
        """Send the outcome to everyone who got a card. Nothing else is sent after the decision.

        `stays`: the cards that have arrived are updated until `release`.
        """
        self._closed.set()
        self._stays = stays
        for pause in self._pauses.values():  # in the order of their beginnings, which the log keeps
            pause.set()
        for copy in self.all:
            self._put(
                replace(copy, due=("outcome",) if copy.is_mail and not copy.text and not copy.has_bounced else ())
            )

    def release(self) -> None:
        """Bring every card up to date once more, and end."""
        self._stays = False
        self.show(self.request)

    def _put(self, copy: Copy) -> Copy:
        """Store a copy. Derive it from the newest value, since another task may have changed it during an `await`.

        While the request is open, all cards show a failed delivery.
        """
        before, self.all[copy.number - 1] = self.all[copy.number - 1], copy
        is_failed = copy.delivery.state == "not_delivered"
        if not copy.text and not copy.is_elsewhere and (is_failed or copy.delivery.uncertain):
            self._troubles[copy.number] = copy.delivery
        else:
            self._troubles.pop(copy.number, None)
        if is_failed and before.delivery.state != "not_delivered" and not copy.text and not self._closed.is_set():
            self.failures += 1
            self.show(self.request)
        return copy

    def _add(self, to: Destination, occasion: Occasion, until: datetime, text: str = "") -> int:
        number = len(self.all) + 1
        delivery = CardDelivery(place_name(to), to.channel, "sending")
        self.all.append(Copy(number, to, occasion, until, delivery, text, round=self.round))
        self._wake_ups.append(asyncio.Event())
        self._tasks.create_task(self._keep(number))
        return number

    # One copy

    async def _keep(self, number: int) -> None:
        """Deliver one copy, then follow the request to its end."""
        copy = self.all[number - 1]
        if not await self._deliver(number, copy.occasion, copy.until):
            self._over.add(number)
            self._fall_back(number)
            self._send_outcome(number)
            return
        while True:
            copy = self.all[number - 1]
            match next_act(copy, self.version, is_closed=self._closed.is_set() and not self._stays):
                case "again":
                    if not await self._send_again(number):
                        self._over.add(number)
                        return
                case "edit":
                    await self._edit(number)
                case "send":
                    unseen = copy.unseen if copy.due[0] == "comment" else ()
                    self._put(replace(copy, due=copy.due[1:], unseen=() if unseen else copy.unseen))
                    if not await self._deliver(number, copy.due[0], now() + LONGEST_TRY, unseen):
                        await self._notify_otherwise(number, copy.due[0], unseen)
                case "wait":
                    self._wake_ups[number - 1].clear()
                    await self._wake_ups[number - 1].wait()
                case "end":
                    return

    def _send_outcome(self, number: int) -> None:
        """Notify the requester of the decision if it came before this card, which would have shown it."""
        copy, asked_by = self.all[number - 1], (self.request.requester, self.request.on_behalf_of)
        if not self._closed.is_set() or copy.text or copy.occasion == "outcome":
            return
        if copy.reader is not None and copy.reader in asked_by and not has_card(self.all, copy.reader):
            self.send([Notification(copy.to, "outcome")])

    async def _send_again(self, number: int) -> bool:
        """Send a mail again that came back, after a pause in which its fault may be mended. Longer each time."""
        copy = self._put(replace(self.all[number - 1], is_returned=False))
        until = self.request.deadline or now() + LONGEST_TRY
        pause = Pause(1, FILTERED * 2 ** min(copy.returned - 1, 6))
        if not self._closed.is_set() and not await self._wait(number, pause, copy.delivery.error, until):
            return False
        return await self._deliver(number, copy.occasion, until)

    async def _deliver(self, number: int, occasion: Occasion, until: datetime, unseen: tuple[int, ...] = ()) -> bool:
        """Send one message, again and again until it has arrived, is refused, or comes too late.

        `unseen`: the numbers of the comments it is about.
        """
        copy = self._put(replace(self.all[number - 1], sent=self.all[number - 1].sent + 1))
        delivery_id = f"{self.request.id}-{number}-{copy.sent}"
        tries, lost_at = 0, None
        while not is_pointless(copy, occasion, is_closed=self._closed.is_set()):
            tries += 1
            if copy.receipt is None and copy.reader is None:  # this card mentions everybody who is waited for now
                copy = self._put(replace(copy, due=tuple(one for one in copy.due if one == "comment")))
            thread, tried_at = copy.receipt, now()
            self._count_attempt(number, 1)
            dispatch = partial(self._dispatch, number, occasion, delivery_id, thread, lost_at, unseen)
            result = await attempt(send_copy(lazily(dispatch)))
            copy = self.all[number - 1]
            if isinstance(result, Delivered):
                self._put(copy.arrived(result))
                self._notify_missed(copy, occasion, result.missed)
                return True
            if isinstance(result, TryAgain) and result.held and result.after is not None:
                tries -= 1  # the channel held it back, so nothing was tried
                self._count_attempt(number, -1)
            elif isinstance(result, TryAgain):
                lost_at = lost_at or (tried_at if result.lost else None)
            if not await self._wait_after(number, tries, result, until):
                return False
            copy = self.all[number - 1]
        self._put(copy.dropped())
        return False

    async def _wait_after(self, number: int, tries: int, result: TryAgain | Refused, until: datetime) -> bool:
        """Wait after an attempt that failed. Returns False if there is no further one: refused, or too late."""
        copy = self.all[number - 1]
        pause = pause_after(tries, result, is_mail=copy.is_mail)
        if pause is None:
            self._put(copy.failed(result.error, result.code if isinstance(result, Refused) else None))
            return False
        if isinstance(result, Refused) and not copy.is_replaced:
            self._fall_back(number)
        is_held = isinstance(result, TryAgain) and result.held and result.after is not None
        retried: Retried = "" if copy.receipt is None else "reply"
        return await self._wait(number, pause, result.error, until, "held" if is_held else "retrying", retried)

    def _notify_missed(self, copy: Copy, occasion: Occasion, missed: tuple[str, ...]) -> None:
        """Send people whom a mention didn't reach a card of their own, unless they have voted since.

        People with a card elsewhere are notified there anyway; of a new stage, only those with a card of this stage.
        """
        for address in waiting_for(self.request) if occasion in ASKING else ():
            own = (one for one in self.all if one.round == self.round) if occasion == "request" else self.all
            if address in missed and not has_card(own, address):
                self.send([Notification(ToPerson(copy.to.channel, self.request.people[address]), occasion)])

    def _count_attempt(self, number: int, by: int) -> None:
        copy = self.all[number - 1]
        if copy.receipt is None:
            self._put(replace(copy, delivery=replace(copy.delivery, attempts=copy.delivery.attempts + by)))

    async def _edit(self, number: int) -> None:
        """Edit the message until it shows the newest card. If it can't be edited, reply in its thread."""
        until, tries = now() + LONGEST_TRY, 0
        while (copy := self.all[number - 1]).is_editable and copy.shown < self.version:
            assert copy.receipt is not None, "only what was delivered can be edited"
            newest = self.version
            dispatch = partial(self._dispatch, number, copy.occasion, f"{self.request.id}-{number}-1")
            match await attempt(update_copy(copy.receipt, lazily(dispatch))):
                case Delivered():
                    self._put(replace(self.all[number - 1], shown=newest).became("delivered"))
                    tries = 0
                case Refused(error, code="install") | TryAgain(error) as later:  # an operator mends the installation
                    after = later.after if isinstance(later, TryAgain) else None
                    is_held = isinstance(later, TryAgain) and later.held and after is not None
                    tries = 0 if is_held else tries + 1
                    state: Progress = "held" if is_held else "retrying"
                    is_in_time = await self._wait(number, Pause(tries, after), error, until, state, "update")
                    self._put(replace(self.all[number - 1], is_editable=is_in_time))
                case Refused():
                    self._put(replace(self.all[number - 1], is_editable=False))
                    await self._repost(number)

    async def _repost(self, number: int) -> None:
        """Reply in the thread of an uneditable message; if it is gone, post the card again."""
        if not await self._deliver(number, "outcome" if self._closed.is_set() else "change", now() + LONGEST_TRY):
            await self._post_again(number, "outcome" if self._closed.is_set() else "request")

    async def _notify_otherwise(self, number: int, occasion: Occasion, unseen: tuple[int, ...]) -> None:
        """Notify the readers of a message that was refused: by a new card if the old one is gone, else elsewhere."""
        copy = self.all[number - 1]
        if copy.code is None or copy.receipt is None or self._closed.is_set():
            return
        if not copy.is_mail:
            dispatch = partial(self._dispatch, number, copy.occasion, f"{self.request.id}-{number}-1")
            edited = await attempt(update_copy(copy.receipt, lazily(dispatch)))
            if isinstance(edited, Refused) and not edited.install:
                await self._post_again(number, occasion, unseen)
                return
        self._fall_back(number)

    async def _post_again(self, number: int, occasion: Occasion, unseen: tuple[int, ...] = ()) -> None:
        """Post the card again, in the place of a message that is gone; to its people directly if that is refused."""
        self._put(replace(self.all[number - 1], receipt=None, is_editable=False))
        if await self._deliver(number, occasion, now() + LONGEST_TRY, unseen):
            self._put(replace(self.all[number - 1], is_editable=True))
        else:
            self._fall_back(number)

    async def _wait(
        self,
        number: int,
        pause: Pause,
        error: str,
        until: datetime,
        state: Progress = "retrying",
        retried: Retried = "",
    ) -> bool:
        """Wait before the next attempt, until the decision, or until an operator asks for it.

        Returns False if there is no time left.
        """
        wait = pause.length(random().random)
        if now() + wait > until:
            self._put(self.all[number - 1].failed(error))
            return False
        self._put(self.all[number - 1].became(state, error, retried=retried))
        if self._closed.is_set():
            await asyncio.sleep(wait.total_seconds())
        else:
            # Not wait_for: Python 3.11 takes another number of turns of the loop for it than later versions, and a run
            # must go on where another Python left it.
            over = self._pauses[number] = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait.total_seconds()):
                    await over.wait()
            del self._pauses[number]
        return True

    def _fall_back(self, number: int) -> None:
        """Send the fallbacks to the same people, unless they were sent already."""
        copy = self.all[number - 1]
        if self._closed.is_set() and copy.occasion != "outcome":
            return
        for way in fallbacks(copy, self.request, self.all):
            other = newest_copy(self.all, way, copy.text)
            if other is not None and other.delivery.state == "not_delivered" and other.code in ELSEWHERE:
                continue  # they are on neither channel, so this copy's failure is shown
            copy = self._put(replace(self.all[number - 1], is_replaced=True))
            if other is None:
                self._add(way, copy.occasion, max(copy.until, now() + timedelta(minutes=5)), copy.text)
            elif other.round < copy.round:
                self.follow_up([self._put(replace(other, round=copy.round))], "request")

    def _dispatch(
        self,
        number: int,
        occasion: Occasion,
        delivery_id: str,
        thread: Receipt | None = None,
        lost_at: datetime | None = None,
        unseen: tuple[int, ...] = (),
    ) -> Dispatch:
        """Return what to send: the card as it is now. It mentions copies only if they are in trouble."""
        copy = self.all[number - 1]
        troubles = tuple(delivery for _, delivery in sorted(self._troubles.items()))
        shown = self.request.but(version=self.version, waiting_for=waiting_for(self.request), deliveries=troubles)
        card = shortened(card_of(shown, copy.reader, now()), LONGEST_MAIL_VALUE if copy.is_mail else LONGEST_VALUE)
        where = self._left.get(copy.to, "") if isinstance(copy.to, Place) and shown.is_open else ""
        card = moved(card, where) if where else card
        about = tuple(comment_of(shown, shown.comments[each - 1]) for each in unseen)
        people, groups = self._mentions(copy, occasion, thread, unseen)
        return Dispatch(
            delivery_id,
            copy.to,
            card,
            occasion,
            copy.text,
            thread,
            lost_at,
            comments=about,
            mention=people,
            mention_groups=groups,
        )

    def _mentions(
        self, copy: Copy, occasion: Occasion, thread: Receipt | None, unseen: tuple[int, ...]
    ) -> tuple[tuple[Person, ...], tuple[str, ...]]:
        """Return whom the message has to mention. A mail, and a card that only its reader sees, notify without."""
        if copy.text or copy.is_mail or copy.to in self._left or (thread is None and isinstance(copy.to, ToPerson)):
            return (), ()
        comments = [self.request.comments[each - 1] for each in unseen]
        readers = dict.fromkeys(reader for comment in comments for reader in readers_of(self.request, comment.act))
        return mentions(self.request, self.all, copy, occasion, tuple(readers))
