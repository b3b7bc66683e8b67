"""How the audit's lines are chained: each line's hash covers it and, through the line before, everything before."""

from __future__ import annotations

import hashlib
import json

from approvals_bot.store import AuditEntry


def link(before: str, seq: int, at: int, entry: AuditEntry) -> tuple[str, str]:
    """The entry's data as the line has them, and the line's hash. `before`: the hash of the line before, or nothing;
    `at` in microseconds."""
    data = json.dumps(entry.data, sort_keys=True)
    covered = json.dumps([before, seq, at, entry.what, entry.who, entry.run_id, data])
    return data, hashlib.sha256(covered.encode()).hexdigest()
