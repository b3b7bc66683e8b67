"""A channel whose results are counted, for the metrics. Never to whom: only which channel, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
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
        try:
            result = await self._channel.send(dispatch)
        except Exception:
            self._count(self._name, "send", "error")
            raise
        self._count(self._name, "send", _outcome(result))
        return result

    async def update(self, receipt: Receipt, dispatch: Dispatch) -> Result:
        try:
            result = await self._channel.update(receipt, dispatch)
        except Exception:
            self._count(self._name, "update", "error")
            raise
        self._count(self._name, "update", _outcome(result))
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
