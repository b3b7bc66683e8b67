"""The statements that list and count runs, in SQL that both databases understand.

An index holds the runs of each status in the order of a page, for each thing that a list may ask for. A list of several
statuses takes the first rows of each and merges them. So a page reads at most as many rows of each status as it has
itself, whatever else is in the store and whatever the database knows about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.store.encoding import pair_of, read_cursor, storable
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
    return which.status is None and which.is_open is None and which.ended_since is None


class Dialect(NamedTuple):
    """How a statement names the index to read: with the table, or by the status of a workflow's runs."""

    table: str
    status: str


SQLITE = Dialect("{table} AS listed INDEXED BY {index}", "status = {value}")
POSTGRES = Dialect("{table} AS listed", 'status = {value} COLLATE "C"')


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
        f"SELECT {columns} FROM ({merged} ORDER BY {order} LIMIT {which.limit + 1}) AS found "  # noqa: S608  # our own texts
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

    pairs = ["name = {} AND value = {}".format(*map(place, pair_of(*each))) for each in which.attributes.items()]
    table, at, id = "runs", "created_at", "id"
    status_is, each_status = "status = {value}", _statuses(which, present)
    index = "runs_of_status" if which.workflow is None else "runs_of_workflow"
    if which.workflow is not None:
        where.append(f"workflow = {place(storable(which.workflow))}")
        status_is = dialect.status
    if which.ended_since is not None:
        index, at, each_status = "runs_ended", "ended_at", []
        where.append(f"ended_at >= {place(to_micros(which.ended_since))}")
        if which.status is not None:
            where.append(f"status = {place(which.status)}")
    elif pairs:
        table, index, id = "attributes", index.replace("runs", "attributes"), "run_id"
        where.append(pairs.pop(0))
    # What the index doesn't have is checked for each run.
    where += [f"EXISTS (SELECT 1 FROM attributes WHERE run_id = listed.{id} AND {pair})" for pair in pairs]  # noqa: S608
    if which.cursor is not None:
        when, run_id = read_cursor(which.cursor)
        after = ">" if which.oldest_first else "<"
        where.append(f"({at}, {id}) {after} ({place(when)}, {place(storable(run_id))})")
    begins = f"SELECT {at} AS listed_at, {id} AS listed_id FROM {dialect.table.format(table=table, index=index)}"  # noqa: S608
    ends = f"ORDER BY {_order(which)} LIMIT {most}"
    conditions = [[*where, status_is.format(value=place(status))] for status in each_status] or [where]
    pages = [f"SELECT * FROM ({begins} WHERE {' AND '.join(each)} {ends}) AS each" for each in conditions]  # noqa: S608
    return Statement(" UNION ALL ".join(pages), given)


def _statuses(which: Filter, present: Sequence[str]) -> list[str]:
    """Return the statuses that the runs may have. It is one that no run has if the filter contradicts itself."""
    if needs_statuses(which):
        return list(dict.fromkeys((*STATUSES, *present)))
    asked = STATUSES if which.status is None else (which.status,)
    return [status for status in asked if which.is_open in (None, status not in ENDED)] or [""]


def _order(which: Filter) -> str:
    return "listed_at, listed_id" if which.oldest_first else "listed_at DESC, listed_id DESC"
