"""How one copy is delivered, and kept true until the request ends. Each copy has its own task.

It tries to deliver until the stage's deadline, else for 48 hours, first again after at most 5 seconds, then ever more
rarely, up to every 15 minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from approvals_bot.approvals.handing_to_channels import (
    LONGEST_VALUE,
    send_copy,
    shortened,
    tried,
    until_next,
    update_copy,
)
from approvals_bot.approvals.one_copy import Copy, Progress
from approvals_bot.approvals.pace import LONGEST_TRY
from approvals_bot.approvals.port import Card, Delivered, Dispatch, Occasion, Receipt, Refused, TryAgain
from approvals_bot.approvals.when_needed import when_needed
from approvals_bot.durable.core.api import now

ALL_DOWN = timedelta(minutes=1)
"""How long to leave a channel alone that refuses everything."""

TOO_LATE = "it was decided before this could be delivered"


class Deliveries:
    """Delivers the copies of one request."""

    def __init__(
        self,
        *,
        run_id: str,
        card: Callable[[str | None], Card],
        newest: Callable[[], int],
        closed: asyncio.Event,
        becomes: Callable[[Copy, Progress, str], None],
        fall_back: Callable[[Copy], None],
    ) -> None:
        """`card(reader)`: the card as it is now, and `newest()`: its version. `closed`: the request is decided.
        `becomes` is told of each copy's progress, `fall_back` takes another way."""
        self._run_id = run_id
        self._card = card
        self._newest = newest
        self._closed = closed
        self._becomes = becomes
        self._fall_back = fall_back
        self.version = 0  # what every Slack message is to show

    async def keep(self, copy: Copy) -> None:
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
            match await tried(send_copy(when_needed(dispatch))):
                case Delivered(receipt, uncertain):
                    if copy.receipt is None:
                        copy.receipt, copy.shown, copy.is_uncertain = receipt, receipt.version, uncertain
                    copy.is_replaced = False
                    self._becomes(copy, "delivered", "")
                    return True
                case Refused(error, install) if install and copy.kind == "email":
                    # All mail is down, by a password perhaps: nothing is wrong with this one. It takes another way if
                    # there is one, and goes out once somebody has mended the relay.
                    if not copy.is_replaced:
                        self._fall_back(copy)
                    if not await self._wait(copy, until_next(tries, ALL_DOWN), error, until):
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
                    if not await self._wait(copy, until_next(paced, after), error, until):
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
            match await tried(update_copy(copy.receipt, when_needed(dispatch))):
                case Delivered():
                    copy.shown, tries = newest, 0
                    self._becomes(copy, "delivered", "")
                case Refused():
                    copy.is_editable = False
                    await self._replace(copy)
                case TryAgain(error, after):
                    tries += 1
                    copy.is_editable = await self._wait(copy, until_next(tries, after), error, until)

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

    def _dispatch(
        self,
        copy: Copy,
        occasion: Occasion,
        delivery_id: str,
        thread: Receipt | None = None,
        lost_at: datetime | None = None,
    ) -> Dispatch:
        card = shortened(self._card(copy.reader), LONGEST_VALUE[copy.kind])
        return Dispatch(delivery_id, copy.to, card, occasion, copy.text, thread, lost_at)
