"""For the tests of those who write workflows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.engine.clock import Settles


class FakeClock:
    """A clock that stands still until you move it."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
        self._engines: list[Settles] = []

    def now(self) -> datetime:
        return self._now

    async def advance(self, duration: Duration) -> None:
        """Move time on, stopping at every moment when an open engine has something to do, and return when it is
        done.
        """
        target = self._now + timedelta(seconds=as_seconds(duration, self._now))
        while True:
            for engine in self._engines:
                await engine.settle()
            wakes = [wake for engine in self._engines if (wake := await engine.next_wake()) is not None]
            following = min((wake for wake in wakes if wake > self._now), default=None)
            if following is None or following > target:
                break
            self._now = following
        self._now = target
        for engine in self._engines:
            await engine.settle()

    def attach(self, engine: Settles) -> None:
        self._engines.append(engine)

    def detach(self, engine: Settles) -> None:
        self._engines.remove(engine)
