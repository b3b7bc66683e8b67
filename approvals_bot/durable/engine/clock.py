"""The engine's clocks. It reads the time from nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol, runtime_checkable


class TimeSource(Protocol):
    def now(self) -> datetime:
        """Return an aware UTC datetime."""


class Settles(Protocol):
    """The part of an engine that a movable clock needs."""

    async def next_wake(self) -> datetime | None: ...
    async def settle(self) -> None: ...


@runtime_checkable
class MovableClock(Protocol):
    """A clock for tests and the playground. Moving it lets the open engine catch up on the way."""

    def attach(self, engine: Settles) -> None: ...
    def detach(self, engine: Settles) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)
