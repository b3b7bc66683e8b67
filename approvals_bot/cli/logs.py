"""The service's log: one line an event, as text or as JSON, and nothing in it that names people or opens doors.

Our code logs with the standard library and passes the event's name and fields as `extra`. So do libraries, whose
lines go the same way. Neither error messages nor tracebacks are written, since both may quote what people sent: an
error is its class, and the file and line where it was raised.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from approvals_bot.config.monitoring import LogFormat, LogLevel
from approvals_bot.durable.core.bugs import where_raised
from approvals_bot.durable.core.context import step_context
from approvals_bot.durable.core.tracing import trace_id
from approvals_bot.service.log_fields import FIELDS, of_request

OURS = "approvals_bot"
AUTHORS = "approvals_bot.workflow"  # what workflows log
OTHER = "log"  # the event of a line that has none

LONGEST = 1_000  # characters of a message
LONGEST_FIELD = 200

ADDRESS = re.compile(r"[^\s<>\"'(),;=]+@[^\s<>\"'(),;]+")
GROUP = re.compile(r"slack:@[\w-]+\.?")  # a user group, which is no address
URL = re.compile(r"(\b[a-z][a-z0-9+]*://[^\s/\"'<>]*)/[^\s\"'<>]+")
TOKEN = re.compile(r"\b(?=[\w~-]*\d)(?=[\w~-]*[A-Za-z])[\w~-]{40,}")
CONTROL = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")

Line = MutableMapping[str, Any]

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def set_up_logs(
    format: LogFormat, level: LogLevel, *, version: str, replica: str, stream: TextIO | None = None
) -> LogWriter:
    """Send every logger's lines to standard error in this format. Returns the handler, which replaces all others."""
    write: Callable[[Any, str, Line], str] = _as_json if format == "json" else _as_text
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[], processors=[_Fields({"version": version, "replica": replica}), write]
    )
    handler = LogWriter(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger(OURS).setLevel(level.upper())
    for noisy in ("slack_bolt", "slack_sdk", "aiohttp", "uvicorn.error", "mail.log"):  # we say what they would
        logging.getLogger(noisy).setLevel(logging.ERROR)
    return handler


class LogWriter(logging.StreamHandler[TextIO]):
    """Writes the lines. `lost`: how many could not be written; `why`: of the last one, "" if that was written."""

    lost, why = 0, ""

    def emit(self, record: logging.LogRecord) -> None:
        lost = self.lost
        super().emit(record)
        if lost == self.lost:
            self.why = ""

    def handleError(self, record: logging.LogRecord) -> None:
        """Take note of a line that could not be written: its disk is full, or its reader has gone."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError | ValueError):
            self.lost, self.why = self.lost + 1, getattr(error, "strerror", None) or str(error)
        else:
            super().handleError(record)


class _Fields:
    """Makes a line's fields of a record, and of where the code runs that logs it."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own

    def __call__(self, logger: Any, name: str, given: Line) -> Line:
        record: logging.LogRecord = given["_record"]
        known = record.__dict__
        line: Line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:23] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": known.get("event") or ("author_log" if record.name == AUTHORS else OTHER),
            "message": harmless(str(given["event"])),
            **self._own,
        }
        fields = _context()
        if (raised := given.get("exc_info")) and (error := raised[1]) is not None:
            fields |= {"error": type(error).__name__, "where": where_raised(error)}
        for field in FIELDS:
            if (value := known.get(field, fields.get(field))) not in (None, ""):
                line[field] = harmless(value)[:LONGEST_FIELD] if isinstance(value, str) else value
        return line


def _context() -> dict[str, Any]:
    """Return the fields that every line of this request, or of this step, has."""
    found = {"trace_id": trace_id()} | (of_request.get() or {})
    if (context := step_context.get()) is not None:
        workflow, step = context.workflow, context.step
        found |= {"run_id": workflow.run_id, "workflow": workflow.workflow_name}
        found |= {"step": step.name, "attempt": step.attempt}
    return found


def harmless(text: str) -> str:
    """Return one line of the text without addresses, paths of URLs, and what may be a token."""
    if "\n" in text or not text.isprintable():
        text = CONTROL.sub(" ", text)
    if "@" in text:
        text = ADDRESS.sub(lambda found: found[0] if GROUP.fullmatch(found[0]) else "<address>", text)
    if "://" in text:
        text = URL.sub(r"\1/<path>", text)
    if len(text) >= 40:
        text = TOKEN.sub("<token>", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _as_json(logger: Any, name: str, line: Line) -> str:
    return _JSON.encode(line)


def _as_text(logger: Any, name: str, line: Line) -> str:
    fields = " ".join(f"{field}={line[field]}" for field in FIELDS if field in line)
    text = f"{line['ts']} {line['level']:<7} {line['event']} {line['message']}"
    return f"{text} {fields}" if fields else text
