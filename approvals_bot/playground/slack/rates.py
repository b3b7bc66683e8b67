"""Slack's rate limits, for those who switch them on: a bucket per method, and one message per second and channel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from math import ceil

from approvals_bot.playground.slack.methods import CALLS_PER_MINUTE, Method

SECONDS_PER_MESSAGE = 1.0
BURST_OF_MESSAGES = 3  # Slack lets a short burst through before it says 429


class Rates:
    """Token buckets on an injected clock. Off until `on` is set."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.on = False
        self.now = now
        self.buckets: dict[tuple[str, str], tuple[float, float]] = {}  # (method, channel) → (tokens, at)

    def wait(self, method: Method, channel: str | None) -> int:
        """Whole seconds that the caller must wait; 0 when the call may pass (it is then counted)."""
        if not self.on:
            return 0
        per_minute = CALLS_PER_MINUTE[method.tier]
        waits = [self.take((method.name, ""), per_minute / 60, per_minute)]
        if method.name == "chat.postMessage" and channel:
            waits.append(self.take((method.name, channel), 1 / SECONDS_PER_MESSAGE, BURST_OF_MESSAGES))
        return max(waits)

    def take(self, key: tuple[str, str], per_second: float, most: float) -> int:
        at = self.now().timestamp()
        tokens, since = self.buckets.get(key, (most, at))
        tokens = min(most, tokens + (at - since) * per_second)
        if tokens < 1:
            self.buckets[key] = (tokens, at)
            return max(1, ceil((1 - tokens) / per_second))
        self.buckets[key] = (tokens - 1, at)
        return 0
