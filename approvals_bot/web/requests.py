"""Whether a run is a request, and what it shows of itself."""

from __future__ import annotations

from approvals_bot.approvals.request import RequestView
from approvals_bot.engine import RunRecord

_MARKS = {"hook_id", "recipients", "digest", "waiting_for"}


def request_of(record: RunRecord) -> RequestView | None:
    """The request that this run is; None for any other workflow, which may publish what it likes."""
    if isinstance(record.view, dict) and record.view.keys() >= _MARKS:
        return RequestView.model_validate(record.view)
    return None
