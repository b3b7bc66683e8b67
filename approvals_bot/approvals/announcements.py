"""What a change of a request sends, and to whom: to a stage's people, to the requester, to the readers of a comment.

The functions of `notifications` and `talk` decide; here their notifications go to the request's copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from approvals_bot.approvals.acts import Comment
from approvals_bot.approvals.copies import Copies
from approvals_bot.approvals.delivery_policy import Deliver
from approvals_bot.approvals.notifications import (
    Notification,
    emergency_notifications,
    escalation_notifications,
    requester_notifications,
    stage_notifications,
    to_new_approver,
)
from approvals_bot.approvals.port import Occasion, ToPerson
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.stages import with_recipients
from approvals_bot.approvals.talk import comment_cards, comment_copies


class Announcements:
    """The notifications of one request."""

    def __init__(self, copies: Copies, for_requester: Deliver) -> None:
        """`for_requester`: the delivery by which the requester, and those who only comment, are notified."""
        self._copies = copies
        self._for_requester = for_requester

    def stage(self, request: Request, deliver: Deliver, occasion: Occasion, notified: tuple[str, ...] = ()) -> None:
        """Send the open stage's cards. `notified`: people who had theirs before."""
        self._copies.send(stage_notifications(request, deliver, self._copies.all, occasion, notified))

    def found(self, request: Request, deliver: Deliver, notified: tuple[str, ...], escalated: Sequence[str]) -> None:
        """Send cards to people who weren't found before, and to those to whom the stage escalates now."""
        self.stage(request, deliver, "request", (*notified, *escalated))
        self._copies.send(escalation_notifications(request, deliver, escalated))

    def reassigned(self, request: Request, deliver: Deliver, stage_id: str) -> None:
        """Send the new approver their own card, and notify the person whose place they took."""
        act = next(stage for stage in request.stages if stage.id == stage_id).reassignments[-1].act
        self._copies.send(Notification(way, "request") for way in to_new_approver(deliver, request.people[act.person]))
        if act.instead_of and act.instead_of != act.by:
            self._copies.notify_one(act.instead_of, "reassigned")

    def comment(self, request: Request, comment: Comment) -> Request:
        """Notify those who have to do with the request, each where they got their card. Returns it with them."""
        cards = [*comment_cards(request, self._for_requester, self._copies.all, comment)]
        request = with_recipients(request, _people(cards))
        self._copies.notify_comment(comment_copies(request, self._copies.all, comment), len(request.comments))
        self._copies.send(cards)
        return request

    def to_requester(self, request: Request, occasion: Occasion) -> Request:
        """Notify the requester, and the person they act for. Returns the request with them."""
        cards = [*requester_notifications(request, self._for_requester, self._copies.all, occasion)]
        self._copies.send(cards)
        return with_recipients(request, _people(cards))

    def emergency(self, request: Request, people: Sequence[str]) -> Request:
        """Notify these people that a request was approved without a vote. Returns it with them."""
        self._copies.send(emergency_notifications(request, self._for_requester, people))
        return with_recipients(request, people)


def _people(notifications: Iterable[Notification]) -> list[str]:
    return [sent.to.person.address for sent in notifications if isinstance(sent.to, ToPerson)]
