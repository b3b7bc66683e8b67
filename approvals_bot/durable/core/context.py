"""Where code is: in the body of a workflow, in a step, or outside; and which engine is open in this process."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from approvals_bot.durable.core.loop import context_of_run
from approvals_bot.durable.core.run import RunState
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
    return context_of_run.get(None) is not None


def current_step() -> StepContext:
    context = step_context.get()
    if context is None:
        raise NotInStepError()
    return context


class OpenEngine(Protocol):
    """What a typed hook needs of the engine: to resume by token."""

    async def resume_hook(self, token: str, payload: Any, *, resume_id: str | None = None) -> Any: ...


open_engines: list[OpenEngine] = []
"""The engines that are open in this process; the newest serves the module-level functions. A context variable would not
reach the tasks of a web server, which were started before the engine was opened."""


def open_engine() -> OpenEngine:
    if not open_engines:
        raise NoEngineError()
    return open_engines[-1]
