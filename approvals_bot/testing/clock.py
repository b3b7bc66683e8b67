"""A clock for tests of workflows on a real engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.engine.clock import Settles


class FakeClock:
    """A clock that only moves when you move it.

    Example:
        clock = FakeClock()
        async with Engine.open("sqlite:///runs.db", clock=clock) as engine:
            run = await engine.start(expense, 420)
            await clock.advance("1 day")
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
        self._engines: list[Settles] = []

    def now(self) -> datetime:
        return self._now

    async def advance(self, duration: Duration) -> None:
        """Advance the time, and let open engines do what becomes due on the way. Returns once they are idle."""
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
