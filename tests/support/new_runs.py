"""Runs for the tests of stores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.store.protocol import NewRun, RunRecord

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def new_run(
    id: str,
    workflow: str,
    code: str,
    version: str | None,
    data: dict[str, Any],
    idempotency_key: str | None = None,
    attributes: dict[str, Attribute] | None = None,
    kind: str = "workflow",
) -> NewRun:
    """A run that a store has not created yet."""
    return NewRun(
        RunRecord.new(id, workflow, code, version, T0, kind=kind, attributes=attributes), data, idempotency_key
    )
