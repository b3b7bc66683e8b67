"""Who is told what: the cards of a stage, the reminders, the word to the requester. Where a card appears says nothing
about who may decide."""

from __future__ import annotations

from collections.abc import Iterator

from approvals_bot.approvals import notifications
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.notifications import Copies
from approvals_bot.approvals.port import EMAIL, Destination, Occasion, ToPerson
from approvals_bot.approvals.reassignment import Handover
from approvals_bot.approvals.stage import StageState
from approvals_bot.approvals.timers import StageTimers
from approvals_bot.people import Person


class Telling:
    """Sends the cards of one request to the places that its workflow's file names."""

    def __init__(self, case: Case, copies: Copies, timers: StageTimers) -> None:
        self._case = case
        self._deliver = case.definition.deliver
        self._copies = copies
        self._timers = timers
        self.recipients: dict[str, str] = {}  # opaque id → address: what a link may stand for
        self._remembered: set[str] = set()  # the addresses among them

    def send_cards(self, stage: StageState, occasion: Occasion, but: tuple[str, ...] = ()) -> None:
        """Send the stage's cards. A change was told in the copies there are, so only those without one get it."""
        people = [self._case.people[who] for who in stage.told]
        self._copies.told(people)
        if occasion == "request" and not but:
            for place in notifications.places(self._deliver):
                self._send(place, occasion)
        for person in people:
            if person.address in but or (occasion == "change" and self._copies.has_card(person.address)):
                continue
            for way in notifications.personal(self._deliver, person):
                self._send(way, occasion)

    def hand_over(self, done: Handover) -> None:
        """Ask this person at once, by a way of their own, and tell the person whose place they took."""
        for way in notifications.in_person(self._deliver, self._case.people[done.person]):
            self._send(way, "request")
        if done.instead_of and done.instead_of != done.by:
            self._copies.tell_one(done.instead_of, "handover")

    def send_late_mails(self, stage: StageState) -> None:
        """The mails that waited whether somebody votes without them."""
        for who in stage.told:
            if not self._copies.has_mail(who):
                self._send(ToPerson(EMAIL, self._case.people[who]), "request")

    def remind(self, stage: StageState) -> None:
        """Remind those who were told and still owe a vote."""
        self._copies.remind([self._case.people[who] for who in self._case.owed if who in stage.told])

    def tell_requester(self, occasion: Occasion) -> None:
        """Tell who asked, and for whom, unless a copy tells them anyway."""
        for person in self._requesters():
            if occasion == "outcome" and self._copies.has_card(person.address):
                continue
            if (way := notifications.to_requester(self._deliver, person)) is not None:
                self._send(way, occasion)

    def remember(self, address: str) -> None:
        """Give this person an opaque id, which links carry instead of her address."""
        if address not in self._remembered:
            self._remembered.add(address)
            self.recipients[str(len(self.recipients) + 1)] = address

    def _send(self, to: Destination, occasion: Occasion) -> None:
        if isinstance(to, ToPerson):
            self.remember(to.person.address)
        self._copies.send(to, occasion=occasion, until=self._timers.deadline)

    def _requesters(self) -> Iterator[Person]:
        for who in dict.fromkeys((self._case.about.requester, self._case.about.on_behalf_of)):
            if who in self._case.people:
                yield self._case.people[who]
