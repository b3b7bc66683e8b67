"""The encodings that both databases share: text, JSON, indexed attributes, cursors, and the audit's chain.

PostgreSQL's text can't hold NUL or lone surrogates, and SQLite's (from Python) can't hold lone surrogates. People's
input is kept as ASCII JSON, which escapes both. Tokens, keys and names are kept as plain text, so they are escaped
here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar, overload

from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.store.protocol import AuditEntry, Filter, RunRecord

logger = logging.getLogger("approvals_bot.durable.store")

Text = TypeVar("Text", str, str | None)
Json = TypeVar("Json")

_UNHELD = re.compile(r"[\x00\\\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


def storable(text: Text) -> Text:
    """Return the text with NUL, lone surrogates and backslashes as `\\u….`. Equal results mean equal texts."""
    if text is None or (text.isascii() and "\\" not in text and "\x00" not in text):
        return text
    return _UNHELD.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_given(stored: Text) -> Text:
    """Return the text that `storable` took."""
    if stored is None or "\\" not in stored:
        return stored
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), stored)


# A row is read as far as possible: one damaged row mustn't hide the list that it is in.

_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def readable_json(stored: str | None, kind: type[Json]) -> Json | None:
    """Return the JSON value. None if there is none, or if it can't be read or has another type."""
    if stored is None:
        return None
    try:
        found = json.loads(stored)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, kind) else None


def readable_texts(stored: str | None) -> dict[str, str]:
    """Return the strings of a JSON object, by name."""
    return {name: text for name, text in (readable_json(stored, dict) or {}).items() if isinstance(text, str)}


@overload
def readable_time(micros: int) -> datetime: ...
@overload
def readable_time(micros: int | None) -> datetime | None: ...
def readable_time(micros: int | None) -> datetime | None:
    """Return the time, or 1970 for a number that isn't a valid time."""
    try:
        return None if micros is None else from_micros(micros)
    except (OverflowError, ValueError):
        return _UNKNOWN_TIME


def log_unreadable(run_id: str, error: Exception) -> None:
    """Log that a run's log can't be read, once for each claim. Nobody can work on that run."""
    logger.error("run %s: its log is damaged and can't be read: %s", run_id, error)


# ── indexed attributes: pairs of a name and a value, which both stores keep in a table ──

MAX_KEY = 400
"""Bytes of a name or a value in an index; an index entry of PostgreSQL's holds 2,700. A longer one is cut and gets a
hash, which finds it as well."""

Pair = tuple[str, str]


class Indexed(NamedTuple):
    """The pairs that a run is found by, and a digest that shows whether they have changed."""

    pairs: tuple[Pair, ...]
    digest: str


def pair_of(name: str, value: str) -> Pair:
    """Return the pair as the table has it."""
    return _key(name), _key(value)


def given_pairs(attributes: Mapping[str, str]) -> list[Pair]:
    """Return the pairs of the attributes that a run was given at its start."""
    return [pair_of(name, value) for name, value in attributes.items()]


def indexed(attributes: Mapping[str, Sequence[str]]) -> Indexed:
    """Return each name with each of its values."""
    pairs = tuple(sorted({pair_of(name, value) for name, values in attributes.items() for value in values}))
    together = "\0".join(text for pair in pairs for text in pair)  # no stored text has a NUL
    return Indexed(pairs, hashlib.blake2b(together.encode(), digest_size=16).hexdigest())


def _key(text: str) -> str:
    stored = storable(text)
    if len(stored) * 4 <= MAX_KEY:
        return stored
    raw = stored.encode()
    if len(raw) <= MAX_KEY:
        return stored
    return f"{raw[:300].decode(errors='ignore')}…{hashlib.sha256(raw).hexdigest()}"


# ── cursors: the next page of runs starts after this run, by the time that orders the list, and its id ──


def cursor_after(row: RunRecord, which: Filter) -> str:
    at = row.created_at if which.ended_since is None or row.ended_at is None else row.ended_at
    return f"{to_micros(at)}.{row.id}"


def read_cursor(cursor: str) -> tuple[int, str]:
    """Return the microseconds and the id of a cursor. Raises ValueError if no page gave it."""
    at, _, run_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 19) or not run_id:
        raise ValueError("this cursor isn't one from a list of runs")
    return int(at), run_id


# ── the audit's chain: each line's hash covers the line and the hash of the line before ──


def audit_entry(what: str, who: str | None, run_id: str | None, data: str) -> AuditEntry:
    """Return the entry of a row."""
    return AuditEntry(as_given(what), as_given(who), as_given(run_id), json.loads(data))


def link_entry(before: str, seq: int, at: int, entry: AuditEntry) -> tuple[str, str]:
    """Return the entry's data as its line has them, and the line's hash.

    `before` is the hash of the line before, or empty for the first; `at` is in microseconds.
    """
    data = json.dumps(entry.data, sort_keys=True)
    covered = json.dumps([before, seq, at, entry.what, entry.who, entry.run_id, data])
    return data, hashlib.sha256(covered.encode()).hexdigest()
