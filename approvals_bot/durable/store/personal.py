"""What people set themselves, in both databases: a row for each person, read again once it has changed."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.core.serialization import to_json

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection


class PersonalRow(NamedTuple):
    """A person's settings, and when they changed. The address is printable, so either database takes it as it is."""

    person: str
    settings: dict[str, Any]
    changed_at: datetime


class PersonalStore(Protocol):
    """What a store keeps of people's settings."""

    async def set_personal(self, row: PersonalRow) -> None:
        """Write a person's settings, in place of those they had."""

    async def personal(self, since: datetime) -> list[PersonalRow]:
        """Return the settings that have changed since then, that moment included."""


_SET = """
    INSERT INTO personal (person, settings, changed_at) VALUES {places}
    ON CONFLICT (person) DO UPDATE SET settings = excluded.settings, changed_at = excluded.changed_at"""
_CHANGED = "SELECT person, settings, changed_at FROM personal WHERE changed_at >= {place} ORDER BY changed_at, person"


def _values(row: PersonalRow) -> tuple[str, str, int]:
    return row.person, to_json(row.settings, "settings"), to_micros(row.changed_at)


def _row(person: str, settings: str, changed_at: int) -> PersonalRow:
    return PersonalRow(person, json.loads(settings), from_micros(changed_at))


# ── SQLite ──


def set_personal(db: sqlite3.Connection, row: PersonalRow) -> None:
    db.execute(_SET.format(places="(?, ?, ?)"), _values(row))


def list_personal(db: sqlite3.Connection, since: datetime) -> list[PersonalRow]:
    return [_row(*found) for found in db.execute(_CHANGED.format(place="?"), (to_micros(since),)).fetchall()]


# ── PostgreSQL ──


class PostgresPersonal:
    """What the store in PostgreSQL keeps of people's settings."""

    _write: PostgresConnection

    async def set_personal(self, row: PersonalRow) -> None:
        async with self._write.in_time():
            await self._write.fetch(_SET.format(places="($1, $2, $3)"), *_values(row))

    async def personal(self, since: datetime) -> list[PersonalRow]:
        async with self._write.in_time():
            found = await self._write.fetch(_CHANGED.format(place="$1"), to_micros(since))
        return [_row(*each) for each in found]
