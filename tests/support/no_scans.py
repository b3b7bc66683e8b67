"""No statement on SQLite may scan a table that grows: each reads along an index, wherever the product asks for it.

In the tests of the rooms named below, each kind of statement that a store executes is explained once per process. A
scan, which otherwise only a large installation would notice, fails the test that caused it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from approvals_bot.durable.store import sqlite

ROOMS = {"channels", "cli", "playground", "service", "web"}

SMALL = {"runs_due", "runs_held"}
"""Indexes of the runs that are being worked on now. These may be read from end to end."""

WHOLE = {"audit"}
"""Tables that are only read when all of them is asked for: by an export."""

_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+\b")
_SCAN = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
_TABLES = {"runs", "attributes", "events", "hooks", "listed", *WHOLE}

_known: dict[str, list[str]] = {}


def scans_of(db: sqlite3.Connection, sql: str) -> list[str]:
    """Return the steps of a statement's plan that scan a growing table."""
    kind = _LITERAL.sub("?", sql)
    if kind not in _known:
        _known[kind] = [step for (*_, step) in db.execute(f"EXPLAIN QUERY PLAN {sql}") if _is_scan(step)]
    return _known[kind]


def _is_scan(step: str) -> bool:
    found = _SCAN.match(step)
    return found is not None and found[1] in _TABLES - WHOLE and found[2] not in SMALL


@pytest.fixture(autouse=True)
def no_scans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Explain what the stores of this test execute. Returns what was scanned."""
    found: list[str] = []
    if not ROOMS & set(Path(str(request.path)).parts):
        yield found
        return
    set_up = sqlite._set_up

    def set_up_and_watch(db: sqlite3.Connection) -> None:
        set_up(db)
        (*_, file) = db.execute("PRAGMA database_list").fetchone()
        seen = set[str]()

        def look(sql: str) -> None:
            verb = sql.split(maxsplit=1)[0]
            kind = _LITERAL.sub("?", sql) if verb in ("SELECT", "WITH") else sql[:100]  # the others have long values
            if kind in seen or verb not in ("SELECT", "WITH", "UPDATE", "DELETE"):
                return
            seen.add(kind)
            # Another connection explains: this one is in the middle of the statement.
            with suppress(sqlite3.OperationalError), sqlite3.connect(file) as other:
                found.extend(f"{step}: {sql[:500]}" for step in scans_of(other, sql))
            other.close()

        db.set_trace_callback(look)

    monkeypatch.setattr(sqlite, "_set_up", set_up_and_watch)
    yield found
    assert found == [], "tables that grow were scanned:\n" + "\n".join(found[:5])
