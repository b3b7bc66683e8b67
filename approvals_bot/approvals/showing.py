"""What is seen of a request while its run goes on: the view that is published, and the cards that leave."""

from __future__ import annotations

from collections.abc import Callable

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.case import Case
from approvals_bot.approvals.follow_ups import FollowUps
from approvals_bot.approvals.notifications import Copies
from approvals_bot.approvals.port import Card
from approvals_bot.approvals.request import Request
from approvals_bot.approvals.telling import Telling
from approvals_bot.approvals.timers import StageTimers
from approvals_bot.approvals.views import view_of
from approvals_bot.durable.core.api import now


class Showing:
    """Makes views and cards of one request, and no more of them than are needed."""

    def __init__(
        self,
        case: Case,
        *,
        run_id: str,
        number: int,
        title: Callable[[], str],
        copies: Copies,
        timers: StageTimers,
        telling: Telling,
    ) -> None:
        self._case = case
        self._run_id = run_id
        self._number = number
        self._title = title
        self._asked_at = now()
        self._copies = copies
        self._timers = timers
        self._telling = telling
        self._seen: tuple[object, Request] | None = None
        self.hook_id = ""  # once there is one
        self.follow_ups: FollowUps | None = None  # once it is decided

    def card(self, reader: str | None) -> Card:
        """What leaves shows which copies are in trouble, and nothing that changes while all goes well."""
        return card_of(self.known().model_copy(update={"deliveries": self._copies.troubles()}), reader, now())

    def view(self) -> Request:
        """Everything that is seen of this request now."""
        return self.known().model_copy(
            update={
                "timers": self._timers.show(now()) if self._case.outcome is None else (),
                "deliveries": self._copies.show(),
                "follow_ups": self.follow_ups.show() if self.follow_ups else (),
            }
        )

    def known(self) -> Request:
        """What is seen of the case, made once for all readers as long as it stays as it is."""
        recipients = self._telling.recipients
        stamp = (self._case.stamp, self.hook_id, self._timers.deadline, self._timers.then, len(recipients))
        if self._seen is None or self._seen[0] != stamp:
            view = view_of(
                self._case,
                run_id=self._run_id,
                number=self._number,
                hook_id=self.hook_id,
                title=self._title(),
                asked_at=self._asked_at,
                deadline=self._timers.deadline,
                on_deadline=self._timers.then,
                recipients=recipients,
            )
            self._seen = stamp, view
        return self._seen[1]
