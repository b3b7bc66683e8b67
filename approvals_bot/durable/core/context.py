"""Where code runs: in the body of a workflow, in a step, or outside; and the engines that are open outside."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.loop import context_of_run
from approvals_bot.durable.core.run import RunState
from approvals_bot.errors import NoEngineError, NotInStepError, NotInWorkflowError


@dataclass(frozen=True, slots=True)
class WorkflowMetadata:
    """The run that this code belongs to."""

    workflow_name: str
    run_id: str
    started_at: datetime
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class StepMetadata:
    """The step that this code belongs to. `step_id` is the same on every attempt: use it as an idempotency key.

    `is_repeat`: a process that has died since began this attempt. Nobody knows how far it came.
    """

    name: str
    step_id: str
    attempt: int
    first_started_at: datetime
    is_repeat: bool = False


@dataclass(frozen=True, slots=True)
class StepContext:
    """The metadata that a running step can read."""

    step: StepMetadata
    workflow: WorkflowMetadata


step_context: ContextVar[StepContext | None] = ContextVar("approvals_bot_step", default=None)


def current_run(asking: str) -> RunState:
    """Return the run whose body is executing. Raises NotInWorkflowError anywhere else."""
    run: RunState | None = context_of_run.get(None)
    if run is None:
        where = "inside a step" if step_context.get() is not None else "outside a workflow"
        raise NotInWorkflowError(f"{asking} works only in the body of a @workflow; this call is {where}.")
    return run


def in_workflow() -> bool:
    """Return whether this code runs in the body of a workflow."""
    return context_of_run.get(None) is not None


def cancellation_reason() -> str | None:
    """Return the reason with which the run was asked to cancel. None without one, and if it wasn't asked."""
    asked = current_run("cancellation_reason()").cancellation
    return None if asked is None else asked.data["reason"]


def is_cancelled() -> bool:
    """Return whether the run was asked to cancel."""
    return current_run("is_cancelled()").cancellation is not None


def get_step_metadata() -> StepMetadata:
    """Return the name, id, attempt (from 1) and first start of the step that is running.

        @step
        async def charge(amount: int) -> str:
            return await bank.charge(amount, idempotency_key=get_step_metadata().step_id)

    The id stays the same over all attempts. Raises NotInStepError outside a step.
    """
    context = step_context.get()
    if context is None:
        raise NotInStepError()
    return context.step


def get_workflow_metadata() -> WorkflowMetadata:
    """Return the run that this code belongs to: its id, workflow, start and attributes.

        link = f"https://orders.example.com/runs/{get_workflow_metadata().run_id}"

    Works in a workflow's body and in its steps. Raises NotInWorkflowError elsewhere.
    """
    step_now = step_context.get()
    if step_now is not None and not in_workflow():
        return step_now.workflow
    run = current_run("get_workflow_metadata()")
    return WorkflowMetadata(run.name, run.run_id, run.started_at, dict(run.attributes))


class OpenEngine(Protocol):
    """The part of the engine that a typed hook needs: resuming by token."""

    async def resume_hook(self, token: str, payload: Any, *, resume_id: str | None = None) -> Any: ...


open_engines: list[OpenEngine] = []
"""The engines that are open in this process; the newest serves the module-level functions.

A context variable wouldn't reach the tasks of a web server that started before the engine opened.
"""


def open_engine() -> OpenEngine:
    """Return the engine that was opened last. Raises NoEngineError if none is open."""
    if not open_engines:
        raise NoEngineError()
    return open_engines[-1]
