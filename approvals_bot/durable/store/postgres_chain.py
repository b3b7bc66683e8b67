"""The chains in PostgreSQL. Those of the logs are written by a trigger (`migrations/`); the audit's is written here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.audit import (
    AuditEntry,
    AuditFilter,
    AuditLine,
    NewLine,
    OwedLine,
    audit_line,
    audit_row,
    owed_line,
)
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.chain import ChainedEvent, ChainKey, RunHead, new_salt
from approvals_bot.durable.store.encoding import as_given, readable_time, storable
from approvals_bot.durable.store.postgres_connection import PostgresConnection

_CHAINED = """
    SELECT seq, type, at, key, data, coalesce(salt, ''), coalesce(hash, '')
    FROM events LEFT JOIN chain USING (run_id, seq) WHERE run_id = $1 ORDER BY seq"""


async def chained(connection: PostgresConnection, run_id: str) -> list[ChainedEvent]:
    return [ChainedEvent(*row) for row in await connection.fetch(_CHAINED, storable(run_id))]


_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_LINES = "unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])"
_ADD = f"""
    WITH added AS (
      INSERT INTO audit (seq, at, what, who, run_id, data, hash) SELECT * FROM {_LINES}
    )
    UPDATE runs SET sealed = known.seq FROM unnest($8::text[], $9::bigint[]) AS known (id, seq)
    WHERE runs.id = known.id AND runs.sealed >= 0"""  # noqa: S608  # our own text
_SETTLE = f"""
    WITH gone AS (DELETE FROM owed_lines WHERE id = $8 RETURNING id)
    INSERT INTO audit (seq, at, what, who, run_id, data, hash)
    SELECT given.* FROM {_LINES} AS given, gone
    RETURNING seq"""  # noqa: S608  # our own text
_CUT = f"""
    WITH added AS (
      INSERT INTO audit (seq, at, what, who, run_id, data, hash)
      SELECT given.* FROM {_LINES} AS given WHERE EXISTS (SELECT 1 FROM audit WHERE seq = $8) RETURNING seq
    ),
    gone AS (DELETE FROM audit WHERE seq <= $8 AND EXISTS (SELECT 1 FROM added))
    SELECT seq FROM added"""  # noqa: S608  # our own text
_OWED = "SELECT id, run_id, seq, at, about FROM owed_lines ORDER BY at LIMIT $1"


async def add_to_audit(
    connection: PostgresConnection, entry: AuditEntry, when: datetime, key: ChainKey | None
) -> AuditLine:
    """Add a line to the end of the chain. If another replica adds one first, try again after it."""
    while True:
        added = await _add(connection, await _end(connection), [entry], when, key, ())
        if added is not None:
            return added[0]


async def _end(connection: PostgresConnection) -> tuple[int, str]:
    rows = await connection.fetch(_LAST)
    return (rows[0][0], rows[0][1]) if rows else (0, "")


async def _add(
    connection: PostgresConnection,
    end: tuple[int, str],
    entries: Sequence[AuditEntry],
    when: datetime,
    key: ChainKey | None,
    sealed: Sequence[tuple[str, int]],
) -> list[AuditLine] | None:
    """Add lines after this end of the chain, and note what they vouch for. None if another replica was first."""
    lines, columns = _rows(end, entries, when, key)
    noted = [[run_id for run_id, _ in sealed], [seq for _, seq in sealed]]
    try:
        await connection.fetch(_ADD, *columns, *noted)
    except asyncpg.UniqueViolationError:
        return None
    return lines


def _rows(
    end: tuple[int, str], entries: Sequence[AuditEntry], when: datetime, key: ChainKey | None
) -> tuple[list[AuditLine], list[list[Any]]]:
    """Return the lines that come after this end of the chain, and the columns of their rows."""
    (last, before), at = end, to_micros(when)
    lines, texts = list[AuditLine](), list[str]()
    for seq, entry in enumerate(entries, last + 1):
        data, line = audit_row(before, seq, at, entry, key, new_salt())
        lines.append(line)
        texts.append(data)
        before = line.hash
    named = [[storable(getattr(entry, name)) for entry in entries] for name in ("what", "who", "run_id")]
    places: list[list[Any]] = [[line.seq for line in lines], [at] * len(lines)]
    return lines, [*places, *named, texts, [line.hash for line in lines]]


async def settle(
    connection: PostgresConnection, owed: str, entries: Sequence[AuditEntry], when: datetime, key: ChainKey | None
) -> bool:
    # Of two replicas that settle the same line, the second waits for the first one's row, and then finds it gone.
    while True:
        _, columns = _rows(await _end(connection), entries, when, key)
        try:
            return bool(await connection.fetch(_SETTLE, *columns, owed))
        except asyncpg.UniqueViolationError:
            continue  # another replica has added a line in between


async def cut_audit(
    connection: PostgresConnection, seq: int, entry: AuditEntry, when: datetime, key: ChainKey | None
) -> AuditLine | None:
    while True:
        lines, columns = _rows(await _end(connection), [entry], when, key)
        try:
            return lines[0] if await connection.fetch(_CUT, *columns, seq) else None
        except asyncpg.UniqueViolationError:
            continue  # another replica has added a line in between


async def fetch_with_line(
    connection: PostgresConnection, sql: str, given: Sequence[Any], line: NewLine | None
) -> Sequence[Any]:
    """Execute a statement that also adds this line. Its columns are $1 to $7 (None: empty), `given` is $8 and more."""
    while True:
        columns: Sequence[Any] = [[]] * 7
        if line is not None:
            _, columns = _rows(await _end(connection), [line.entry], line.at, line.key)
        try:
            return await connection.fetch(sql, *columns, *given)
        except asyncpg.UniqueViolationError:
            continue  # another replica has added a line in between


async def owed_lines(connection: PostgresConnection, bearers: Bearers, most: int) -> list[OwedLine]:
    rows = await connection.fetch(_OWED, most)
    return [
        owed_line(id, as_given(run), seq, readable_time(at), bearers.signed(about)) for id, run, seq, at, about in rows
    ]


async def audit_lines(connection: PostgresConnection, which: AuditFilter) -> list[AuditLine]:
    where, given = which.conditions(lambda number: f"${number}")
    order = "DESC" if which.newest_first else ""
    sql = f"SELECT seq, at, what, who, run_id, data, hash FROM audit {where} ORDER BY seq {order} LIMIT {which.limit}"  # noqa: S608  # our own text
    values = [storable(each) if isinstance(each, str) else each for each in given]
    return [_line(row) for row in await connection.fetch(sql, *values)]


def _line(row: Any) -> AuditLine:
    seq, at, what, who, run_id, data, digest = row
    return audit_line(seq, readable_time(at), (as_given(what), as_given(who), as_given(run_id)), data, digest)


_ENDED = """
    SELECT runs.id, runs.seq, coalesce(hash, ''), status FROM runs
      LEFT JOIN chain ON run_id = runs.id AND chain.seq = runs.seq
    WHERE ended_at IS NOT NULL AND sealed >= 0 ORDER BY ended_at LIMIT $1"""
_GROWN = """
    SELECT runs.id, runs.seq, coalesce(hash, '') FROM runs
      LEFT JOIN chain ON run_id = runs.id AND chain.seq = runs.seq
    WHERE ended_at IS NULL AND runs.seq > sealed AND runs.id COLLATE "C" > $1 ORDER BY runs.id COLLATE "C" LIMIT $2"""


async def seal_ended(connection: PostgresConnection, when: datetime, key: ChainKey | None, most: int) -> int:
    # The end of the chain is read first. If another replica takes the same runs, it has made the chain longer by then,
    # or it does so before this one can write.
    end = await _end(connection)
    rows = await connection.fetch(_ENDED, most)
    entries = [
        AuditEntry("run_ended", None, run_id, {"seq": seq, "head": head, "status": status})
        for run_id, seq, head, status in rows
    ]
    if entries and await _add(connection, end, entries, when, key, [(run_id, -1) for run_id, *_ in rows]) is None:
        return 0
    return len(entries)


async def seal_open(
    connection: PostgresConnection, when: datetime, key: ChainKey | None, most: int, after: str
) -> list[RunHead]:
    while True:
        end = await _end(connection)
        heads = [RunHead(*row) for row in await connection.fetch(_GROWN, after, most)]
        entry = AuditEntry("runs_sealed", data={"heads": [list(head) for head in heads]})
        noted = [(head.run_id, head.seq) for head in heads]
        if not heads or await _add(connection, end, [entry], when, key, noted) is not None:
            return heads
