"""Errors as the log keeps them, and back again."""

from __future__ import annotations

import builtins
import importlib
import sys
import traceback
from typing import Any

from approvals_bot.errors import StepFailedError

MAX_TEXT = 10_000  # characters of a message or traceback; the rest is cut


def encode_error(error: BaseException) -> dict[str, Any]:
    """Type, message and traceback of an error."""
    kind = type(error)
    try:
        message, trace = str(error), "".join(traceback.format_exception(error))
    except Exception as unprintable:  # noqa: BLE001  # an author's __str__ may raise anything, too
        message, trace = f"(its text can't be read: {type(unprintable).__name__})", ""
    return {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "message": message[:MAX_TEXT],
        "traceback": trace[-MAX_TEXT:],
    }


class RemoteError(Exception):
    """An error of a type that this process can't build from its message alone; `kind` names the type."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def decode_error(error: dict[str, Any]) -> Exception:
    """The error again, as its own class where that class can be had and takes one message, else a RemoteError."""
    message, name = error.get("message", ""), error.get("type", "Exception")
    kind = getattr(_module(error.get("module", "builtins")), name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except Exception:  # noqa: BLE001  # it wants other arguments; its name and message are what we have
            return RemoteError(name, message)
    return RemoteError(name, message)


def _module(name: str) -> Any:
    """The module, also if only the step that raised has imported it so far: a body that looks at the class of an error
    must see the same in each process."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name)
    except Exception:  # noqa: BLE001  # it isn't here, or can't be imported
        return builtins


def step_error(step: str, data: dict[str, Any]) -> StepFailedError:
    """What the workflow sees of a step that failed for good."""
    cause = data["error"]
    error = StepFailedError(step, data["attempts"], cause.get("type", "Exception"), cause.get("message", ""))
    error.__cause__ = decode_error(cause)
    return error
