"""Delivery steps: one attempt at sending, updating or calling, and the backoff before the next.

The first retry comes within 5 seconds, the later ones ever more rarely, up to every 15 minutes, for 48 hours unless a
deadline ends them before.

A recorded step takes its input from the log. Making a card for it at every replay would cost more than all the rest of
the replay, so such arguments are lazy.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, TypeVar, cast

from pydantic import BeforeValidator, JsonValue

from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.plain_text import Whole, clip_value
from approvals_bot.approvals.port import (
    EMAIL,
    CallResult,
    Channels,
    Dispatch,
    Receipt,
    Refused,
    Result,
    Targets,
    TryAgain,
)
from approvals_bot.durable.core.api import get_step_metadata, resource, step
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import Proven, codec
from approvals_bot.errors import StepFailedError

LONGEST_TRY = timedelta(hours=48)
"""How long a delivery is tried, unless a deadline ends it before."""

FIRST_WAIT = 4.0  # seconds; with the jitter, 2 to 4
LONGEST_WAIT = 900.0  # seconds
FILTERED = timedelta(minutes=15)
"""The wait before trying a mail again that a filter refused, or that came back: it takes a person to mend it."""

LONGEST_VALUE, LONGEST_MAIL_VALUE = 9_000, 24_000
"""Characters of one field that a channel gets, and the log keeps: more than it ever shows."""

R = TypeVar("R")
T = TypeVar("T")


class LazyArgumentError(Exception):
    """A ValueError while making a lazy argument. Unwrapped, pydantic would take it for a validation error."""

    def __init__(self, cause: ValueError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class _Lazy:
    make: Callable[[], Any]


def lazily(make: Callable[[], T]) -> T:
    """Return an argument that is made at the call, unless the step is recorded.

    The parameter is `Annotated[…, LAZY]`.

    Only for calls of steps inside a workflow. The call raises LazyArgumentError if `make` raises ValueError. Nothing
    else that the workflow does may depend on whether `make` was called.
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

LazyDispatch = Annotated[Proven[Dispatch], LAZY]


@step(retries=0, timeout=120.0)  # seconds; a channel answers within 45, so this ends only what hangs
async def send_copy(dispatch: LazyDispatch, channels: Channels = resource(Channels)) -> Proven[Result]:
    """Deliver a new copy, or a follow-up in its thread."""
    return await channels.send(dispatch)


@step(retries=0, timeout=120.0)
async def update_copy(
    receipt: Proven[Receipt], dispatch: LazyDispatch, channels: Channels = resource(Channels)
) -> Proven[Result]:
    """Show the newest card in a copy that was delivered."""
    return await channels.send(dispatch, receipt)


def sent_cards(log: Iterable[Event]) -> list[tuple[Receipt, Dispatch]]:
    """Return the messages that show a request's card and can be edited, from the log of the run that sent them.

    Each has the card that the run last made it show.
    """
    inputs: dict[int, dict[str, Any]] = {}
    sent: dict[str, tuple[Receipt, Dispatch]] = {}  # by copy; what was posted again takes its place
    edited: dict[str, dict[str, Any]] = {}  # by copy, the input of its last edit, which alone is worth decoding
    for event in log:
        if event.type == "step_created" and event.data["name"] in (send_copy.name, update_copy.name):
            inputs[event.data["id"]] = event.data["input"]
        elif event.type == "step_completed" and event.data["id"] in inputs:
            given, is_edit = inputs[event.data["id"]], "receipt" in inputs[event.data["id"]]
            copy = given["dispatch"]["delivery_id"].rpartition("-")[0]
            if event.data["result"]["kind"] != "delivered":
                continue
            if is_edit:
                edited[copy] = given
                continue
            dispatch = _DISPATCH.decode(given["dispatch"])
            if not dispatch.text and dispatch.thread is None and dispatch.to.channel != EMAIL:
                sent[copy] = send_copy.signature.result.decode(event.data["result"]).receipt, dispatch
                edited.pop(copy, None)
    for copy, given in edited.items():
        if copy in sent:
            receipt, dispatch = sent[copy]
            sent[copy] = receipt, replace(dispatch, card=_DISPATCH.decode(given["dispatch"]).card)
    return list(sent.values())


_DISPATCH = codec(Dispatch)


async def attempt(sending: Coroutine[Any, Any, R]) -> R | TryAgain:
    """Await a step. A bug in a channel must not end the request, and may be fixed while it waits."""
    try:
        return await sending
    except StepFailedError as failure:
        return TryAgain(failure.cause_message, lost=True)


@step(retries=0, timeout=60.0)  # seconds; ends only what hangs
async def call_target(
    target: str, event_id: str, body: dict[str, JsonValue], targets: Targets = resource(Targets)
) -> CallResult:
    """Call one target once.

    After a crash in the middle, a refusal may be due to the call before, which the target may have taken.
    """
    result = await targets.post(target, event_id, body)
    if isinstance(result, Refused) and get_step_metadata().is_repeat:
        return TryAgain(result.error, lost=True)
    return result


@dataclass(frozen=True, slots=True)
class Pause:
    """The wait before the next attempt: the backoff, or `retry_after` if longer; without tries, just `retry_after`."""

    tries: int
    retry_after: timedelta | None

    def length(self, chance: Callable[[], float]) -> timedelta:
        if self.retry_after is not None and self.tries == 0:
            return self.retry_after
        return wait_before(self.tries, self.retry_after, chance())


def pause_after(tries: int, result: TryAgain | Refused, *, is_mail: bool) -> Pause | None:
    """Return the wait after an attempt that failed; None: it was refused for good."""
    match result:
        case Refused(code="install") if is_mail:
            # All mail is down, perhaps because of a password: nothing is wrong with this one, and it goes out once the
            # relay works again. The relay itself isn't asked each time.
            return Pause(tries, None)
        case Refused(code="message") if is_mail:
            return Pause(tries, FILTERED)
        case Refused():
            return None
        case TryAgain(after=timedelta() as turn, held=True):
            return Pause(0, turn)
        case TryAgain(after=after):
            return Pause(tries if is_mail or after is None else 1, after)  # Slack's own rate limit says when


def wait_before(attempts: int, retry_after: timedelta | None, chance: float, *, first: float = FIRST_WAIT) -> timedelta:
    """Return the wait after so many attempts. `chance`, in [0, 1), spreads deliveries that failed together.

    `first`: the longest wait after the first attempt, in seconds. `retry_after`: what the other side asks for. It is
    honoured unless it is shorter than ours or longer than a day.
    """
    longest = min(first * 2 ** min(attempts - 1, 16), LONGEST_WAIT)
    own = timedelta(seconds=longest * (0.5 + 0.5 * chance))
    return own if retry_after is None else max(own, min(retry_after, timedelta(days=1)))


MOST_COMMENTS = 5  # of a request that a copy shows; its page has them all


def shortened(card: Card, longest: int) -> Card:
    """Cut the card's values to so many characters, and leave the newest comments."""
    fields = [
        field
        if len(field.value) <= longest
        else replace(
            field, value=clip_value(field.value, longest, is_signed=card.signs(field)), whole=Whole.of(field.value)
        )
        for field in card.fields
    ]
    comments, earlier = card.comments[-MOST_COMMENTS:], max(0, len(card.comments) - MOST_COMMENTS)
    return replace(card, fields=tuple(fields), comments=comments, earlier_comments=earlier)
