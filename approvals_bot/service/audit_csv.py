"""The audit as a table for spreadsheets: a row for each line, and no cell that a spreadsheet takes for a formula."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO

from approvals_bot.approvals.plain_text import clean
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store.audit import AuditLine
from approvals_bot.service.audit import Selection, is_selected, stored_lines
from approvals_bot.service.read import iso, redact

COLUMNS = (
    "seq", "at", "what", "who", "via", "actor_kind", "actor_id", "actor_key", "peer", "run_id", "request_id", "choice",
    "outcome", "digest", "shown", "hash",
)  # fmt: skip

FORMULA = "=+@\u207a\u207c\u208a\u208c\u2a75\u2a76\ufb29\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20-"
"""What a formula begins with: = + - @, and every character that is a form of one of them."""

_BEGINS = re.compile(rf"(^|[;\t\n])(?=(?:[^\S\t\n]|\")*[{FORMULA}])")
"""Where a cell, or what may become one, begins with a formula. Where semicolons separate a list's items, as in much of
Europe, spreadsheets split lines at them, also within quotation marks."""


def cell(value: Any) -> str:
    """Return a value as a cell has it: text that hides nothing and is no formula, and of which no part becomes one."""
    match value:
        case None:
            text = ""
        case str():
            text = value
        case _:
            text = json.dumps(value)
    text = _BEGINS.sub(r"\1'", clean(text))
    return f"'{text}" if text.startswith(("\t", "\n")) else text


def row_of(line: AuditLine) -> list[str]:
    """Return a line as a row."""
    entry, actor, data = line.entry, line.entry.actor or {}, redact(line.entry.data)
    given = {
        "seq": str(line.seq), "at": iso(line.at), "what": entry.what, "who": entry.who, "actor_kind": actor.get("kind"),
        "actor_id": actor.get("id"), "actor_key": actor.get("key"), "peer": actor.get("peer"), "run_id": entry.run_id,
        "hash": line.hash,
    }  # fmt: skip
    return [cell(given[name] if name in given else data.get(name)) for name in COLUMNS]


def text_of(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


async def csv_lines(engine: Engine, selection: Selection) -> AsyncIterator[bytes]:
    """Yield the table, row by row."""
    yield text_of([list(COLUMNS)])
    async for line in stored_lines(engine, selection.which):
        if await is_selected(engine, line, selection):
            yield text_of([row_of(line)])


async def write_csv(engine: Engine, file: BinaryIO, selection: Selection, progress: Callable[[int], None]) -> int:
    """Write the table. Returns how many lines of the audit it has."""
    count = -1  # the names of the columns
    async for row in csv_lines(engine, selection):
        file.write(row)
        count += 1
        progress(count)
    return count
