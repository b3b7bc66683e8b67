"""How each channel is, as one process knows it: from its deliveries, and from probes while there are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from approvals_bot.approvals.port import EMAIL, SLACK, Channel, ConnectionState, WithProbe
from approvals_bot.service.troubles import Troubles

IDLE = 30.0  # seconds without an attempt, after which a channel is probed
SOON = 5.0  # seconds at least between two probes, however many attempts fail
FAILURES = 3  # attempts in a row that fail, after which a channel without probes counts as down
LOOK_EVERY = 1.0  # seconds
PROBE_LIMIT = 10.0  # seconds

NAMES = {SLACK: "Slack", EMAIL: "the mail relay"}
MENDS = {SLACK: "Check [slack] and status.slack.com", EMAIL: "Check [email] and the relay"}


@dataclass(slots=True)
class _ChannelSeen:
    """What is known of a channel. Times in seconds are of the monotonic clock."""

    is_up: bool | None = None  # None: nothing was tried yet
    since: datetime | None = None
    why: str = ""
    failures: int = 0
    touched: float = 0.0
    probed: float = 0.0
    is_suspect: bool = False


class ChannelWatch:
    """Since when each channel delivers, or doesn't, in one process. It says so in the log, once."""

    def __init__(
        self,
        now: Callable[[], datetime],
        troubles: Troubles | None = None,
        changed: Callable[[str, bool], None] = lambda channel, up: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed` is called with each channel that has come up or gone down."""
        self._now = now
        self._troubles = troubles or Troubles(now)
        self._changed = changed
        self._monotonic = monotonic
        self._seen: dict[str, _ChannelSeen] = {}
        self._probed: Mapping[str, WithProbe] = {}

    def watch(self, channels: Mapping[str, Channel]) -> None:
        """Know these channels from now on: they count as up before the first attempt."""
        for name in channels:
            self._seen.setdefault(name, _ChannelSeen(touched=self._monotonic()))
            self._changed(name, True)
        self._probed = {name: each for name, each in channels.items() if isinstance(each, WithProbe)}

    def saw(self, channel: str, act: str, outcome: str) -> None:
        """Take note of an attempt. What is refused says nothing: that may be one address."""
        if outcome not in ("delivered", "uncertain", "try_again", "error"):
            return
        seen = self._seen.setdefault(channel, _ChannelSeen())
        seen.touched = self._monotonic()
        if outcome in ("delivered", "uncertain"):
            if not seen.is_up or seen.is_suspect or seen.failures:
                self._is(channel, seen, up=True)
            return
        seen.failures += 1
        seen.is_suspect = True
        if channel not in self._probed and seen.failures >= FAILURES:
            self._is(channel, seen, up=False)

    def probed(self, channel: str, state: ConnectionState) -> None:
        """Take note of a probe's result."""
        seen = self._seen.setdefault(channel, _ChannelSeen())
        seen.probed, seen.is_suspect = self._monotonic(), False
        if state.word != "connecting":
            self._is(channel, seen, up=state.word == "up", why=state.why)

    def _is(self, channel: str, seen: _ChannelSeen, *, up: bool, why: str = "") -> None:
        seen.why = why
        name = NAMES.get(channel, f"the channel {channel}")
        if up:
            seen.failures, seen.is_suspect = 0, False
        else:  # also if it was down before, maybe for another reason
            because = f" ({why})" if why else ""
            mend = MENDS.get(channel, f"Check [channels.{channel}]")
            text = f"{name} takes no deliveries now{because}; they are tried again"
            mend = f"{mend}, and run `approvals-bot doctor`"
            self._troubles.begin(f"channel {channel}", "channel_down", text, mend, channel=channel)
        if seen.is_up == up:
            return
        was, seen.is_up, seen.since = seen.is_up, up, self._now()
        if up and was is False:
            self._troubles.end(f"channel {channel}", "channel_back", f"{name} takes deliveries again")
        self._changed(channel, up)

    def of(self, channel: str) -> tuple[bool | None, datetime | None, str]:
        """Return whether it is up, since when, and what was said if it is not. None: nothing was tried yet."""
        seen = self._seen.get(channel, _ChannelSeen())
        return seen.is_up, seen.since, seen.why

    @property
    def words(self) -> dict[str, Literal["up", "down"]]:
        """The state of each channel. Before anything was tried, it is up."""
        return {name: "down" if seen.is_up is False else "up" for name, seen in sorted(self._seen.items())}

    def due(self) -> Iterable[tuple[str, WithProbe]]:
        """Return the channels to probe now: idle ones, and those whose last attempt failed."""
        now = self._monotonic()
        for name, channel in self._probed.items():
            seen = self._seen[name]
            pause = now - max(seen.touched, seen.probed)
            if pause >= IDLE or (seen.is_suspect and now - seen.probed >= SOON):
                yield name, channel

    async def keep_probing(self) -> None:
        """Probe until cancelled. A probe that hangs says that the channel is down."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for name, channel in [*self.due()]:
                self.probed(name, await _probe(channel))


async def _probe(channel: WithProbe) -> ConnectionState:
    with suppress(TimeoutError):
        async with asyncio.timeout(PROBE_LIMIT):
            try:
                return await channel.probe()
            except Exception as error:  # noqa: BLE001  # a channel may come from another package
                return ConnectionState("down", type(error).__name__)
    return ConnectionState("down", "no answer in time")
