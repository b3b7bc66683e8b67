"""One try at something outside, as a step whose result is in the log, and how long to wait before the next.

A copy is sent or updated by its channel, a target is called. What failed is tried first again after at most 5 seconds,
then ever more rarely, up to every 15 minutes, for 48 hours where no deadline ends it before.

A step that is in the log takes the input that the log has. Making a card for it on every replay would cost more than
all the rest of the replay, so such arguments are made only when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, TypeVar, cast

from pydantic import BeforeValidator, JsonValue

from approvals_bot.approvals.port import (
    CallResult,
    Card,
    Channels,
    Dispatch,
    Receipt,
    Refused,
    Result,
    Targets,
    TryAgain,
)
from approvals_bot.durable.core.api import resource, step
from approvals_bot.errors import StepFailedError

LONGEST_TRY = timedelta(hours=48)
"""How long a delivery is tried where no deadline ends it before."""

FIRST_WAIT = 4.0  # seconds; with the jitter, 2 to 4
LONGEST_WAIT = 900.0  # seconds
ALL_DOWN = timedelta(minutes=1)
"""How long to leave a channel alone that refuses everything."""

LONGEST_VALUE, LONGEST_MAIL_VALUE = 9_000, 24_000
"""Characters of one field that are handed to a channel, and so are in the log: more than it ever shows."""

R = TypeVar("R")
T = TypeVar("T")


class LazyArgumentError(Exception):
    """Making it raised `cause`: a ValueError, which pydantic would take for a complaint of its own."""

    def __init__(self, cause: ValueError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class _Lazy:
    make: Callable[[], Any]


def lazily(make: Callable[[], T]) -> T:
    """An argument for a parameter that is `Annotated[…, MADE_WHEN_NEEDED]`: made at the call, unless it is recorded.

    Only for calls of steps inside a workflow. The call raises NotMadeError where `make` raises ValueError. Nothing else
    that the workflow does may depend on whether it was made.
    """
    return cast(T, _Lazy(make))


def _made(value: Any) -> Any:
    if not isinstance(value, _Lazy):
        return value
    try:
        return value.make()
    except ValueError as error:
        raise LazyArgumentError(error) from error


LAZY = BeforeValidator(_made)

LazyDispatch = Annotated[Dispatch, LAZY]


@step(retries=0, timeout=120.0)  # seconds; a channel answers within 45, so this ends only what hangs
async def send_copy(dispatch: LazyDispatch, channels: Channels = resource(Channels)) -> Result:
    """Deliver a new copy, or a follow-up in its thread."""
    return await channels.send(dispatch)


@step(retries=0, timeout=120.0)
async def update_copy(receipt: Receipt, dispatch: LazyDispatch, channels: Channels = resource(Channels)) -> Result:
    """Show the newest card in a copy that was delivered."""
    return await channels.send(dispatch, receipt)


async def attempt(sending: Coroutine[Any, Any, R]) -> R | TryAgain:
    """Await a step. A bug in a channel must not end the request, and may be mended while it waits."""
    try:
        return await sending
    except StepFailedError as failure:
        return TryAgain(failure.cause_message, lost=True)


@step(retries=0, timeout=60.0)  # seconds; ends only what hangs
async def call_target(
    target: str, event_id: str, body: dict[str, JsonValue], targets: Targets = resource(Targets)
) -> CallResult:
    """Call one target once."""
    return await targets.post(target, event_id, body)


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to wait before the next try: the backoff after so many tries, or `wish` if that is longer. Without
    tries, just `wish`."""

    tries: int
    wish: timedelta | None

    def length(self, chance: Callable[[], float]) -> timedelta:
        if self.wish is not None and self.tries == 0:
            return self.wish
        return wait_before(self.tries, self.wish, chance())


def pause_after(tries: int, result: TryAgain | Refused, *, is_mail: bool) -> Pause | None:
    """What follows a try that did not deliver; None: nothing, it was refused for good."""
    match result:
        case Refused() if result.install and is_mail:
            # All mail is down, by a password perhaps: nothing is wrong with this one, and it goes out once somebody has
            # mended the relay.
            return Pause(tries, ALL_DOWN)
        case Refused():
            return None
        case TryAgain(after=timedelta() as turn, held=True):
            return Pause(0, turn)
        case TryAgain(after=after):
            return Pause(tries if is_mail or after is None else 1, after)  # a conversation has a pace of its own


def wait_before(attempts: int, wish: timedelta | None, chance: float) -> timedelta:
    """The time until the next attempt, after so many. `chance`, in [0, 1), spreads those who failed together.

    `wish` is the other side's own, kept unless it is shorter than ours, or longer than a day.
    """
    longest = min(FIRST_WAIT * 2 ** min(attempts - 1, 16), LONGEST_WAIT)
    own = timedelta(seconds=longest * (0.5 + 0.5 * chance))
    return own if wish is None else max(own, min(wish, timedelta(days=1)))


def shortened(card: Card, longest: int) -> Card:
    """The card with no value longer than so many characters."""
    fields = [
        field if len(field.value) <= longest else replace(field, value=field.value[:longest] + "…")
        for field in card.fields
    ]
    return replace(card, fields=tuple(fields))
