"""How the audit's lines are chained: each line's hash covers it and, through the line before, everything before."""

from __future__ import annotations

import hashlib
import json

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.protocol import AuditEntry, RunRow


def link(before: str, seq: int, at: int, entry: AuditEntry) -> tuple[str, str]:
    """The entry's data as the line has them, and the line's hash. `before`: the hash of the line before, or nothing;
    `at` in microseconds."""
    data = json.dumps(entry.data, sort_keys=True)
    covered = json.dumps([before, seq, at, entry.what, entry.who, entry.run_id, data])
    return data, hashlib.sha256(covered.encode()).hexdigest()


# ── Where the next page of runs starts: after this run, by its time and its id. ──


def cursor_after(row: RunRow) -> str:
    return f"{to_micros(row.created_at)}.{row.id}"


def read_cursor(cursor: str) -> tuple[int, str]:
    """Microseconds and id. ValueError for what no page gave."""
    at, _, run_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 19) or not run_id:
        raise ValueError("this cursor is not one that a list gave")
    return int(at), run_id
