"""Rewriting the texts of runs that have ended, of the audit, counters and files, to erase a person; in both databases.

No chain breaks: where an event's data changes, its link keeps the seal of what was there in the place of the salt
(store/chain.py). Only ended runs are rewritten, so nobody works on what changes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection


class EventText(NamedTuple):
    """The data of an event, as JSON, and the salt of its link."""

    seq: int
    data: str
    salt: str


class RunTexts(NamedTuple):
    """Everything in a run's rows that may name somebody, as it is stored. `found`: its indexed attributes."""

    run_id: str
    is_open: bool
    attributes: str
    view: str | None
    parts: str | None
    key: str | None
    events: tuple[EventText, ...]
    hooks: tuple[tuple[str, str], ...]  # id and metadata
    found: tuple[tuple[str, str], ...]  # name and value


class AuditText(NamedTuple):
    """A line of the audit, as it is stored."""

    seq: int
    who: str | None
    data: str


class OtherTexts(NamedTuple):
    """What may name somebody in a row of another table, as it is stored: a counter's, or a file's without content."""

    table: Literal["counters", "files"]
    id: str
    texts: tuple[str, str]


class ErasureStore(Protocol):
    """What a store does to erase a person."""

    async def run_texts(self, after: str, most: int) -> list[RunTexts]:
        """Return the texts of the runs whose ID is greater than `after`, in the order of their IDs."""

    async def rewrite_run(self, was: RunTexts, to: RunTexts) -> None:
        """Write the texts of an ended run that have changed, in one transaction."""

    async def audit_texts(self, after: int, most: int) -> list[AuditText]:
        """Return the lines of the audit after this one."""

    async def rewrite_audit(self, lines: Sequence[AuditText]) -> None:
        """Write these lines in the place of those with the same numbers."""

    async def other_texts(self, table: Literal["counters", "files"], after: str, most: int) -> list[OtherTexts]:
        """Return the texts of the rows whose ID is greater than `after`, in the order of their IDs."""

    async def rewrite_other(self, was: OtherTexts, to: OtherTexts) -> bool:
        """Write the texts of a row. Returns False if they have changed since they were read."""

    async def erase_person(self, person: str) -> int:
        """Delete a person's sessions and settings. Returns how many rows there were."""

    async def overwrite_freed(self) -> str:
        """Overwrite what was freed. Returns what is left to do for that; "" if nothing is."""


_OF_PERSON = ("sessions", "personal")
_OTHER = {
    "counters": "SELECT name, name, state FROM counters WHERE name > {after} ORDER BY name LIMIT {most}",
    "files": "SELECT id, owner, described FROM files WHERE id > {after} ORDER BY id LIMIT {most}",
}
# A counter has another version then, so a service that has read it before reads it again.
_REWRITE_OTHER = {
    "counters": """UPDATE counters SET name = {to}, state = {and_to}, version = version + 1
                   WHERE name = {id} AND name = {was} AND state = {and_was}""",
    "files": """UPDATE files SET owner = {to}, described = {and_to}
                WHERE id = {id} AND owner = {was} AND described = {and_was}""",
}
_RUN = "r.id, r.ended_at IS NULL, r.attributes, r.view, r.parts, r.idempotency_key"


def _texts(row: Sequence[Any], events: Sequence[Any], hooks: Sequence[Any], found: Sequence[Any]) -> RunTexts:
    of_events = tuple(EventText(*each) for each in events)
    return RunTexts(
        row[0],
        bool(row[1]),
        row[2],
        row[3],
        row[4],
        row[5],
        of_events,
        tuple((id, metadata) for id, metadata in hooks),
        tuple((name, value) for name, value in found),
    )


def _changed(was: Sequence[Any], to: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(before, after) for before, after in zip(was, to, strict=True) if before != after]


# ── SQLite ──

_EVENTS = (
    "SELECT seq, data, coalesce(salt, '') FROM events LEFT JOIN chain USING (run_id, seq) WHERE run_id = ? ORDER BY seq"
)
_UPDATE = (
    "UPDATE runs SET attributes = ?, view = ?, parts = ?, idempotency_key = ? WHERE id = ? AND ended_at IS NOT NULL"
)


def run_texts(db: sqlite3.Connection, after: str, most: int) -> list[RunTexts]:
    rows = db.execute(f"SELECT {_RUN} FROM runs AS r WHERE r.id > ? ORDER BY r.id LIMIT ?", (after, most)).fetchall()  # noqa: S608  # our own names
    return [
        _texts(
            row,
            db.execute(_EVENTS, row[:1]).fetchall(),
            db.execute("SELECT id, metadata FROM hooks WHERE run_id = ? ORDER BY id", row[:1]).fetchall(),
            db.execute("SELECT name, value FROM attributes WHERE run_id = ?", row[:1]).fetchall(),
        )
        for row in rows
    ]


def rewrite_run(db: sqlite3.Connection, was: RunTexts, to: RunTexts) -> None:
    """Write the texts of an ended run that have changed."""
    db.execute("PRAGMA secure_delete = ON")
    if not db.execute(_UPDATE, (to.attributes, to.view, to.parts, to.key, to.run_id)).rowcount:
        return
    for _, event in _changed(was.events, to.events):
        db.execute("UPDATE events SET data = ? WHERE run_id = ? AND seq = ?", (event.data, to.run_id, event.seq))
        db.execute("UPDATE chain SET salt = ? WHERE run_id = ? AND seq = ?", (event.salt, to.run_id, event.seq))
    for _, (id, metadata) in _changed(was.hooks, to.hooks):
        db.execute("UPDATE hooks SET metadata = ? WHERE id = ?", (metadata, id))
    for (name, value), (_, new) in _changed(was.found, to.found):
        db.execute(
            "UPDATE OR REPLACE attributes SET value = ? WHERE run_id = ? AND name = ? AND value = ?",
            (new, to.run_id, name, value),
        )


def audit_texts(db: sqlite3.Connection, after: int, most: int) -> list[AuditText]:
    found = db.execute("SELECT seq, who, data FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, most))
    return [AuditText(*row) for row in found.fetchall()]


def rewrite_audit(db: sqlite3.Connection, lines: Sequence[AuditText]) -> None:
    """Write these lines in the place of those with the same numbers."""
    db.execute("PRAGMA secure_delete = ON")
    db.executemany(
        "UPDATE audit SET who = ?, data = ? WHERE seq = ?", [(each.who, each.data, each.seq) for each in lines]
    )


def other_texts(db: sqlite3.Connection, table: Literal["counters", "files"], after: str, most: int) -> list[OtherTexts]:
    found = db.execute(_OTHER[table].format(after="?", most="?"), (after, most)).fetchall()
    return [OtherTexts(table, id, (one, other)) for id, one, other in found]


def rewrite_other(db: sqlite3.Connection, was: OtherTexts, to: OtherTexts) -> bool:
    """Write the texts of a row that hasn't changed since."""
    db.execute("PRAGMA secure_delete = ON")
    sql = _REWRITE_OTHER[was.table].format(to="?", and_to="?", id="?", was="?", and_was="?")
    return db.execute(sql, (*to.texts, was.id, *was.texts)).rowcount == 1


def erase_person(db: sqlite3.Connection, person: str) -> int:
    """Delete a person's sessions and settings."""
    db.execute("PRAGMA secure_delete = ON")
    gone = [db.execute(f"DELETE FROM {name} WHERE person = ?", (person,)) for name in _OF_PERSON]  # noqa: S608
    return sum(each.rowcount for each in gone)


# ── PostgreSQL ──

_TEXTS_PG = f"""
  SELECT {_RUN},
    (SELECT coalesce(json_agg(json_build_array(e.seq, e.data, coalesce(c.salt, '')) ORDER BY e.seq), '[]')::text
       FROM events AS e LEFT JOIN chain AS c ON c.run_id = e.run_id AND c.seq = e.seq WHERE e.run_id = r.id),
    (SELECT coalesce(json_agg(json_build_array(h.id, h.metadata) ORDER BY h.id), '[]')::text
       FROM hooks AS h WHERE h.run_id = r.id),
    (SELECT coalesce(json_agg(json_build_array(a.name, a.value)), '[]')::text
       FROM attributes AS a WHERE a.run_id = r.id)
  FROM runs AS r WHERE r.id > $1 ORDER BY r.id LIMIT $2"""  # noqa: S608  # our own names
# One statement is one transaction.
_REWRITE_PG = """
  WITH row AS (
    UPDATE runs SET attributes = $2, view = $3, parts = $4, idempotency_key = $5
    WHERE id = $1 AND ended_at IS NOT NULL RETURNING id),
  logged AS (
    UPDATE events SET data = n ->> 1 FROM json_array_elements($6::json) AS each (n)
    WHERE run_id IN (SELECT id FROM row) AND seq = (n ->> 0)::bigint),
  linked AS (
    UPDATE chain SET salt = n ->> 2 FROM json_array_elements($6::json) AS each (n)
    WHERE run_id IN (SELECT id FROM row) AND seq = (n ->> 0)::bigint),
  hooked AS (
    UPDATE hooks SET metadata = n ->> 1 FROM json_array_elements($7::json) AS each (n)
    WHERE run_id IN (SELECT id FROM row) AND hooks.id = n ->> 0)
  UPDATE attributes SET value = n ->> 2 FROM json_array_elements($8::json) AS each (n)
  WHERE run_id IN (SELECT id FROM row) AND name = n ->> 0 AND value = n ->> 1
    AND NOT EXISTS (SELECT 1 FROM attributes AS b
      WHERE b.run_id = attributes.run_id AND b.name = n ->> 0 AND b.value = n ->> 2)"""


class PostgresErasure:
    """What the store in PostgreSQL does to erase a person."""

    _write: PostgresConnection
    _lists: PostgresConnection

    async def run_texts(self, after: str, most: int) -> list[RunTexts]:
        async with self._lists.in_time():
            rows = await self._lists.fetch(_TEXTS_PG, after, most)
        return [_texts(row[:6], *(json.loads(each) for each in row[6:])) for row in rows]

    async def rewrite_run(self, was: RunTexts, to: RunTexts) -> None:
        events = [list(after) for _, after in _changed(was.events, to.events)]
        hooks = [list(after) for _, after in _changed(was.hooks, to.hooks)]
        found = [[name, value, new] for (name, value), (_, new) in _changed(was.found, to.found)]
        given = [json.dumps(each) for each in (events, hooks, found)]
        async with self._write.in_time():
            await self._write.fetch(_REWRITE_PG, to.run_id, to.attributes, to.view, to.parts, to.key, *given)

    async def audit_texts(self, after: int, most: int) -> list[AuditText]:
        async with self._lists.in_time():
            rows = await self._lists.fetch(
                "SELECT seq, who, data FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2", after, most
            )
        return [AuditText(*row) for row in rows]

    async def rewrite_audit(self, lines: Sequence[AuditText]) -> None:
        sql = """UPDATE audit SET who = n ->> 1, data = n ->> 2 FROM json_array_elements($1::json) AS each (n)
                 WHERE seq = (n ->> 0)::bigint"""
        async with self._write.in_time():
            await self._write.fetch(sql, json.dumps([list(each) for each in lines]))

    async def other_texts(self, table: Literal["counters", "files"], after: str, most: int) -> list[OtherTexts]:
        async with self._lists.in_time():
            rows = await self._lists.fetch(_OTHER[table].format(after="$1", most="$2"), after, most)
        return [OtherTexts(table, id, (one, other)) for id, one, other in rows]

    async def rewrite_other(self, was: OtherTexts, to: OtherTexts) -> bool:
        sql = _REWRITE_OTHER[was.table].format(to="$1", and_to="$2", id="$3", was="$4", and_was="$5")
        async with self._write.in_time():
            return bool(await self._write.fetch(f"{sql} RETURNING 1", *to.texts, was.id, *was.texts))

    async def erase_person(self, person: str) -> int:
        async with self._write.in_time():
            gone = [
                await self._write.fetch(f"DELETE FROM {name} WHERE person = $1 RETURNING 1", person)  # noqa: S608  # our own
                for name in _OF_PERSON
            ]
        return sum(map(len, gone))

    async def overwrite_freed(self) -> str:
        return (
            "PostgreSQL keeps old versions of rows until they are vacuumed, and in its WAL: run VACUUM FULL when "
            "little is going on"
        )
