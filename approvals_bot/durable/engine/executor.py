"""Attempts at steps: where each one runs, and the event that records its outcome."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from approvals_bot.durable.core.context import StepContext, step_context
from approvals_bot.durable.core.durations import as_seconds
from approvals_bot.durable.core.events import NewEvent, to_micros
from approvals_bot.durable.core.open_work import OpenStep, StepCode
from approvals_bot.durable.core.remote_errors import encode_error
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.core.steps import check_limits
from approvals_bot.durable.core.threads import Threaded
from approvals_bot.durable.engine.limits import MAX_LEFT_BEHIND, STEP_THREADS
from approvals_bot.durable.engine.places import Gate, StepPlaces
from approvals_bot.durable.engine.troubles import log_step_failure
from approvals_bot.errors import (
    ApprovalsBotError,
    FatalError,
    InvalidPayloadError,
    LimitExceededError,
    NondeterminismError,
    RetryableError,
    SerializationError,
    UnknownLimitError,
)

logger = logging.getLogger("approvals_bot.durable.engine")

_NONE_YET = object()
_NO_TIMEOUT = nullcontext()  # 0.26 µs; an `asyncio.timeout(None)` costs 1.65 (`timeit`)


class Executor:
    """The places, threads and contexts in which the steps of one engine run. All on the engine's event loop."""

    def __init__(self, threads: int = STEP_THREADS, limits: Mapping[str, int] | None = None) -> None:
        self._places = StepPlaces(threads, limits or {})
        self.all_gates: Final = self._places.all
        self.crowded: Final = self._places.crowded
        self.context: Final = copy_context()
        """Each attempt runs in a copy of it: it has what was set when the engine was made, and nothing else.

        So context variables of callers who start or resume a run don't reach its steps, and no step's reach another.
        """
        self._left_behind: set[Threaded[Any]] = set()
        self._withheld = 0  # places of threads that were left behind when there were too many of those
        self._logged: set[str] = set()

    @property
    def limits(self) -> dict[str, int]:
        """How many steps with each limit may run at a time."""
        return {name: gate.most for name, gate in self._places.limits.items()}

    def gates(self, step: StepCode) -> list[Gate]:
        """Return the gates that a step passes before it begins."""
        return self._places.gates(step.limit, threaded=not step.is_async)

    def check_limit(self, step: StepCode) -> None:
        """Raise FatalError for an unknown limit. Only a step that was made after `Engine.open` can have one."""
        if step.limit is not None and step.limit not in self._places.limits:
            raise FatalError(str(UnknownLimitError(step.name, step.limit, self._places.limits, *step.line)))

    def check_limits(self) -> None:
        """Raise UnknownLimitError if a step in this process has a limit that this engine doesn't have."""
        with suppress(UnknownLimitError):
            check_limits(self._places.limits)
            return
        gc.collect()  # the step may belong to a function that is gone, but hasn't been collected yet
        check_limits(self._places.limits)

    def leave_behind(self, step: StepCode, call: Threaded[Any]) -> None:
        """Give up on a thread whose attempt has timed out or was cancelled. Python can't stop it.

        Another thread takes its place, so that steps that hang don't starve all others. There are limits to that, too:
        beyond MAX_LEFT_BEHIND, a place becomes free only when one of these threads ends.
        """
        self._left_behind.add(call)
        call.when_over = lambda: self._has_ended(call)
        is_one_too_many = len(self._left_behind) > MAX_LEFT_BEHIND
        self._withheld += is_one_too_many
        self._places.threads.free -= is_one_too_many
        if step.name not in self._logged:
            self._logged.add(step.name)
            logger.warning(
                "step %s: its attempt is over, but its thread goes on, and can't be stopped; another thread takes its "
                "place (further such threads of this step aren't logged)",
                step.name,
            )
        if is_one_too_many and "" not in self._logged:
            self._logged.add("")
            logger.error(
                "more than %d threads of steps go on after their attempts; steps written as `def` now wait until one "
                "of them ends: give their calls time limits of their own, and restart the service",
                MAX_LEFT_BEHIND,
            )

    def _has_ended(self, call: Threaded[Any]) -> None:
        self._left_behind.discard(call)
        if self._withheld:
            self._withheld -= 1
            self._places.threads.leave()


def detach(task: asyncio.Task[Any]) -> None:
    """Let the process end without this task: `asyncio.run` cancels all tasks that it knows of, and waits for them.

    A step that catches CancelledError and goes on would keep the process alive for ever. So it would if its coroutine
    were freed, and it caught GeneratorExit. An extra reference keeps the interpreter from freeing it when it ends.
    """
    if not task.done():
        asyncio.tasks._unregister_task(task)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
        task.add_done_callback(lambda _: ctypes.pythonapi.Py_DecRef(ctypes.py_object(task)))


@dataclass(slots=True)
class Attempt:
    """An attempt at a step that is running. `since` is in seconds of the monotonic clock."""

    task: asyncio.Task[None]
    since: float = field(default_factory=time.monotonic)
    is_called_off: bool = False

    def cancel(self) -> None:
        """Stop the attempt without an outcome: whatever the step raises from now on isn't recorded.

        An async step gets a CancelledError. The thread of a `def` can't be stopped, and is left behind.
        """
        self.is_called_off = True
        self.task.cancel()


async def attempt(
    state: OpenStep,
    context: StepContext,
    resources: Mapping[type, Any],
    now: Callable[[], datetime],
    is_called_off: Callable[[BaseException], bool],
    executor: Executor | None = None,
) -> NewEvent:
    """Run the step once. Returns the event that says it completed, failed for good, or is to be retried, and when.

    An attempt that is called off (`is_called_off` finds out from what the step raised) has no outcome, and is made
    again. Every other attempt has one, whatever the step raises: without an outcome it would be made again at once,
    over and over. Raises NondeterminismError, without attempting anything, if the step's code no longer takes the
    arguments in the log.
    """
    step = state.step
    args, kwargs = _call(state)
    result: Any = _NONE_YET
    step_context.set(context)
    try:
        if missing := set(step.signature.needs.values()) - resources.keys():
            raise _lacks(step, missing)
        kwargs |= {name: resources[kind] for name, kind in step.signature.needs.items()}
        if step.waits_for_a_place:
            result = await _in_place(step, args, kwargs, executor)
        else:
            async with _NO_TIMEOUT if step.timeout is None else asyncio.timeout(step.timeout):
                result = await step.function(*args, **kwargs)
        encoded = step.signature.result.encode(result, "result")
        to_json(encoded, f"the result of {step.name}()")
    except (KeyboardInterrupt, GeneratorExit):
        raise  # the process, or the event loop, is being stopped
    except BaseException as error:  # anything that a step raises is its outcome
        if is_called_off(error):
            raise asyncio.CancelledError from error
        return _after(error if result is _NONE_YET else _unkept(error), state, now(), context.step.step_id)
    return NewEvent("step_completed", {"id": state.id, "result": encoded})


def _unkept(error: BaseException) -> BaseException:
    """Return why a result can't be kept. The step isn't tried again: it has done its work."""
    if isinstance(error, ApprovalsBotError):
        return error
    unkept = SerializationError("result", f"{type(error).__name__}: {error}")
    unkept.__cause__ = error  # an author's serializer or validator may raise anything
    return unkept


def _lacks(step: StepCode, missing: Iterable[type]) -> FatalError:
    kinds = ", ".join(sorted(kind.__name__ for kind in missing))
    return FatalError(
        f"{step.name}() needs a {kinds}, and this engine has none. Give it one: Engine.open(…, resources=[…])."
    )


async def _in_place(step: StepCode, args: Any, kwargs: Any, executor: Executor | None) -> Any:
    """Run a step that has its places, within its time limit.

    That of a `def` counts from the moment at which a thread has taken it up.
    """
    if executor is not None:
        executor.check_limit(step)
    if step.is_async:
        async with asyncio.timeout(step.timeout):
            return await step.function(*args, **kwargs)
    call = Threaded(step.function, args, kwargs)
    try:
        waited = time.monotonic() - await call.begin()
        async with asyncio.timeout(None if step.timeout is None else step.timeout - waited):
            return await call
    finally:
        if not call.is_over and executor is not None:
            executor.leave_behind(step, call)


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


def _after(error: BaseException, state: OpenStep, now: datetime, step_id: str) -> NewEvent:
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
        delay = step.delay(number, step_id) if after is None else as_seconds(after, now)
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
