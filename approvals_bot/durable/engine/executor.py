"""One attempt at a step, and the event that records its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.durable.core.api import StepContext, step_context
from approvals_bot.durable.core.durations import as_seconds
from approvals_bot.durable.core.events import NewEvent, to_micros
from approvals_bot.durable.core.remote_errors import encode_error
from approvals_bot.durable.core.run import OpenStep
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.engine.troubles import log_step_failure
from approvals_bot.errors import (
    FatalError,
    InvalidPayloadError,
    LimitExceededError,
    NondeterminismError,
    RetryableError,
    SerializationError,
)

_NO_TIMEOUT = nullcontext()  # 0.26 µs; an `asyncio.timeout(None)` costs 1.65 (`timeit`)


async def attempt(
    state: OpenStep,
    context: StepContext,
    resources: Mapping[type, Any],
    now: Callable[[], datetime],
    is_called_off: Callable[[], bool],
) -> NewEvent:
    """Run the step once. Returns the event that says it completed, failed for good, or is to be retried, and when.

    An attempt that the engine cancels has no outcome and is made again. Every other attempt has one, whatever the step
    raises: without an outcome it would be made again at once, over and over. Raises NondeterminismError, without
    attempting anything, if the step's code no longer takes the arguments in the log.
    """
    step = state.step
    args, kwargs = _call(state)
    step_context.set(context)
    try:
        for name, kind in step.signature.needs.items():
            if kind not in resources:
                missing = f"{step.name}() needs a {kind.__name__}, and this engine has none."
                raise FatalError(f"{missing} Give it one: Engine.open(…, resources=[…]).")
            kwargs[name] = resources[kind]
        async with _NO_TIMEOUT if step.timeout is None else asyncio.timeout(step.timeout):
            result = await step.run(args, kwargs)
        encoded = step.signature.result.encode(result, "result")
        to_json(encoded, f"the result of {step.name}()")
    except (KeyboardInterrupt, GeneratorExit):
        raise  # the process, or the event loop, is being stopped
    except BaseException as error:  # anything that a step raises is its outcome
        if isinstance(error, asyncio.CancelledError) and is_called_off():
            raise
        return _after(error, state, now())
    return NewEvent("step_completed", {"id": state.id, "result": encoded})


def _call(state: OpenStep) -> tuple[list[Any], dict[str, Any]]:
    """Decode the recorded arguments with the step's types as they are now."""
    step, signature = state.step, state.step.signature
    missing = signature.missing(state.input)
    if missing:
        got = f"{', '.join(missing)}, too"
    else:
        try:
            return signature.decode_call(state.input)
        except Exception as error:  # noqa: BLE001  # an author's validator may raise anything
            got = f"other types ({error})"
    raise NondeterminismError(state.seq, f"step #{state.id} {step.name!r} with ({', '.join(state.input)})", got)


def _after(error: BaseException, state: OpenStep, now: datetime) -> NewEvent:
    """Return the event after an attempt that raised: the step is retried, or has failed for good."""
    step, number, after = state.step, state.failures + 1, None
    match error:
        case FatalError() | SerializationError() | InvalidPayloadError() | LimitExceededError():
            return _failed(state, number, error)
        case RetryableError():
            after = error.retry_after
        case TimeoutError() if step.timeout is not None and not str(error):
            error = TimeoutError(f"{step.name}() took longer than its timeout of {step.timeout:g} s")
    if number > step.retries:
        return _failed(state, number, error)
    try:
        delay = as_seconds(step.retry_delay if after is None else after, now)
    except ValueError as wrong:
        return _failed(state, number, wrong)
    retry_at = now + timedelta(seconds=delay)
    data = {"id": state.id, "attempt": number, "error": encode_error(error), "retry_at": to_micros(retry_at)}
    return NewEvent("step_retrying", data)


def _failed(state: OpenStep, number: int, error: BaseException) -> NewEvent:
    failed = NewEvent("step_failed", {"id": state.id, "attempts": number, "error": encode_error(error)})
    if (context := step_context.get()) is not None:
        log_step_failure(context, failed)
    return failed
