"""What time it is. The engine never asks anything else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol, runtime_checkable


class TimeSource(Protocol):
    def now(self) -> datetime:
        """An aware UTC datetime."""


class Settles(Protocol):
    """What a clock that can be moved needs of an engine."""

    async def next_wake(self) -> datetime | None: ...
    async def settle(self) -> None: ...


@runtime_checkable
class MovableClock(Protocol):
    """A clock for tests and the playground: who moves it lets the engine catch up on the way."""

    def attach(self, engine: Settles) -> None: ...
    def detach(self, engine: Settles) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)
