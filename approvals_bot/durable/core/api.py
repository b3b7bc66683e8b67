"""What workflow authors write with, and where their code is: in a workflow's body, in a step, or outside."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload
from uuid import UUID

from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.core.hooks import Answer, Hook, Webhook, WebhookRequest, encode_response
from approvals_bot.durable.core.loop import context_of_run
from approvals_bot.durable.core.registry import Workflow, registry
from approvals_bot.durable.core.run import Projection, RunState
from approvals_bot.durable.core.serialization import encode
from approvals_bot.durable.core.signature import Needed, Signature
from approvals_bot.errors import NoEngineError, NotInStepError, NotInWorkflowError


@dataclass(frozen=True, slots=True)
class WorkflowMetadata:
    """The run that this code belongs to."""

    workflow_name: str
    run_id: str
    started_at: datetime
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StepMetadata:
    """The step that this code belongs to. `step_id` is the same on every attempt: use it as an idempotency key."""

    name: str
    step_id: str
    attempt: int
    first_started_at: datetime


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step can ask about itself."""

    step: StepMetadata
    workflow: WorkflowMetadata


step_context: ContextVar[StepContext | None] = ContextVar("approvals_bot_step", default=None)


def current_run(asking: str) -> RunState:
    """The run whose body is executing. NotInWorkflowError, with what to do, anywhere else."""
    run: RunState | None = context_of_run.get(None)
    if run is None:
        where = "inside a step" if step_context.get() is not None else "outside a workflow"
        raise NotInWorkflowError(f"{asking} works only in the body of a @workflow; this call is {where}.")
    return run


def in_workflow() -> bool:
    """Whether this code is executed by the body of a workflow."""
    return context_of_run.get(None) is not None


class OpenEngine(Protocol):
    """What a typed hook needs of the engine: to resume by token."""

    async def resume_hook(self, token: str, payload: Any, *, resume_id: str | None = None) -> Any: ...


open_engines: list[OpenEngine] = []
"""The engines that are open in this process; the newest serves the module-level functions.

A context variable would not reach the tasks of a web server, which start before the engine opens.
"""


def open_engine() -> OpenEngine:
    """The engine that was opened last. Raises NoEngineError if none is open."""
    if not open_engines:
        raise NoEngineError()
    return open_engines[-1]


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NO_DATE = datetime(1970, 1, 1, tzinfo=UTC)  # a length of time needs no date to count from

DEFAULT_RETRIES = 3  # so 4 attempts in all
DEFAULT_RETRY_DELAY = 1.0  # seconds


# ── workflows ─────────────────────────────────────────────────────────────────────────────────────────────────────


@overload
def workflow(function: Callable[P, Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: str | None = None
) -> Callable[[Callable[P, Awaitable[R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[P, Awaitable[R]] | None = None, /, *, name: str | None = None, version: str | None = None
) -> Any:
    """Make an `async def` durable and register it by name. WorkflowNameTakenError if the name is taken.

    Old runs finish on the function of the `version` that they were started with, as long as it is registered; new
    runs use the version that is registered last.
    """
    scope = _local_names(sys._getframe(1))

    def decorate(function: Callable[P, Awaitable[R]]) -> Workflow[P, R]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@workflow needs an `async def`; {function.__name__} is not one")
        made = Workflow(function, name or function.__name__, version, Signature(function, scope, bound="settings"))
        registry.add(made)
        return made

    return decorate if function is None else decorate(function)


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Step(Generic[P, R]):
    """A function that touches the outside world.

    In a workflow it is run at least once, and its result recorded once.
    """

    def __init__(
        self,
        function: Callable[P, Any],
        signature: Signature,
        retries: int,
        timeout: float | None,
        retry_delay: float,
    ) -> None:
        self.function = function
        self.signature = signature
        self.retries = retries
        self.timeout = timeout
        self.retry_delay = retry_delay
        self.name = function.__name__
        functools.update_wrapper(self, function)

    @property
    def function(self) -> Callable[P, Any]:
        """What it does; a test may put something else in its place."""
        return self._function

    @function.setter
    def function(self, function: Callable[P, Any]) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        # Not Coroutine[Any, …]: with that, mypy takes what `gather` gives for Any.
        run: RunState | None = context_of_run.get(None)
        return self.run(args, kwargs) if run is None else run.call_step(self, args, kwargs)

    def run(self, args: Any, kwargs: Any) -> Coroutine[Any, Any, R]:
        """Just the function; a plain `def` runs in a thread."""
        if self._is_async:
            called: Coroutine[Any, Any, R] = self._function(*args, **kwargs)
            return called
        return asyncio.to_thread(_in_thread, self._function, args, kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name}>"


def _in_thread(function: Callable[..., R], args: Any, kwargs: Any) -> R:
    """Call it. A future can't hold a StopIteration, so who awaits it would wait for ever; a coroutine turns it into a
    RuntimeError (PEP 479), and so do we."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{function.__name__}() raised StopIteration") from error


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(*, retries: int = ..., timeout: Duration | None = ..., retry_delay: Duration = ...) -> _StepDecorator: ...
def step(
    function: Any = None,
    /,
    *,
    retries: int = DEFAULT_RETRIES,
    timeout: Duration | None = None,
    retry_delay: Duration = DEFAULT_RETRY_DELAY,
) -> Any:
    """Make a function a durable step. `retries=3` is 4 attempts, `retries=0` is once; `timeout` is per attempt."""
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise ValueError(f"retries must be a whole number from 0 on, not {retries!r}")
    scope = _local_names(sys._getframe(1))
    limit = None if timeout is None else _fixed(timeout, "timeout")
    delay = _fixed(retry_delay, "retry_delay")

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        return Step(function, Signature(function, scope), retries, limit, delay)

    return decorate if function is None else decorate(function)


class _StepDecorator:
    """Only for type checkers: what `@step(…)` gives."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


def resource(kind: type[T]) -> T:
    """The default of a step's parameter that the engine fills: `async def send(c: Card, channels: Channels =
    resource(Channels))`.

    It is not recorded. Who calls the step as a plain function passes it.
    """
    return cast(T, Needed(kind))


def get_step_metadata() -> StepMetadata:
    """The step that is running: name, id (stable over attempts), attempt (from 1), first started at.

    Raises NotInStepError elsewhere.
    """
    context = step_context.get()
    if context is None:
        raise NotInStepError()
    return context.step


def get_workflow_metadata() -> WorkflowMetadata:
    """The run that this code belongs to, in a workflow's body and in its steps."""
    step_now = step_context.get()
    if step_now is not None and not in_workflow():
        return step_now.workflow
    run = current_run("get_workflow_metadata()")
    return WorkflowMetadata(run.name, run.run_id, run.started_at, dict(run.attributes))


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def sleep(duration: Duration) -> None:
    """Wait durably: `"7 days"`, seconds, a timedelta, or until an aware datetime (one that has passed waits not at
    all).
    """
    run = current_run("sleep()")
    seconds = as_seconds(duration, run.now)
    if isinstance(duration, datetime) and seconds > 0:
        await run.sleep_until(duration)
    else:
        await asyncio.sleep(seconds)


@overload
def create_hook(token: str | None = None, *, metadata: Any = None, schema: type[T]) -> Hook[T]: ...
@overload
def create_hook(token: str | None = None, *, metadata: Any = None, schema: Any = None) -> Hook[Any]: ...
def create_hook(token: str | None = None, *, metadata: Any = None, schema: Any = None) -> Hook[Any]:
    """Open a hook that `resume_hook(token, payload)` resumes. Without a token it gets a random one.

    Awaiting it gives the payload as its `schema`, or as plain data without one. Two live hooks with one token: the
    later one's `await` raises HookConflictError.
    """
    run = current_run("create_hook()")
    if token is not None and (not isinstance(token, str) or not token):
        raise ValueError("a hook's token must be a text that is not empty; leave it out for a random one")
    return run.create_hook(token, metadata, schema)


class DefinedHook(Generic[T]):
    """A hook with a schema: payloads are validated on every way in, and arrive as the schema's type."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema

    def create(self, token: str | None = None, *, metadata: Any = None) -> Hook[T]:
        """In a workflow: open the hook."""
        hook: Hook[T] = create_hook(token, metadata=metadata, schema=self.schema)
        return hook

    async def resume(self, token: str, payload: T | Any, *, resume_id: str | None = None) -> Any:
        """Outside: validate the payload and resume. InvalidPayloadError names each place; then nothing was written."""
        encoded = encode(payload, self.schema if self.schema is not None else Any, "payload")
        return await open_engine().resume_hook(token, encoded, resume_id=resume_id)


@overload
def define_hook(schema: type[T]) -> DefinedHook[T]: ...
@overload
def define_hook(schema: Any = None) -> DefinedHook[Any]: ...
def define_hook(schema: Any = None) -> DefinedHook[Any]:
    """A typed hook, shared by the workflow that creates it and the code that resumes it.

    reply = define_hook(schema=Reply)

    @workflow
    async def ask(order: str) -> str:
        answer = await reply.create(token=order)  # a Reply
        return answer.text

    await reply.resume("order-17", Reply(text="yes"))
    """
    return DefinedHook(schema)


def create_webhook(
    *, respond_with: Any = None, metadata: Any = None, on_cancel: Mapping[str, Any] | None = None
) -> Webhook:
    """Open a hook with a public signed URL. Callers are answered 202; or with a Response given here; or, with
    `"manual"`, by the workflow through `request.respond_with(…)`.

    `on_cancel`: whoever cancels the run from outside sends this JSON object to the webhook instead, with the `reason`
    in it, so that the workflow can tidy up and end by itself. One that hasn't within ten seconds is ended where it
    stands, and so is one that is cancelled once more.
    """
    run = current_run("create_webhook()")
    if respond_with is None:
        answer: dict[str, Any] = {"mode": "default"}
    elif respond_with == "manual":
        answer = {"mode": "manual"}
    elif isinstance(respond_with, str):
        raise ValueError(f'respond_with is a Response or "manual", not {respond_with!r}')
    else:
        answer = {"mode": "static", "response": encode_response(respond_with)}
    return cast(Webhook, run.create_hook(None, metadata, None, answer, on_cancel))


# ── determinism ───────────────────────────────────────────────────────────────────────────────────────────────────


def now() -> datetime:
    """The time of the last thing that happened to this run, as an aware UTC datetime. It stands still in between."""
    return current_run("now()").now


def random() -> Random:
    """A random generator that gives this run the same numbers on every replay. Not for secrets."""
    return current_run("random()").random


def uuid4() -> UUID:
    """A UUID that is the same on every replay of this run. Not for secrets."""
    return current_run("uuid4()").uuid4()


def publish(view: Any) -> None:
    """Show a value to the outside while the run goes on: the last one is stored with the run and readable as its
    `view`.
    """
    run = current_run("publish()")
    if not run.loop.closing:
        run.view = view


F = TypeVar("F", bound=Callable[[], Projection])


def projector(make: Callable[[], F]) -> F:
    """Return what makes this run's projection, whenever the run is stored; `make` is called the first time.

    For libraries on top of the engine: what they show of a run is kept apart from what its author publishes.
    """
    run = current_run("projector()")
    if run.projector is None:
        run.projector = make()
    return cast(F, run.projector)


def accompany(work: Coroutine[Any, Any, None], *, leave: Callable[[], None]) -> None:
    """Do this beside the body. The run ends only after it; `leave` is called once the body has ended."""
    run = current_run("accompany()")
    run.companions.add(run.loop.create_task(work), leave)


def cancel_run(reason: str) -> None:
    """Cancel this run from within: its body is interrupted where it waits, its companions come to their end."""
    run = current_run("cancel_run()")
    if run.body is not None and not run.loop.closing:
        run.body.cancel(reason)


def _local_names(frame: Any) -> dict[str, Any]:
    """Names that annotations of a function defined inside a function may use."""
    return (
        {} if frame.f_code.co_name == "<module>" else {k: v for k, v in frame.f_locals.items() if isinstance(v, type)}
    )


def _fixed(duration: Duration, what: str) -> float:
    if isinstance(duration, datetime):
        raise ValueError(f"{what} must be a length of time, not a date")
    return as_seconds(duration, _NO_DATE)


__all__ = [
    "Answer",
    "DefinedHook",
    "Hook",
    "Step",
    "StepMetadata",
    "Webhook",
    "WebhookRequest",
    "Workflow",
    "WorkflowMetadata",
    "accompany",
    "cancel_run",
    "create_hook",
    "create_webhook",
    "define_hook",
    "get_step_metadata",
    "get_workflow_metadata",
    "now",
    "projector",
    "publish",
    "random",
    "resource",
    "sleep",
    "step",
    "uuid4",
    "workflow",
]
