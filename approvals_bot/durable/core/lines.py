"""Lines that a body logs: kept during a replay, with the event they belong to, and logged by its owner."""

from __future__ import annotations

import logging

from approvals_bot.durable.core.bugs import where_raised

workflow_logger = logging.getLogger("approvals_bot.workflow")


class Lines(list[tuple[int, logging.LogRecord]]):
    """Lines of a body that haven't been logged yet, each with the event during whose delivery it was written."""

    logged: int | None = None
    """The number of events whose lines have been logged. None: the run's log shows it."""

    def log(self, logged: int) -> None:
        """Log the lines that come after those of the first `logged` events."""
        lines = [record for seq, record in self if seq > logged]
        self.clear()
        for record in lines:
            try:
                logging.getLogger(record.name).handle(record)
            except Exception:  # a filter or handler of the log mustn't harm the run
                logging.getLogger("approvals_bot.durable.core").exception("a line of a workflow couldn't be logged")


def line_about_unseen(what: str, error: BaseException, run_id: str, workflow: str) -> logging.LogRecord:
    """Make the line about an error that nothing in the workflow has awaited."""
    where = where_raised(error)
    file, _, line = where.rpartition(":")
    return workflow_logger.makeRecord(
        workflow_logger.name,
        logging.ERROR,
        file,
        int(line or 0),
        "run %s: %s failed, and nothing has awaited it: %s at %s",
        (run_id, what, type(error).__name__, where),
        None,
        extra={"run_id": run_id, "workflow": workflow},
    )
