"""Writing the states of schedules and counters to SQLite, each only after the version that it was decided from."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.encoding import storable
from approvals_bot.durable.store.protocol import StateRow

_FIRST_STATE = "INSERT INTO schedules (state, name, version) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_NEXT_STATE = "UPDATE schedules SET state = ?1, version = ?3 WHERE name = ?2 AND version = ?3 - 1"
_FIRST_COUNT = "INSERT INTO counters (state, name, version, until) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_NEXT_COUNT = "UPDATE counters SET state = ?1, version = ?3, until = ?4 WHERE name = ?2 AND version = ?3 - 1"
_FORGET = "DELETE FROM counters WHERE name IN (SELECT name FROM counters WHERE until <= ? ORDER BY until LIMIT 10)"


def set_schedule(db: sqlite3.Connection, row: StateRow) -> bool:
    given = (to_json(row.state, "state"), storable(row.name), row.version)
    if row.version == 1:
        return db.execute(_FIRST_STATE, given).rowcount == 1
    return db.execute(_NEXT_STATE, given).rowcount == 1


def set_counter(db: sqlite3.Connection, row: StateRow, at: datetime, until: datetime) -> bool:
    given = (to_json(row.state, "state"), storable(row.name), row.version, to_micros(until))
    is_written = db.execute(_FIRST_COUNT if row.version == 1 else _NEXT_COUNT, given).rowcount == 1
    db.execute(_FORGET, (to_micros(at),))
    return is_written
