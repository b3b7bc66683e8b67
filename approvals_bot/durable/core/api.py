"""The authoring API: what is used in bodies and steps, and hooks that are typed outside, too."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from random import Random
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar, cast, overload
from uuid import UUID

from approvals_bot.durable.core.annotations import check_later, codec_of, refuse_unreadable
from approvals_bot.durable.core.attributes import Projection, Settable, attributes_of_body
from approvals_bot.durable.core.context import (
    StepMetadata,
    WorkflowMetadata,
    current_run,
    get_step_metadata,
    get_workflow_metadata,
    open_engine,
)
from approvals_bot.durable.core.continuing import continue_run
from approvals_bot.durable.core.durations import Duration, as_seconds
from approvals_bot.durable.core.hooks import Answer, Hook, Webhook, WebhookRequest, encode_response, header_patterns
from approvals_bot.durable.core.registry import Workflow
from approvals_bot.durable.core.serialization import codec, encode
from approvals_bot.durable.core.signature import Needed
from approvals_bot.durable.core.steps import Step, step
from approvals_bot.durable.core.workflows import workflow
from approvals_bot.errors import InvalidArgumentError

T = TypeVar("T")


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def resource(kind: type[T]) -> T:
    """Mark a step's parameter as one that the engine fills, with its resource of this type.

        @step
        async def send(card: Card, channels: Channels = resource(Channels)) -> None: ...

    The resource comes from `Engine.open(…, resources=[…])` and is not recorded in the log. Pass it yourself when you
    call the step as a plain function.
    """
    return cast(T, Needed(kind))


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def sleep(duration: Duration) -> None:
    """Wait durably, for a length of time or until an aware datetime.

        await sleep("7 days")
        await sleep(90)  # seconds
        await sleep(timedelta(hours=2))
        await sleep(datetime(2026, 12, 1, 9, tzinfo=UTC))

    Returns at once if the datetime has passed. A sleeping run takes no memory and survives restarts.
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
    """Open a hook that `resume_hook(token, payload)` resumes.

        hook = create_hook("order-17", schema=Reply)
        reply = await hook  # a Reply, once somebody resumes "order-17"

    Without a token the hook gets a random one. Without a schema it gives plain data. If a live hook already has this
    token, awaiting the new one raises HookConflictError.
    """
    run = current_run("create_hook()")
    if token is not None and (not isinstance(token, str) or not token):
        raise InvalidArgumentError("a hook's token must be a string that is not empty; leave it out for a random one")
    if schema is not None:
        codec(schema)  # raises here what would otherwise be raised to those who resume it
    return run.create_hook(token, metadata, schema)


class DefinedHook(Generic[T]):
    """A hook with a schema: every payload is validated before it is stored, and arrives as the schema's type."""

    def __init__(self, schema: Any, frame: FrameType) -> None:
        self.schema = schema
        self.module = str(frame.f_globals.get("__name__"))
        self._where = (frame.f_code.co_filename, frame.f_lineno)
        check_later(self)

    def check(self) -> None:
        """Raise AnnotationError if a type of the schema can't be resolved."""
        codec_of(self.schema, "define_hook()", lambda: self._where)
        refuse_unreadable(self.schema, "define_hook()", lambda: self._where)

    def create(self, token: str | None = None, *, metadata: Any = None) -> Hook[T]:
        """Open the hook. Works only in a workflow's body."""
        hook: Hook[T] = create_hook(token, metadata=metadata, schema=self.schema)
        return hook

    async def resume(self, token: str, payload: T | Any, *, resume_id: str | None = None) -> Any:
        """Validate the payload and resume the hook with this token, from outside the workflow.

        Raises InvalidPayloadError, which names each invalid place, and HookNotFoundError. Nothing was written then.
        """
        encode(payload, self.schema if self.schema is not None else Any, "payload")
        return await open_engine().resume_hook(token, payload, resume_id=resume_id)


@overload
def define_hook(schema: type[T]) -> DefinedHook[T]: ...
@overload
def define_hook(schema: Any = None) -> DefinedHook[Any]: ...
def define_hook(schema: Any = None) -> DefinedHook[Any]:
    """Define a typed hook, shared by the workflow that creates it and the code that resumes it.

    reply = define_hook(schema=Reply)

    @workflow
    async def confirm(order: str) -> str:
        answer = await reply.create(token=order)  # a Reply
        return answer.text

    await reply.resume("order-17", Reply(text="yes"))  # outside
    """
    return DefinedHook(schema, sys._getframe(1))


def create_webhook(
    *,
    respond_with: Any = None,
    metadata: Any = None,
    keep_headers: Iterable[str] = (),
) -> Webhook:
    """Open a hook with a public, signed URL.

        webhook = create_webhook()
        await send_link(webhook.url)
        request = await webhook
        data = await request.json()  # MalformedBodyError if it isn't JSON: anybody who has the URL can send anything

    Callers get an empty 202 by default, or the `Response` given as `respond_with`. With `respond_with="manual"` the
    workflow answers with `await request.respond_with(…)`. Raises ValueError for an answer that HTTP can't carry.

    Of a call's headers, the log keeps `content-type`, `user-agent` and `webhook-*`, and those of `keep_headers`, such
    as `["x-github-event", "x-acme-*"]`. Others are dropped before anything is written: they may be credentials, and
    everybody who may read the run could read them.
    """
    run = current_run("create_webhook()")
    if respond_with is None:
        answer: dict[str, Any] = {"mode": "default"}
    elif respond_with == "manual":
        answer = {"mode": "manual"}
    elif isinstance(respond_with, str):
        raise InvalidArgumentError(f'respond_with must be a Response or "manual", not {respond_with!r}')
    else:
        answer = {"mode": "static", "response": encode_response(respond_with)}
    if keep_headers:
        answer["keep_headers"] = header_patterns(keep_headers)
    return cast(Webhook, run.create_hook(None, metadata, None, answer))


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """End this run, and let a new one of the same workflow go on in its place, with this input. Never returns.

        @workflow
        async def inbox(token: str, handled: int = 0) -> None:
            hook = create_hook(token)
            for _ in range(500):
                await handle(await hook)
            continue_as_new(token, handled + 500)

    For workflows that never end: a log is limited, and each replay reads it from its start. `finally` blocks run as for
    a `return`; tasks that are still running are dropped, with their steps and timers. Open hooks keep their IDs, tokens
    and unread payloads; the new body takes one over by creating a hook with its token (`create_hook(token=…)`, for a
    webhook, too). The idempotency key, the attributes, open children and a requested cancellation move as well. Raises
    CannotContinueError outside the body itself, and while a request for approval is open.
    """
    continue_run(current_run("continue_as_new()"), args, kwargs)


# ── determinism ───────────────────────────────────────────────────────────────────────────────────────────────────


def now() -> datetime:
    """Return the time of this run's latest event, as an aware UTC datetime. It doesn't move in between."""
    return current_run("now()").now


def random() -> Random:
    """Return a random generator that gives the same numbers on every replay of this run. Not for secrets."""
    return current_run("random()").random


def uuid4() -> UUID:
    """Return a UUID that is the same on every replay of this run. Not for secrets."""
    return current_run("uuid4()").uuid4()


def publish(view: Any) -> None:
    """Show a value to readers of the run while it goes on, as the run's `view`.

        publish({"state": "waiting for the bank", "attempt": 2})

    The value must be JSON or plain data. Each call replaces the value before.
    """
    run = current_run("publish()")
    if not run.loop.closing:
        run.view = view


def set_attributes(attributes: Mapping[str, Settable] | None = None, /, **more: Settable) -> None:
    """Set attributes of the run, by which others find it. None removes one.

        set_attributes(amount=Decimal("1250.00"), stage="legal")
        set_attributes({"due-on": date(2026, 12, 1), "stage": None})

        page = await engine.runs(attributes={"amount": {"gte": 1000}})  # outside

    A value is a string, a number, a boolean or a date. Dates are kept as ISO text, datetimes in UTC to the second.
    Attributes that aren't named here stay as they are. `get_workflow_metadata().attributes` has all of them. Only the
    run's start and its body set attributes, and others read them. Raises InvalidArgumentError for a value of another
    type, for `requester`, `on_behalf_of` and `opener`, and for a name that starts with `$`; LimitExceededError for more
    than 64 attributes, names or values that are longer than 256 characters.
    """
    run = current_run("set_attributes()")
    changes = attributes_of_body({**(attributes or {}), **more})
    if changes and not run.loop.closing:
        run.set_attributes(changes)


F = TypeVar("F", bound=Callable[[], Projection])


def projector(make: Callable[[], F]) -> F:
    """Return the run's projector, which `make` creates on the first call.

    The run's projection is made by it each time the run is stored. It is for libraries on top of the engine: what they
    show of a run is kept apart from what its author publishes.
    """
    run = current_run("projector()")
    if run.projector is None:
        run.projector = make()
    return cast(F, run.projector)


def accompany(
    work: Coroutine[Any, Any, None], *, leave: Callable[[], None], stays: Callable[[], str | None] | None = None
) -> None:
    """Run `work` alongside the body. `leave` is called when the body ends; the run ends once `work` has ended.

    As long as `stays` returns a name, the body can't continue as a new run, since what has that name would be lost.
    """
    run = current_run("accompany()")
    run.companions.add(run.loop.create_task(work), leave, stays)


def is_bug(error: BaseException) -> bool:
    """Return whether this error would stall the run if the body raised it. It is then no answer to anything."""
    return current_run("is_bug()").bug_in(error) is not None


def cancel_run(reason: str) -> None:
    """Cancel this run from within: interrupt its body where it waits, and let its companions finish."""
    run = current_run("cancel_run()")
    run.cancel(reason)


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
    "continue_as_new",
    "create_hook",
    "create_webhook",
    "define_hook",
    "get_step_metadata",
    "get_workflow_metadata",
    "is_bug",
    "now",
    "projector",
    "publish",
    "random",
    "resource",
    "set_attributes",
    "sleep",
    "step",
    "uuid4",
    "workflow",
]
