"""The logger of workflows: each line is logged once, however often a body is replayed.

A replay logs nothing; it only keeps the lines, each with the event during whose delivery it was written. Its owner logs
the new ones once the decisions of that replay are durable. So a replay that is thrown away, because the log has grown
meanwhile or because it only served to check or to read something, logs nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from approvals_bot.durable.core.context import step_context
from approvals_bot.durable.core.loop import context_of_run
from approvals_bot.durable.core.run import RunState


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflows and their steps, named `approvals_bot.workflow`.

        from approvals_bot import logger

        logger.info("%s votes of %s", len(votes), need)

    It has the methods of `logging.Logger`. Records carry `run_id` and `workflow`, in a step also `step` and `attempt`.

    - In a workflow's body, a line is logged when its code runs for the first time, as soon as what the body decided
      there is durable. Replays of that code log nothing, also after a restart or in another process.
    - If a process dies, the lines of that moment may be missing, or be logged again by the process that continues the
      run. A stalled run logs the lines since its last decision again each time it is tried.
    - The `finally` of a run that only waits logs nothing.
    - In a step, and outside of workflows, it is an ordinary logger: each attempt logs its lines.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        run: RunState | None = context_of_run.get(None)
        kwargs["extra"] = {**_origin(run), **(kwargs.get("extra") or {})}
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        if run is None:
            self.logger.log(level, msg, *args, **kwargs)
        elif run.lines is not None and not run.loop.closing:
            run.lines.append((run.seq, self._record(level, msg, args, **kwargs)))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs

    def _record(
        self,
        level: int,
        msg: object,
        args: Any,
        *,
        extra: dict[str, object],
        exc_info: Any = None,
        stack_info: bool = False,
        stacklevel: int,
    ) -> logging.LogRecord:
        """Make the record that `logging.Logger` would make now. Its text is made now, too: its values may change."""
        file, line, function, stack = self.logger.findCaller(stack_info, stacklevel + 1)
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        elif exc_info and not isinstance(exc_info, tuple):
            exc_info = sys.exc_info()
        name = self.logger.name
        record = self.logger.makeRecord(name, level, file, line, msg, args, exc_info, function, extra, stack)
        with suppress(Exception):  # the handler reports what is wrong with the line, as it does elsewhere
            record.msg, record.args = record.getMessage(), ()
        return record


def _origin(run: RunState | None) -> dict[str, object]:
    if run is not None:
        return {"run_id": run.run_id, "workflow": run.name}
    context = step_context.get()
    if context is None:
        return {}
    workflow, step = context.workflow, context.step
    return {
        "run_id": workflow.run_id,
        "workflow": workflow.workflow_name,
        "step": step.name,
        "attempt": step.attempt,
    }


logger = WorkflowLogger(logging.getLogger("approvals_bot.workflow"))
