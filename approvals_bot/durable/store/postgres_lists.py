"""Lists of runs, and the audit, from PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.store.encoding import cursor_after, link, read_cursor
from approvals_bot.durable.store.postgres_connection import PostgresConnection
from approvals_bot.durable.store.postgres_encoding import labels, run_row
from approvals_bot.durable.store.protocol import AuditEntry, AuditLine, Filter, RunRow
from approvals_bot.durable.store.texts import as_given, storable

# ── runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def runs(line: PostgresConnection, which: Filter) -> tuple[list[RunRow], str | None]:
    """See the protocol. Each condition has an index of its own."""
    where, given = ["true"], list[Any]()

    def add(condition: str, *values: Any) -> None:
        places = range(len(given) + 1, len(given) + len(values) + 1)
        where.append(condition.format(*(f"${place}" for place in places)))
        given.extend(values)

    if which.workflow is not None:
        add("workflow = {}", storable(which.workflow))
    if which.status == "stalled":
        where.append("status = 'stalled'")  # in the words of their index
    elif which.status is not None:
        add("status = {}", which.status)
    if which.waiting_for is not None:
        add("ended_at IS NULL AND waiting_for <> '{{}}' AND waiting_for @> {}", [storable(which.waiting_for)])
    if which.attributes:
        add("labels <> '{{}}' AND labels @> {}", labels(which.attributes))
    if which.cursor is not None:
        at, run_id = read_cursor(which.cursor)
        add("(created_at, id) < ({}, {})", at, storable(run_id))
    sql = (
        f"SELECT run_json(runs) FROM runs WHERE {' AND '.join(where)} "  # noqa: S608  # our own texts
        f"ORDER BY created_at DESC, id DESC LIMIT {which.limit + 1}"
    )
    found = [run_row(json.loads(row[0])) for row in await line.fetch(sql, *given)]
    page = found[: which.limit]
    return page, cursor_after(page[-1]) if len(found) > which.limit else None


# ── the audit ─────────────────────────────────────────────────────────────────────────────────────────────────────

_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_ADD = """
    INSERT INTO audit (seq, at, what, who, run_id, data, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT DO NOTHING RETURNING seq"""
_LINES = "SELECT seq, at, what, who, run_id, data, hash FROM audit ORDER BY seq"


async def add_to_audit(line: PostgresConnection, entry: AuditEntry, at: int) -> AuditLine:
    """Add a line to the chain. If another replica has taken that place meanwhile, the next one."""
    while True:
        last = await line.fetch(_LAST)
        seq, before = (last[0][0] + 1, last[0][1]) if last else (1, "")
        data, digest = link(before, seq, at, entry)
        texts = [None if text is None else storable(text) for text in (entry.what, entry.who, entry.run_id)]
        if await line.fetch(_ADD, seq, at, *texts, data, digest):
            return AuditLine(seq, from_micros(at), entry.what, entry.who, entry.run_id, entry.data, digest)


async def audit_lines(line: PostgresConnection) -> list[AuditLine]:
    return [
        AuditLine(seq, from_micros(at), as_given(what), _text(who), _text(run), json.loads(data), digest)
        for seq, at, what, who, run, data, digest in await line.fetch(_LINES)
    ]


def _text(stored: str | None) -> str | None:
    return None if stored is None else as_given(stored)
