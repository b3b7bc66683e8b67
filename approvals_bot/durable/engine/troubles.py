"""What the service's log says about runs that stall or fail: one line each, with class, file and line.

An error's message is never logged, as it may hold people's data. It is in the run's record and log.
"""

from __future__ import annotations

import logging
import time

from approvals_bot.durable.core.bugs import step_behind, where_raised
from approvals_bot.durable.core.context import StepContext
from approvals_bot.durable.core.events import Event, NewEvent
from approvals_bot.durable.store.protocol import RunRecord
from approvals_bot.errors import ApprovalsBotError, NondeterminismError, StoreUnavailableError, WorkflowBugError

engine_logger = logging.getLogger("approvals_bot.durable.engine")
logger = logging.getLogger("approvals_bot.durable.runs")
"""Apart from the engine's own: what it says is about the code of workflows, and no fault of the engine."""


AGAIN = 60.0
"""Seconds between two lines about a store that is away, as long as it says the same."""


class StoreLines:
    """What an engine's log says while the store is away: what the store has said, and that at most once a minute.

    Every run that is worked on meets it, several times a second.
    """

    def __init__(self) -> None:
        self._said, self._again = "", 0.0

    def is_away(self, error: StoreUnavailableError) -> None:
        """Log that the store could not be used, and is tried again."""
        if (now := time.monotonic()) >= self._again or str(error) != self._said:
            self._said, self._again = str(error), now + AGAIN
            engine_logger.warning("the store is unavailable, trying again: %s", error)


def reason_of(error: Exception) -> str:
    """Return why a run stalls, for the people who mend it: class, message, and the file and line if known."""
    return str(error) if isinstance(error, WorkflowBugError) else f"{type(error).__name__}: {error}"


def log_stall(run: RunRecord, error: Exception) -> None:
    """Log that a run has stalled. It keeps its payloads and goes on with other code, or when it is retried."""
    kind, where = type(error).__name__, ""
    match error:
        case WorkflowBugError():
            kind, where = error.cause_type, error.where
        case NondeterminismError():
            where = f"event {error.seq}"
        case ApprovalsBotError():
            pass  # the engine raised it, so its lines say nothing about the workflow's code
        case _:
            where = where_raised(error)
    after = step_behind(error)
    behind = "" if after is None else f", after step {after.step} failed on attempt {after.attempts}"
    said = {"event": "run_stalled", "run_id": run.id, "workflow": run.workflow, "error": kind, "where": where}
    logger.error(
        "run %s of %s stalled: %s%s%s. It goes on when its code is mended: reload, or `approvals-bot retry` it",
        run.id, run.workflow, kind, _at(where), behind, extra=said,
    )  # fmt: skip


def log_resumed(run: RunRecord) -> None:
    """Log that a stalled run goes on, with other code or after a retry."""
    said = {"event": "run_resumed", "run_id": run.id, "workflow": run.workflow}
    logger.info("run %s of %s had stalled, and goes on", run.id, run.workflow, extra=said)


def log_failure(run: RunRecord, failed: Event) -> None:
    """Log that a run has failed, or its clean-up after a cancellation, which the end of its log says."""
    error = failed.data["error"]
    what = "failed" if failed.type == "run_failed" else "was cancelled, and its clean-up failed"
    kind, where = error["type"], error.get("where")
    said = {"event": "run_failed", "run_id": run.id, "workflow": run.workflow, "error": kind, "where": where}
    logger.error("run %s of %s %s: %s%s", run.id, run.workflow, what, kind, _at(where), extra=said)


def log_step_failure(context: StepContext, failed: NewEvent) -> None:
    """Log that a step has failed for good, which its `step_failed` says."""
    run, step, error = context.workflow, context.step, failed.data["error"]
    logger.error(
        "run %s of %s: step %s failed for good on attempt %d: %s%s",
        run.run_id, run.workflow_name, step.name, step.attempt, error["type"], _at(error.get("where")),
        extra={"error": error["type"], "where": error.get("where")},
    )  # fmt: skip


def _at(where: str | None) -> str:
    return f" at {where}" if where else ""
