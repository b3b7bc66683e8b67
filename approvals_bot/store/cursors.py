"""Where the next page of runs starts: after this run, by its time and its id."""

from __future__ import annotations

from approvals_bot.core.events import to_micros
from approvals_bot.store import RunRow


def cursor_after(row: RunRow) -> str:
    return f"{to_micros(row.created_at)}.{row.id}"


def read_cursor(cursor: str) -> tuple[int, str]:
    """Microseconds and id. ValueError for what no page gave."""
    at, _, run_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 19) or not run_id:
        raise ValueError("this cursor is not one that a list gave")
    return int(at), run_id
