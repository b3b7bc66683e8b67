"""The encodings that both databases share: text, JSON, indexed attributes, and cursors.

PostgreSQL's text can't hold NUL or lone surrogates, and SQLite's (from Python) can't hold lone surrogates. People's
input is kept as ASCII JSON, which escapes both. Tokens, keys and names are kept as plain text, so they are escaped
here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, overload

from approvals_bot.durable.core.attributes import Attribute, Findable, Placed
from approvals_bot.durable.core.events import from_micros, to_micros
from approvals_bot.durable.core.serialization import decode, encode, to_json
from approvals_bot.durable.store.protocol import StateRow

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


def readable_attributes(stored: str | None) -> dict[str, Attribute]:
    """Return the attributes of a JSON object, by name: those that can be read."""
    found = (readable_json(stored, dict) or {}).items()
    read = {name: _decimal(value) if type(value) is dict else value for name, value in found}
    return {name: value for name, value in read.items() if isinstance(value, Attribute)}


def _decimal(tagged: dict[str, Any]) -> Any:
    """Return the value under a tag. None if that isn't one of ours."""
    try:
        return decode(tagged)
    except (LookupError, ValueError, TypeError, ArithmeticError):
        return None


def most_unread(stored: str) -> int:
    """Return how many payloads wait at the hook that has most of them."""
    return max((n for n in (readable_json(stored, dict) or {}).values() if type(n) is int), default=0)


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


def state_row(name: str, version: int, state: str) -> StateRow:
    return StateRow(as_given(name), version, readable_json(state, dict) or {})


def log_unreadable(run_id: str, error: Exception) -> None:
    """Log that a run's log can't be read, once for each claim. Nobody can work on that run."""
    logger.error("run %s: its log is damaged and can't be read: %s", run_id, error)


# ── indexed attributes: pairs of a name and a value, which both stores keep in a table ──

MAX_KEY = 400
"""Bytes of a name or a value in an index; an index entry of PostgreSQL's holds 2,700. A longer one is cut and gets a
hash, which finds it as well."""

MAX_VALUE_KEY = 1_100
"""Bytes of an attribute's value in an index. The longest has 256 characters, of four bytes each."""

Pair = tuple[str, str, int]
"""A name, a value, and the run's place in lists by them, in microseconds. 0: that of its begin."""


class Indexed(NamedTuple):
    """The pairs that a run is found by, and a digest that shows whether they have changed."""

    pairs: tuple[Pair, ...]
    digest: str


def name_key(name: str) -> str:
    """Return an attribute's name as the table has it."""
    return _key(name)


def key_of(name: str, value: Attribute) -> str:
    """Return the value of an attribute of this name as the table has it."""
    return _key(str(value)) if name.startswith("$") else value_key(value)


def own_pairs(attributes: Mapping[str, Attribute]) -> list[Pair]:
    """Return the pairs of a run's own attributes: those that it was given and that its body has set."""
    return [(_key(name), value_key(value), 0) for name, value in attributes.items()]


def own_json(attributes: Mapping[str, Attribute]) -> str:
    """Return a run's own attributes as its row has them."""
    return to_json(encode(attributes), "attributes") if attributes else "{}"


BOOLEAN, NUMBER, TEXT = "b", "n", "s"
"""What the keys of a kind of values begin with. A kind ends before its next letter."""


def value_key(value: Attribute) -> str:
    """Return the key of an attribute's value. Keys of one kind sort as the values do, byte by byte.

    Numbers are equal if they are equal as decimals, so 100 is Decimal("100.00"). A float is the shortest decimal that
    reads as it: 0.1 + 0.2 is 0.30000000000000004. Texts sort by their code points (NUL and lone surrogates, which are
    escaped, like a backslash).
    """
    if isinstance(value, str):
        return TEXT + _key(value, MAX_VALUE_KEY)
    if isinstance(value, bool):
        return f"{BOOLEAN}{value:d}"
    return NUMBER + _number_key(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))


_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def _number_key(number: Decimal) -> str:
    """Return the sign, then the power of ten, then the digits, so that text sorts like numbers.

    Negative numbers sort the other way around, so each of their digits is taken from 9, and a longer number comes
    before the shorter one that it begins with.
    """
    if not number:
        return "1"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "infinity and NaN are refused before"
    power = len(digits) + exponent + 5_000  # above 0, also for the smallest float
    key = f"{power:04d}" + "".join(map(str, digits)).rstrip("0")
    return f"0{key.translate(_COMPLEMENT)}~" if sign else f"2{key}"


def indexed(attributes: Mapping[str, Sequence[Findable]]) -> Indexed:
    """Return each name with each of its values. Of several places of one value, the first counts."""
    places = dict[tuple[str, str], int]()
    for name, values in attributes.items():
        for value in values:
            text, at = value if isinstance(value, Placed) else (value, 0)
            key = (_key(name), _key(text))
            places[key] = min(at, places.get(key, at))
    pairs = tuple((*key, at) for key, at in sorted(places.items()))
    together = "\0".join(str(text) for pair in pairs for text in pair)  # no stored text has a NUL
    return Indexed(pairs, hashlib.blake2b(together.encode(), digest_size=16).hexdigest())


def _key(text: str, most: int = MAX_KEY) -> str:
    stored = storable(text)
    if len(stored) * 4 <= most:
        return stored
    raw = stored.encode()
    if len(raw) <= most:
        return stored
    return f"{raw[:300].decode(errors='ignore')}…{hashlib.sha256(raw).hexdigest()}"


# ── cursors: the next page of runs starts after this run, by the time that orders the list, and its id ──


def cursor_after(run_id: str, listed_at: int | str) -> str:
    """Return the cursor of the page after this run. `listed_at` orders the list: a time, or the key of a value."""
    if isinstance(listed_at, str):
        return f"v{urlsafe_b64encode(listed_at.encode()).decode().rstrip('=')}.{run_id}"
    return f"{listed_at}.{run_id}"


def read_cursor(cursor: str, *, by_value: bool = False) -> tuple[int | str, str]:
    """Return what orders the list, and the id of a cursor. Raises ValueError if no page of such a list gave it."""
    at, _, run_id = cursor.partition(".")
    if by_value:
        try:
            key = urlsafe_b64decode(f"{at[1:]}{'=' * (-len(at[1:]) % 4)}").decode()
        except ValueError:
            key = ""
        if not (at.startswith("v") and key and "\x00" not in key and run_id):
            raise ValueError("this cursor isn't one from such a list of runs")
        return key, run_id
    if not (at.isascii() and at.isdigit() and len(at) < 19) or not run_id:
        raise ValueError("this cursor isn't one from a list of runs")
    return int(at), run_id


# ── what the store writes into the logs of children ──


def cancel_request(reason: str, at: int, until: datetime | None) -> dict[str, Any]:
    """Return the data of a child's `cancel_requested`: why, and how long it may tidy up (`at`: not at all)."""
    return {"reason": reason, "until": at if until is None else to_micros(until)}


def parent_ended(run_id: str) -> str:
    return f"its parent, run {run_id}, has ended"


def parent_gave_up(run_id: str) -> str:
    return f"its parent, run {run_id}, no longer waits for it"
