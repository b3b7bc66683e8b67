"""A channel whose results are counted, for the metrics. Never to whom: only which channel, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from approvals_bot.channels import Channel, Delivered, Dispatch, Receipt, Refused, Result, TryAgain

Count = Callable[[str, Literal["send", "update"], str], None]
"""`count(channel, act, outcome)`, the outcome being `delivered`, `uncertain`, `try_again`, `refused` or `error`."""


class CountedChannel:
    """Hands everything to `channel`, and tells `count` of each attempt."""

    def __init__(self, channel: Channel, name: str, count: Count) -> None:
        self._channel = channel
        self._name = name
        self._count = count

    async def send(self, dispatch: Dispatch) -> Result:
        return await self._counted("send", self._channel.send(dispatch))

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        return await self._counted("update", self._channel.update(receipt, dispatch))

    async def _counted(self, act: Literal["send", "update"], attempt: Awaitable[Result]) -> Result:
        try:
            result = await attempt
        except Exception:
            self._count(self._name, act, "error")
            raise
        self._count(self._name, act, _outcome(result))
        return result


def _outcome(result: Result) -> str:
    match result:
        case Delivered(uncertain=True):
            return "uncertain"
        case Delivered():
            return "delivered"
        case TryAgain():
            return "try_again"
        case Refused():
            return "refused"
