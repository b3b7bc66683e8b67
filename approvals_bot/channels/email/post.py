"""Outgoing mail: a dispatch becomes a mail, waits for the relay's rate limit, and goes to the relay."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from approvals_bot.approvals.port import Delivered, Dispatch, Receipt, Refused, Result, ToPerson, TryAgain
from approvals_bot.channels.email import letter
from approvals_bot.channels.email.bounces import TOGETHER, ReturnPaths
from approvals_bot.channels.email.message import (
    Address,
    InvalidAddressError,
    OutgoingMail,
    compose,
    compose_together,
    message_id_of,
)
from approvals_bot.channels.email.replies import ReplyAddresses
from approvals_bot.channels.email.smtp import Accepted, Lost, Relay, Turns

REMEMBERED = 2_000  # deliveries in progress whose first date, or lost answer, is kept in memory


class Mailer:
    """Cards by mail. A sent mail can't change, so `update` does nothing: its link shows the latest state."""

    def __init__(
        self,
        *,
        relay: Relay,
        sender: str,
        now: Callable[[], datetime],
        turns: Turns | None = None,
        return_paths: ReturnPaths | None = None,
        replies: ReplyAddresses | None = None,
    ) -> None:
        """Set it up. `turns`: the relay's rate limit, if any.

        `return_paths`: where bounces go; None: to the sender. `replies`: where replies go; None: to the requester.
        """
        self._relay = relay
        self._sender = Address.parse_sender(sender)
        self._now = now
        self._turns = turns
        self._return_paths = return_paths
        self._replies = replies
        self._under_way: OrderedDict[str, _Attempt] = OrderedDict()

    async def send(self, dispatch: Dispatch) -> Result:
        return (await self._send([dispatch], dispatch.delivery_id))[0]

    async def send_together(self, dispatches: Sequence[Dispatch]) -> Sequence[Result]:
        """Send several to one person in one mail, with a result for each. Later mails don't join its thread."""
        return await self._send(dispatches, " ".join(dispatch.delivery_id for dispatch in dispatches))

    async def answer(self, dispatch: Dispatch) -> None:
        """Answer somebody's mail, once: from the null sender, so nothing answers it in turn (RFC 3834)."""
        mail = compose(dispatch, sender=self._sender, now=self._now())
        await self._relay.deliver(replace(mail, sender=""))

    async def _send(self, dispatches: Sequence[Dispatch], key: str) -> Sequence[Result]:
        attempt = self._under_way.get(key) or _Attempt(self._now())
        try:
            mail = self._composed(dispatches, attempt.date)
        except InvalidAddressError as reason:
            return [Refused(str(reason))] * len(dispatches)
        if later := self._wait_turn(key, dispatches[0]):
            return [later] * len(dispatches)
        match await self._relay.deliver(mail):
            case Accepted():
                self._under_way.pop(key, None)
                return [self._delivered(dispatch, attempt) for dispatch in dispatches]
            case Lost(error):
                self._remember(key, _Attempt(attempt.date, lost=True))
                return [TryAgain(error, lost=True)] * len(dispatches)
            case TryAgain() as later:
                self._remember(key, attempt)
                return [later] * len(dispatches)
            case Refused() as never:
                self._under_way.pop(key, None)
                return [never] * len(dispatches)

    def _composed(self, dispatches: Sequence[Dispatch], date: datetime) -> OutgoingMail:
        if len(dispatches) == 1:
            replies_to = self._replies.of(dispatches[0]) if self._replies is not None else None
            mail = compose(dispatches[0], sender=self._sender, now=date, replies_to=replies_to)
        else:
            mail = compose_together(dispatches, sender=self._sender, now=date, more=self._named(dispatches))
        back = self._return_paths.of(dispatches[0].delivery_id) if self._return_paths else None
        return replace(mail, sender=back) if back else mail

    def _named(self, dispatches: Sequence[Dispatch]) -> dict[str, str]:
        """Return the header that names every copy in this mail, so a bounce reaches all of them."""
        if self._return_paths is None:
            return {}
        return {TOGETHER: self._return_paths.of_together([dispatch.delivery_id for dispatch in dispatches])}

    def _delivered(self, dispatch: Dispatch, attempt: _Attempt) -> Delivered:
        assert isinstance(dispatch.to, ToPerson), "mail goes to a mailbox"
        message_id = message_id_of(dispatch.delivery_id, self._sender.domain)
        address, version = dispatch.to.person.address, dispatch.card.version
        receipt = Receipt(address, message_id, version, letter.subject(dispatch))
        return Delivered(receipt, uncertain=attempt.lost or dispatch.lost_at is not None)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return Delivered(receipt)

    async def aclose(self) -> None:
        await self._relay.aclose()

    def _wait_turn(self, key: str, dispatch: Dispatch) -> TryAgain | None:
        """Return when to come back, if the relay's rate limit is used up.

        A code counts, but is never held back: somebody is waiting for it on the page.
        """
        if self._turns is None:
            return None
        wait = self._turns.wait(key, self._now())
        if not wait or dispatch.occasion == "code":
            return None
        return TryAgain(f"waiting its turn: the relay takes no more than {self._turns}", wait, held=True)

    def _remember(self, key: str, attempt: _Attempt) -> None:
        self._under_way[key] = attempt
        while len(self._under_way) > REMEMBERED:
            self._under_way.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A mail that will be tried again. It keeps its first date."""

    date: datetime
    lost: bool = False  # an answer was lost, so it may have arrived
