"""The mail channel: a dispatch becomes a mail, waits its turn, and is handed to the relay."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from inspect import isawaitable

from approvals_bot.channels import Delivered, Dispatch, Mailbox, Receipt, Refused, Result, TryAgain
from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.message import Address, InvalidAddressError, compose
from approvals_bot.channels.email.smtp import Accepted, Lost, Relay
from approvals_bot.channels.email.turns import Turns

REMEMBERED = 2_000  # deliveries under way whose first date, or lost answer, is kept in memory

Link = Callable[[str, str], str | Awaitable[str]]
"""`link(hook_id, address)`: this person's own page of the request, "" if she has none. Made when the mail is sent, so
that no link is ever in a log."""


class EmailChannel:
    """Sends cards by mail. A mail can't be changed, so `update` leaves it: its link shows the newest state."""

    def __init__(
        self,
        *,
        relay: Relay,
        sender: str,
        link: Link,
        now: Callable[[], datetime],
        turns: Turns | None = None,
        return_paths: ReturnPaths | None = None,
    ) -> None:
        """`turns`: how much the relay may be given; None: as much as there is. `return_paths`: where mails come back
        to; None: to the sender.
        """
        self._relay = relay
        self._sender = Address.parse_sender(sender)
        self._link = link
        self._now = now
        self._turns = turns
        self._return_paths = return_paths
        self._under_way: OrderedDict[str, _Attempt] = OrderedDict()

    async def send(self, dispatch: Dispatch) -> Result:
        assert isinstance(dispatch.to, Mailbox), "mail goes to a mailbox"
        attempt = self._under_way.get(dispatch.delivery_id) or _Attempt(self._now())
        link = self._link(dispatch.card.hook_id, dispatch.to.person.address)
        link = (await link if isawaitable(link) else link) or dispatch.card.url
        try:
            mail = compose(dispatch, sender=self._sender, link=link, now=attempt.date)
        except InvalidAddressError as reason:
            return Refused(str(reason))
        if self._return_paths and (return_path := self._return_paths.of(dispatch.delivery_id)):
            mail = replace(mail, sender=return_path)
        if later := self._wait_turn(dispatch):
            return later
        match await self._relay.deliver(mail):
            case Accepted():
                self._under_way.pop(dispatch.delivery_id, None)
                receipt = Receipt(dispatch.to.person.address, mail.message_id, dispatch.card.version)
                return Delivered(receipt, uncertain=attempt.lost or dispatch.lost_at is not None)
            case Lost(error):
                self._remember(dispatch.delivery_id, _Attempt(attempt.date, lost=True))
                return TryAgain(error, lost=True)
            case TryAgain() as later:
                self._remember(dispatch.delivery_id, attempt)
                return later
            case Refused() as never:
                self._under_way.pop(dispatch.delivery_id, None)
                return never

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return Delivered(receipt)

    async def aclose(self) -> None:
        await self._relay.aclose()

    def _wait_turn(self, dispatch: Dispatch) -> TryAgain | None:
        """When the relay has had its share for now: to come back later. Who waits for her code waits at the page, so
        it is counted and not held back."""
        if self._turns is None:
            return None
        wait = self._turns.wait(dispatch.delivery_id, self._now())
        if not wait or dispatch.occasion == "code":
            return None
        return TryAgain(f"waits its turn: the relay is given no more than {self._turns}", wait, held=True)

    def _remember(self, delivery_id: str, attempt: _Attempt) -> None:
        self._under_way[delivery_id] = attempt
        while len(self._under_way) > REMEMBERED:
            self._under_way.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A mail that was tried and is to be tried again: it keeps its first date."""

    date: datetime
    lost: bool = False  # an answer was lost, so it may have arrived
