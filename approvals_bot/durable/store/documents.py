"""Documents that another program keeps here, in both databases: JSON by kind and ID.

Each change has a number, greater than all before it, which is the document's version: a replica reads on from the last
one that it knows. The row of a deleted document stays, so that everybody hears of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.audit import NewLine

if TYPE_CHECKING:  # its driver is an extra
    from approvals_bot.durable.store.postgres_connection import PostgresConnection

AT_ONCE = 1_000  # documents in one read


class DocumentRow(NamedTuple):
    """A document as it is in the store. `document`: None once it is deleted. `name`: unique in its kind."""

    kind: str
    id: str
    name: str | None
    document: dict[str, Any] | None
    change: int


Refused = Literal["stale", "taken"]
"""Why a document was not written: it has changed since it was read, or another one has its name."""


class DocumentStore(Protocol):
    """What a store keeps of documents."""

    async def put_document(self, row: DocumentRow, line: NewLine | None = None) -> int | Refused:
        """Write a document whose last change had this number; 0 for a new one. Returns the number of this change.

        `line` is added to the audit with it, in one transaction, unless the document is refused.
        """

    async def document(self, kind: str, id: str) -> DocumentRow | None:
        """Return the document with this ID. None if it doesn't exist any more."""

    async def documents(self, after: int) -> list[DocumentRow]:
        """Return the next documents that have changed after this number, deleted ones, too, in order of change."""


def _values(row: DocumentRow) -> tuple[str, str, str | None, str]:
    return row.kind, row.id, row.name, "" if row.document is None else to_json(row.document, "a document")


def _row(kind: str, id: str, name: str | None, document: str, change: int) -> DocumentRow:
    return DocumentRow(kind, id, name, json.loads(document) if document else None, change)


_COLUMNS = "kind, id, name, document, change"

# ── SQLite ──

_FIND = f"SELECT {_COLUMNS} FROM documents WHERE kind = ? AND id = ? AND document <> ''"  # noqa: S608  # our own names
_AFTER = f"SELECT {_COLUMNS} FROM documents WHERE change > ? ORDER BY change LIMIT {AT_ONCE}"  # noqa: S608
_TAKEN = "SELECT 1 FROM documents WHERE kind = ? AND name = ? AND id <> ?"
_NEXT = "(SELECT coalesce(max(change), 0) + 1 FROM documents)"
_NEW = f"INSERT INTO documents ({_COLUMNS}) VALUES (?, ?, ?, ?, {_NEXT}) ON CONFLICT DO NOTHING RETURNING change"  # noqa: S608
_CHANGE = f"""
    UPDATE documents SET name = ?3, document = ?4, change = {_NEXT}
    WHERE kind = ?1 AND id = ?2 AND change = ?5 AND document <> '' RETURNING change"""  # noqa: S608


def put_document(db: sqlite3.Connection, row: DocumentRow) -> int | Refused:
    values = _values(row)
    if row.name is not None and db.execute(_TAKEN, (row.kind, row.name, row.id)).fetchone():
        return "taken"
    found = db.execute(_CHANGE, (*values, row.change)) if row.change else db.execute(_NEW, values)
    written = found.fetchone()
    return "stale" if written is None else int(written[0])


def find_document(db: sqlite3.Connection, kind: str, id: str) -> DocumentRow | None:
    row = db.execute(_FIND, (kind, id)).fetchone()
    return None if row is None else _row(*row)


def list_documents(db: sqlite3.Connection, after: int) -> list[DocumentRow]:
    return [_row(*found) for found in db.execute(_AFTER, (after,)).fetchall()]


# ── PostgreSQL ──

PUT_PG = """
    WITH put AS MATERIALIZED (SELECT put_document($8, $9, $10, $11, $12) AS change),
    line AS (
      INSERT INTO audit (seq, at, what, who, run_id, data, hash)
      SELECT given.* FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
        AS given, put WHERE put.change > 0
    )
    SELECT change FROM put"""
_FIND_PG = f"SELECT {_COLUMNS} FROM documents WHERE kind = $1 AND id = $2 AND document <> ''"  # noqa: S608
_AFTER_PG = f"SELECT {_COLUMNS} FROM documents WHERE change > $1 ORDER BY change LIMIT {AT_ONCE}"  # noqa: S608


def given_to_put(row: DocumentRow) -> tuple[str | int | None, ...]:
    """Return what PUT_PG takes from $8 on: the columns of the audit's line, if one is added, come before."""
    return *_values(row), row.change


def result_of_put(rows: Sequence[Any]) -> int | Refused:
    """Return the result of PUT_PG."""
    ((change,),) = rows
    return "taken" if change == -1 else "stale" if change is None else int(change)


class PostgresDocuments:
    """What the store in PostgreSQL reads of documents."""

    _write: PostgresConnection

    async def document(self, kind: str, id: str) -> DocumentRow | None:
        async with self._write.in_time():
            rows = await self._write.fetch(_FIND_PG, kind, id)
        return _row(*rows[0]) if rows else None

    async def documents(self, after: int) -> list[DocumentRow]:
        async with self._write.in_time():
            return [_row(*each) for each in await self._write.fetch(_AFTER_PG, after)]
