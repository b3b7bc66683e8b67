"""Digests: after the first few requests in a row, a person gets the rest together in one mail.

Each held mail waits in its own run, until a time that is written in that run's log. All mails held for one person come
back at the same time, meet here, and leave as one mail. So a restart loses nothing; at worst some of them wait once
more, or arrive one by one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from approvals_bot.approvals.port import Dispatch, Receipt, Result, ToPerson, TryAgain
from approvals_bot.channels.email.post import Mailer

SINGLES = 5  # mails to one person within a span that are sent one by one
URGENT = 4  # spans: a request that is due within so many is never held
MOST = 50  # requests in one mail
TOGETHER = 2.0  # seconds to wait for those that come back at the same time
PEOPLE = 2_000  # whose recent mails are remembered


@dataclass(eq=False)
class _Reader:
    """One person's recent mails, and those held for them."""

    singles: OrderedDict[str, datetime] = field(default_factory=OrderedDict)  # delivery id → when it first went out
    turn: datetime | None = None  # when the held mails go out
    held: set[str] = field(default_factory=set)
    back: deque[tuple[Dispatch, asyncio.Future[Result]]] = field(default_factory=deque)


class Digests:
    """The mail channel with digests.

    A person gets five requests per span one by one, the rest together at its end. Only requests and reminders are held,
    and never urgent ones.
    """

    def __init__(
        self,
        channel: Mailer,
        *,
        span: timedelta,
        now: Callable[[], datetime],
        together: float = TOGETHER,
    ) -> None:
        self._channel = channel
        self._span = span
        self._now = now
        self._together = together
        self._readers: OrderedDict[str, _Reader] = OrderedDict()

    async def send(self, dispatch: Dispatch) -> Result:
        assert isinstance(dispatch.to, ToPerson), "mail goes to a mailbox"
        if not self._may_wait(dispatch):
            return await self._channel.send(dispatch)
        now, reader = self._now(), self._reader(dispatch.to.person.address)
        if dispatch.delivery_id in reader.held:
            assert reader.turn is not None, "a held mail has a time to leave"
            if now < reader.turn:
                return self._hold(reader.turn - now)
            result = await self._join(reader, dispatch)
            if not isinstance(result, TryAgain):
                reader.held.discard(dispatch.delivery_id)
            return result
        if self._is_among_the_first(reader, dispatch.delivery_id, now):
            return await self._channel.send(dispatch)
        if reader.turn is None or reader.turn <= now:
            reader.turn = now + self._span
        reader.held.add(dispatch.delivery_id)
        return self._hold(reader.turn - now)

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self._channel.update(receipt, dispatch)

    async def aclose(self) -> None:
        await self._channel.aclose()

    def _may_wait(self, dispatch: Dispatch) -> bool:
        card = dispatch.card
        if dispatch.occasion not in ("request", "reminder") or dispatch.text or card.outcome or not card.choices:
            return False
        return card.deadline is None or card.deadline - self._now() > URGENT * self._span

    def _hold(self, wait: timedelta) -> TryAgain:
        return TryAgain("held for a digest: this person gets many requests, so they come in one mail", wait, held=True)

    def _is_among_the_first(self, reader: _Reader, delivery_id: str, now: datetime) -> bool:
        """Whether this mail goes out on its own; if so, its retries do, too."""
        while reader.singles and next(iter(reader.singles.values())) <= now - self._span:
            reader.singles.popitem(last=False)
        if delivery_id not in reader.singles:
            if len(reader.singles) >= SINGLES:
                return False
            reader.singles[delivery_id] = now
        return True

    async def _join(self, reader: _Reader, dispatch: Dispatch) -> Result:
        """Wait a moment for the others; the first to arrive sends them all."""
        arrived: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        reader.back.append((dispatch, arrived))
        if len(reader.back) > 1:
            return await arrived
        together: list[tuple[Dispatch, asyncio.Future[Result]]] = []
        try:
            await asyncio.sleep(self._together)
            while reader.back:
                together = [reader.back.popleft() for _ in range(min(MOST, len(reader.back)))]
                together.sort(key=lambda held: (held[0].card.asked_at, held[0].card.title))
                results = await self._channel.send_together([dispatch for dispatch, _ in together])
                for (_, waiting), result in zip(together, results, strict=True):
                    if not waiting.done():
                        waiting.set_result(result)
        finally:
            for _, waiting in [*together, *reader.back]:  # only if this was interrupted
                if not waiting.done():
                    waiting.set_result(TryAgain("was interrupted before it could be sent"))
            reader.back.clear()
        return await arrived

    def _reader(self, address: str) -> _Reader:
        reader = self._readers.setdefault(address, _Reader())
        self._readers.move_to_end(address)
        if len(self._readers) > PEOPLE:
            self._readers.popitem(last=False)
        return reader
