"""Fills a store with runs that ended two years ago: copies of one real run, each with its own IDs, chain and hooks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from approvals_bot.durable.store.chain import chain_rows

KEPT = timedelta(days=400)
AGE = int(timedelta(days=730).total_seconds() * 1e6)
_COPIED = {  # the columns that are texts with IDs in them, and those that are times
    "runs": (("id", "attributes", "view", "parts"), ("created_at", "ended_at")),
    "events": (("run_id", "key", "data"), ("at",)),
    "hooks": (("id", "run_id", "token", "metadata"), ("created_at",)),
    "attributes": (("run_id", "value"), ("created_at",)),
}


def copy_ended(file: Path, run: str, numbers: range) -> list[str]:
    """Write copies of an ended run with these numbers, beside the service. Returns the IDs of their first hooks."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")  # that is the service's
        rows = {
            table: db.execute(
                f"SELECT * FROM {table} WHERE {'id' if table == 'runs' else 'run_id'} = ?", (run,)
            )  # our own names
            for table in _COPIED
        }
        columns = {table: [each[0] for each in found.description] for table, found in rows.items()}
        found = {table: each.fetchall() for table, each in rows.items()}
        hook = str(found["hooks"][0][columns["hooks"].index("id")])
        hooks = []
        db.execute("BEGIN IMMEDIATE")
        for number in numbers:
            new = {run: f"run_{number:011x}{run[15:]}", hook: f"{hook[:-7]}{number:07x}"}
            hooks.append(new[hook])
            for table, names in columns.items():
                made = [_copied(dict(zip(names, row, strict=True)), table, new) for row in found[table]]
                places = ", ".join("?" * len(names))
                db.executemany(f"INSERT INTO {table} VALUES ({places})", made)  # our own names
                if table == "events":
                    db.executemany("INSERT INTO chain VALUES (?, ?, ?, ?)", chain_rows(new[run], new[run], made))
        db.execute("COMMIT")
    return hooks


def _copied(row: dict[str, object], table: str, new: dict[str, str]) -> tuple[object, ...]:
    texts, times = _COPIED[table]
    for name in texts:
        value = row[name]
        if isinstance(value, str):
            for old, instead in new.items():
                value = value.replace(old, instead)
            row[name] = value
    row |= {name: int(str(row[name])) - AGE for name in times if row[name] is not None}
    if table == "runs":
        row["idempotency_key"] = None
    return tuple(row.values())
