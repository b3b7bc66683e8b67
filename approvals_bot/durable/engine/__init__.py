"""The engine: starts workflows, delivers payloads to them, runs their steps, and keeps their runs in a store.

The functions of this module call the methods of the same name on the engine that is open in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, cast, overload

from approvals_bot.durable.core.api import WebhookRequest, Workflow
from approvals_bot.durable.core.attributes import Settable
from approvals_bot.durable.core.context import open_engine
from approvals_bot.durable.core.durations import Duration
from approvals_bot.durable.core.idempotency import SentKey
from approvals_bot.durable.engine.clock import SystemClock, TimeSource
from approvals_bot.durable.engine.engine import Engine
from approvals_bot.durable.engine.http import Request, Response
from approvals_bot.durable.engine.intake import HookTarget, KeptPayload
from approvals_bot.durable.engine.runs import HookInfo, Page, Run
from approvals_bot.durable.store.protocol import RunRecord

P = ParamSpec("P")
R = TypeVar("R")


@overload
async def start(workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
@overload
async def start(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    at: datetime | None,
    delay: Duration | None = None,
    hook_token: str | None = None,
    idempotency_key: str | None = None,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: P.kwargs,
) -> Run[R]: ...
@overload
async def start(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    delay: Duration | None,
    at: datetime | None = None,
    hook_token: str | None = None,
    idempotency_key: str | None = None,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: P.kwargs,
) -> Run[R]: ...
@overload
async def start(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    hook_token: str | None,
    at: datetime | None = None,
    delay: Duration | None = None,
    idempotency_key: str | None = None,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: P.kwargs,
) -> Run[R]: ...
@overload
async def start(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    idempotency_key: str | None,
    at: datetime | None = None,
    delay: Duration | None = None,
    hook_token: str | None = None,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: P.kwargs,
) -> Run[R]: ...
@overload
async def start(  # type: ignore[valid-type]  # as Engine.start
    workflow: Workflow[P, R],
    /,
    *args: P.args,
    attributes: Mapping[str, Settable] | None,
    at: datetime | None = None,
    delay: Duration | None = None,
    hook_token: str | None = None,
    idempotency_key: str | None = None,
    **kwargs: P.kwargs,
) -> Run[R]: ...
@overload
async def start(
    workflow: str,
    /,
    *args: Any,
    at: datetime | None = None,
    delay: Duration | None = None,
    hook_token: str | None = None,
    idempotency_key: str | None = None,
    attributes: Mapping[str, Settable] | None = None,
    **kwargs: Any,
) -> Run[Any]: ...
async def start(workflow: Any, /, *args: Any, **kwargs: Any) -> Run[Any]:
    """Start a run on the open engine, as `Engine.start` does.

        run = await start(expense, 420, idempotency_key="expense-17")

    Raises NoEngineError if no engine is open in this process.
    """
    return await _engine().start(workflow, *args, **kwargs)


async def start_or_resume(
    token: str,
    payload: Any,
    workflow: Workflow[..., Any] | str,
    /,
    *args: Any,
    resume_id: str | None = None,
    **kwargs: Any,
) -> HookInfo:
    """Give a payload to a hook, or start the run that has it, as `Engine.start_or_resume` does.

        await start_or_resume(f"pr-{number}", event, review, number)

    Raises NoEngineError if no engine is open in this process.
    """
    return await _engine().start_or_resume(token, payload, workflow, *args, resume_id=resume_id, **kwargs)


def get_run(run_id: str) -> Run[Any]:
    """Return a handle on a run, as `Engine.get_run` does. Raises NoEngineError if no engine is open.

    paid = await get_run(run_id).return_value()
    """
    return _engine().get_run(run_id)


async def resume_hook(token: str, payload: Any, *, resume_id: str | None = None) -> HookInfo:
    """Give a payload to a hook, as `Engine.resume_hook` does. Raises NoEngineError if no engine is open.

    await resume_hook("order-17", {"text": "yes"})
    """
    return await _engine().resume_hook(token, payload, resume_id=resume_id)


async def resume_webhook(token: str, request: WebhookRequest | Request) -> Response:
    """Give a request to a webhook and return its answer, as `Engine.resume_webhook` does.

    Raises NoEngineError if no engine is open.
    """
    return await _engine().resume_webhook(token, request)


async def get_hook_by_token(token: str) -> HookInfo:
    """Return the live hook with this token, as `Engine.get_hook_by_token` does.

    Raises NoEngineError if no engine is open.
    """
    return await _engine().get_hook_by_token(token)


def _engine() -> Engine:
    return cast(Engine, open_engine())


__all__ = [
    "Engine",
    "HookInfo",
    "HookTarget",
    "KeptPayload",
    "Page",
    "Run",
    "RunRecord",
    "SentKey",
    "SystemClock",
    "TimeSource",
    "get_hook_by_token",
    "get_run",
    "resume_hook",
    "resume_webhook",
    "start",
    "start_or_resume",
]
