"""The statements that list and count runs, in SQL that both databases understand.

An index holds the runs of each status in the order of a page, for each thing that a list may ask for. A list of several
statuses takes the first rows of each and merges them. So a page reads at most as many rows of each status as it has
itself, whatever else is in the store and whatever the database knows about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

from approvals_bot.durable.core.attributes import RANGES, Comparison, conditions_of
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.encoding import key_of, name_key, read_cursor, storable
from approvals_bot.durable.store.protocol import ENDED, Filter, Status

STATUSES: tuple[str, ...] = get_args(Status)

STATUSES_PRESENT = """
    WITH RECURSIVE present (status) AS (
      SELECT min(status) FROM runs
      UNION ALL
      SELECT (SELECT min(status) FROM runs WHERE status > present.status) FROM present WHERE status IS NOT NULL)
    SELECT status FROM present WHERE status IS NOT NULL"""
"""Selects the statuses in the store, and reads one entry of an index for each. A newer release, or damage, may have
written others than we know."""


def needs_statuses(which: Filter) -> bool:
    """Return whether runs of any status match, so that the statement needs those present in the store."""
    return which.status is None and which.is_open is None and which.ended_since is None and which.keys is None


class Dialect(NamedTuple):
    """How a statement names the index to read: with the table, or by the status of a workflow's runs.

    `value` is how it compares the values of attributes, byte by byte.
    """

    table: str
    status: str
    value: str


SQLITE = Dialect("{table} AS listed INDEXED BY {index}", "status = {value}", "value")
POSTGRES = Dialect("{table} AS listed", 'status = {value} COLLATE "C"', 'value COLLATE "C"')


class Statement(NamedTuple):
    """A statement and its arguments. The first is `$1` in it."""

    sql: str
    given: list[Any]


def page_of(which: Filter, present: Sequence[str], columns: str, dialect: Dialect) -> Statement:
    """Return the statement that selects these columns of a page's runs, and of one run more.

    `present` are the statuses in the store, if it `needs_statuses`. Raises ValueError for a cursor that no page gave.
    """
    merged, given = _merged(which, present, which.limit + 1, dialect)
    order = _order(which)
    return Statement(
        f"SELECT {columns}, listed_at FROM ({merged} ORDER BY {order} LIMIT {which.limit + 1}) AS found "  # noqa: S608  # our own texts
        f"CROSS JOIN runs WHERE runs.id = listed_id ORDER BY {order}",
        given,
    )


def count_of(which: Filter, present: Sequence[str], most: int, dialect: Dialect) -> Statement:
    """Return the statement that counts the runs that match, up to `most`. `present` is as for `page_of`."""
    merged, given = _merged(replace(which, cursor=None), present, most, dialect)
    return Statement(f"SELECT count(*) FROM ({merged} LIMIT {most}) AS found", given)  # noqa: S608


def _merged(which: Filter, present: Sequence[str], most: int, dialect: Dialect) -> Statement:
    """Return the statement that selects the first `most` runs of each status, by time and id."""
    given = list[Any]()
    where = list[str]()

    def place(value: Any) -> str:
        given.append(value)
        return f"${len(given)}"

    conditions = conditions_of(which.attributes)
    leading = _leading(which, conditions)
    table, at, id = "runs", "created_at", "id"
    status_is, each_status = "status = {value}", _statuses(which, present)
    bounds: Bounds | None = None
    choices = [""]
    index = "runs_of_status" if which.workflow is None else "runs_of_workflow"
    if which.workflow is not None:
        where.append(f"workflow = {place(storable(which.workflow))}")
        status_is = dialect.status
    if which.ended_since is not None:
        index, at, each_status = "runs_ended", "ended_at", []
        where.append(f"ended_at >= {place(to_micros(which.ended_since))}")
        if which.status is not None:
            where.append(f"status = {place(which.status)}")
    elif which.keys is not None:
        index, at, each_status = "runs_idempotent", "idempotency_key", []
        ranges = [(place(storable(first)), place(storable(last))) for first, last in which.keys]
        choices = [f"{at} >= {first} AND {at} <= {last}" for first, last in ranges] or ["1 = 0"]
        if which.status is not None or which.is_open is not None:
            where.append(f"status IN ({', '.join(map(place, _statuses(which, present)))})")
    elif leading is not None:
        table, index, id = "attributes", index.replace("runs", "attributes"), "run_id"
        where.append(f"name = {place(name_key(leading))}")
        led = conditions.pop(leading)
        if _is_ranged(led):
            index = "attributes_by_value" if which.workflow is None else "attributes_of_workflow_by_value"
            at, bounds = dialect.value, _bounds(leading, led)
            where += [
                "substr(name, 1, 1) <> '$'",
                *_compared(leading, [c for c in led if c.operator not in RANGES], place, at),
            ]
        else:
            choices = [f"value = {place(key)}" for key in _choices(leading, led)] or ["1 = 0"]
    # What the index doesn't have is checked for each run.
    for name, checked in conditions.items():
        compared = [f"name = {place(name_key(name))}", *_compared(name, checked, place, dialect.value)]
        where.append(f"EXISTS (SELECT 1 FROM attributes WHERE run_id = listed.{id} AND {' AND '.join(compared)})")  # noqa: S608
    for sign, moment in ((">=", which.opened_after), ("<", which.opened_before)):
        if moment is not None:
            where.append(f"created_at {sign} {place(to_micros(moment))}")
    is_by_text = bounds is not None or which.keys is not None
    cursor = None if which.cursor is None else read_cursor(which.cursor, by_value=is_by_text)
    if bounds is not None:
        bounds, cursor = bounds.after(cursor, oldest_first=which.oldest_first)
        where += [f"{at} {sign} {place(key)}" for sign, key in bounds if sign]
    if cursor is not None:
        last, run_id = cursor
        after = ">" if which.oldest_first else "<"
        where.append(f"({at}, {id}) {after} ({place(last)}, {place(storable(run_id))})")
    begins = f"SELECT {at} AS listed_at, {id} AS listed_id FROM {dialect.table.format(table=table, index=index)}"  # noqa: S608
    ends = f"ORDER BY {_order(which)} LIMIT {most}"
    statuses = [[status_is.format(value=place(status))] for status in each_status] or [[]]
    each_page = [[*where, *status, *([choice] if choice else [])] for choice in choices for status in statuses]
    pages = [f"SELECT * FROM ({begins} WHERE {' AND '.join(each)} {ends}) AS each" for each in each_page]  # noqa: S608
    return Statement(" UNION ALL ".join(pages), given)


def _leading(which: Filter, conditions: Mapping[str, list[Comparison]]) -> str | None:
    """Return the attribute whose index is read: the first one with a range, else the first one. None if there is none.

    All the others are checked for each run that it has.
    """
    if which.ended_since is not None or which.keys is not None:
        return None
    return next((name for name in conditions if _is_ranged(conditions[name])), next(iter(conditions), None))


def _is_ranged(conditions: Sequence[Comparison]) -> bool:
    return any(condition.operator in RANGES for condition in conditions)


_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _compared(name: str, conditions: Sequence[Comparison], place: Callable[[Any], str], value: str) -> Iterable[str]:
    """Yield the conditions on an attribute's value in SQL."""
    for condition in conditions:
        if condition.operator not in RANGES:
            keys = [place(key_of(name, one)) for one in condition.values]
            yield f"value IN ({', '.join(keys)})" if keys else "1 = 0"
    if _is_ranged(conditions):
        yield from (f"{value} {sign} {place(key)}" for sign, key in _bounds(name, conditions))


Cursor = tuple[int | str, str]


class Bounds(NamedTuple):
    """A range of keys: a sign and a key each. A bound without a sign is none."""

    low: tuple[str, str]
    high: tuple[str, str]

    def after(self, cursor: Cursor | None, *, oldest_first: bool) -> tuple[Bounds, Cursor | None]:
        """Return the bounds and the cursor with which a page begins, of which only one is on that side.

        With both, a database would look for the page from the bound on, not from the cursor on.
        """
        if cursor is None:
            return self, None
        sign, bound = self.low if oldest_first else self.high
        last = str(cursor[0])
        is_within = (last == bound and sign.endswith("=")) or (last > bound if oldest_first else last < bound)
        if not is_within:  # no page gave this cursor
            return self, None
        nothing = ("", "")
        return (Bounds(nothing, self.high) if oldest_first else Bounds(self.low, nothing)), cursor


def _bounds(name: str, conditions: Sequence[Comparison]) -> Bounds:
    """Return the range in which all of these conditions hold. It ends where its kind of values does."""
    lows, highs = list[tuple[str, str]](), list[tuple[str, str]]()
    for operator, values in conditions:
        if operator not in RANGES:
            continue
        key = key_of(name, values[0])
        first, end = (">=", key[0]), ("<", chr(ord(key[0]) + 1))
        lows.append((_SIGNS[operator], key) if operator in ("gt", "gte") else first)
        highs.append((_SIGNS[operator], key) if operator in ("lt", "lte") else end)
    # Of two equal bounds, the one that excludes the value is the tighter one.
    low = max(lows, key=lambda bound: (bound[1], bound[0] == ">"))
    high = min(highs, key=lambda bound: (bound[1], bound[0] == "<="))
    return Bounds(low, high)


def _choices(name: str, conditions: Sequence[Comparison]) -> list[str]:
    """Return the keys that a value may have, each once."""
    each = [[key_of(name, value) for value in condition.values] for condition in conditions]
    return [key for key in dict.fromkeys(each[0]) if all(key in keys for keys in each[1:])] if each else []


def _statuses(which: Filter, present: Sequence[str]) -> list[str]:
    """Return the statuses that the runs may have. It is one that no run has if the filter contradicts itself."""
    if needs_statuses(which):
        return list(dict.fromkeys((*STATUSES, *present)))
    asked = STATUSES if which.status is None else (which.status,)
    return [status for status in asked if which.is_open in (None, status not in ENDED)] or [""]


def _order(which: Filter) -> str:
    return "listed_at, listed_id" if which.oldest_first else "listed_at DESC, listed_id DESC"
