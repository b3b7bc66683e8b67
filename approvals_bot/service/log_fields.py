"""What the log's lines about one request have in common: its ID, and what is learnt while it is answered."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

FIELDS = (
    "request_id",
    "trace_id",
    "method",
    "route",
    "status",
    "duration_ms",
    "app",
    "run_id",
    "workflow",
    "step",
    "attempt",
    "delivery_id",
    "channel",
    "target",
    "outcome",
    "error",
    "where",
)
"""What a line may say besides its text, in this order. None of it names a person, or holds what people wrote."""

of_request: ContextVar[dict[str, Any] | None] = ContextVar("approvals_bot_log_fields", default=None)
"""The fields of the request that is being answered. The tasks that it starts share them."""


def note(**fields: Any) -> None:
    """Add fields to the lines about the request that is being answered, if there is one."""
    known = of_request.get()
    if known is not None:
        known.update(fields)


def request_id() -> str:
    """Return the ID of the request that is being answered; "" outside of one."""
    known = of_request.get()
    return str(known.get("request_id", "")) if known is not None else ""
