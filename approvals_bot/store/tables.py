"""The tables of both stores, as an installation that moves takes them along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]

ROWS_AT_ONCE = 2_000  # keeps the memory small; a log's data are up to a megabyte each


@dataclass(frozen=True, slots=True)
class Table:
    """What is copied of a table, and by what it is ordered. Leases stay behind: nobody works on a copy yet."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


TABLES = (
    Table(
        "runs",
        ("id", "workflow", "code", "version", "status", "created_at", "ended_at", "idempotency_key", "attributes",
         "seq", "view", "stalled", "wake_at", "epoch"),
        ("id",),
    ),
    Table("events", ("run_id", "seq", "type", "at", "key", "data"), ("run_id", "seq")),
    Table(
        "hooks",
        ("id", "run_id", "number", "token", "is_webhook", "has_schema", "answer", "metadata", "created_at",
         "generation", "is_live"),
        ("id",),
    ),
    Table("audit", ("seq", "at", "what", "who", "run_id", "data", "hash"), ("seq",)),
)  # fmt: skip
