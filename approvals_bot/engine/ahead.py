"""What follows from a write, decided before it, so that both share a commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.events import Log
from approvals_bot.engine.replaying import Replayed, Replayer
from approvals_bot.engine.turn import Standing, Turn, decide
from approvals_bot.errors import LimitExceededError, SerializationError
from approvals_bot.store import Append

T = TypeVar("T")


@dataclass(slots=True)
class Ahead:
    """The turn that follows, and the replay that it was decided from. No turn: it is decided, and told what is wrong,
    once the write is safe."""

    turn: Turn | None = None
    replayed: Replayed | None = None

    def append(self, run_id: str, epoch: int, expected: int, at: datetime) -> Append | None:
        """To be written behind `expected` events."""
        return None if self.turn is None else self.turn.append(run_id, epoch, expected, at)

    def handed_on(self) -> Replayed | None:
        """The replay, for who works on the run now, and closes it."""
        replayed, self.replayed = self.replayed, None
        return replayed


@contextmanager
def decided_ahead(
    replayer: Replayer, workflow: Workflow[Any, Any] | None, log: Log, now: datetime, entropy: bytes
) -> Iterator[Ahead]:
    """What follows from a log of which the last event is not written yet; nothing, if that is not plain and quick, or
    the workflow isn't known here."""
    ahead = Ahead()
    if workflow is not None and log:
        ahead.replayed = replayer.begin(workflow, entropy)
        with suppress(Exception):  # whatever it is, the run hears of it when it is worked on
            outcome = ahead.replayed.at_once(log)
            ahead.turn = None if outcome is None else decide(Standing(log), [], outcome, now)
    try:
        yield ahead
    finally:
        if ahead.replayed is not None:
            ahead.replayed.close()


async def together(write: Callable[[Append | None], Awaitable[T]], then: Append | None) -> T:
    """Write, with what follows if that can be kept; if not, the run hears of it when it is worked on."""
    try:
        return await write(then)
    except (LimitExceededError, SerializationError):
        if then is None:
            raise
        return await write(None)
