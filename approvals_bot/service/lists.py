"""Lists of requests and runs: the boxes of an inbox, and the runs that match a filter.

Each is a page over an index, and goes on after a cursor. What no index has (words of a title, and states that only a
request's own row has) is looked for among the runs of the narrowest list, some thousand at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from approvals_bot.approvals.published import (
    IN_TROUBLE,
    REQUEST,
    STATE,
    Relation,
    Trouble,
    concerns,
    place_for,
    trouble_of,
)
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.attributes import RANGES, Wanted, conditions_of, projected
from approvals_bot.durable.core.events import to_micros
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.encoding import cursor_after
from approvals_bot.durable.store.protocol import Filter, Status
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.service.read import request_of, requests_of

PAGE = 50  # rows
MOST_COUNTED = 1_000  # rows of one list; beyond that, nobody needs the exact number
LOOKED_AT = 1_000  # runs that one page looks through for what no index has: a tenth of a second
LOOKED_AT_IN_TABLE = 20_000  # and a table of all pages
AT_ONCE = 200  # of them, in one read

Box = Literal["waiting", "asked", "decided"]
"""The lists of an inbox: what waits for the person, what they requested, and what they voted on."""

_RELATIONS: dict[Box, Relation] = {"waiting": "waiting_for", "asked": "requested_by", "decided": "voted_by"}

RunState = Literal[
    "waiting",
    "approved",
    "rejected",
    "answered",
    "changes",
    "withdrawn",
    "expired",
    "not_delivered",
    "failed",
    "stalled",
    "completed",
    "cancelled",
]
"""The states that runs are shown in, as filters name them."""

RUN_STATES: tuple[RunState, ...] = get_args(RunState)
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
DELIVERIES = ("sending", "delivered", *TROUBLES)
"""The states of deliveries, as filters name them."""

Order = Literal["newest", "oldest"]
"""Which runs of a list come first."""

Row = tuple[RunRecord, Request | None]
"""A run, and the request that the row is about. None: the row is about the run, or its request can't be read."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a list, and the cursor of the next one. `total`: of the whole list; None: nobody has counted it.

    `is_cut`: the page ends because enough was looked through, not because it is full. `looked`: how many runs were
    looked through for what no index has.
    """

    rows: list[Row]
    cursor: str | None
    total: int | None = None
    is_cut: bool = False
    looked: int = 0

    @property
    def total_words(self) -> str:
        """The total as people read it: "1,000+" for more."""
        return "" if self.total is None else _counted(self.total)


def _counted(total: int) -> str:
    return f"{total:,}" if total <= MOST_COUNTED else f"{MOST_COUNTED:,}+"


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What runs must have to be listed, and their order: the newest first, or the oldest.

    `text` is looked for in titles and ids. `attributes` are the runs' own.
    """

    workflow: str | None = None
    status: Status | None = None
    state: RunState | None = None
    requester: str | None = None
    waiting_for: str | None = None
    delivery: str | None = None
    opened_after: datetime | None = None
    opened_before: datetime | None = None
    text: str = ""
    is_open: bool | None = None
    attributes: dict[str, Wanted] | None = None
    order: Order = "newest"


class UnorderedError(ApprovalsBotError):
    """A list by a range of an attribute has an order in which nothing else can be looked for."""


# ── an inbox ──


async def list_box(
    engine: Engine,
    box: Box,
    address: str,
    *,
    workflow: str | None = None,
    text: str = "",
    cursor: str | None = None,
    limit: int = PAGE,
) -> ListPage:
    """Return a page of a person's requests. Raises ValueError for a cursor that no such page gave.

    Waiting: the soonest deadline first, then the oldest. Requested: open ones first, then the newest. Decided: the
    newest first, open or not.
    """
    relation = _RELATIONS[box]
    base = Filter(workflow=workflow, attributes={projected(relation): address})
    match box:
        case "waiting":
            lists = [replace(base, is_open=True, oldest_first=True)]
        case "asked":
            lists = [replace(base, is_open=True), replace(base, is_open=False)]
        case "decided":
            lists = [base]

    def rows_of(record: RunRecord) -> list[Row]:
        if not _has_text(record, None, text):
            return []
        found = [one for one in requests_of(record) if concerns(one, relation, address)]
        rows: list[Row] = [(record, one) for one in found if _has_text(record, one, text)]
        return rows or ([] if found else [(record, None)])

    number, inner = _phase(cursor, len(lists))
    rows = list[Row]()
    after: str | None = None
    is_cut = False
    for each in range(number, len(lists)):
        page = await _look(engine, [lists[each]], rows_of, inner, limit - len(rows), address)
        rows, inner = [*rows, *page.rows], None
        if page.cursor is not None:
            after, is_cut = f"{each}~{page.cursor}", page.is_cut
            break
        if len(rows) >= limit and each + 1 < len(lists):
            after = f"{each + 1}~"
            break
    if text:
        return ListPage(rows, after, None if after or cursor else len(rows), is_cut)
    if after is None and cursor is None:
        return ListPage(rows, None, len(rows))
    counted = [await engine.count_runs(one, MOST_COUNTED + 1) for one in lists]
    return ListPage(rows, after, max(sum(counted), len(rows)))


async def count_waiting(engine: Engine, address: str) -> str:
    """Return how many requests wait for this person, for a title: "3", "1,000+", or "" for none."""
    which = Filter(attributes={projected("waiting_for"): address}, is_open=True)
    total = await engine.count_runs(which, MOST_COUNTED + 1)
    return _counted(total) if total else ""


def _phase(cursor: str | None, phases: int) -> tuple[int, str | None]:
    """Return which of the lists goes on, and its own cursor. Raises ValueError."""
    if cursor is None:
        return 0, None
    number, mark, inner = cursor.partition("~")
    if not mark or not number.isdecimal() or len(number) > 1 or int(number) >= phases:
        raise ValueError("this cursor isn't one from such a list")
    return int(number), inner or None


# ── all runs ──


async def find_runs(engine: Engine, which: RunFilter, *, cursor: str | None = None, limit: int = PAGE) -> ListPage:
    """Return a page of the runs that match, in the order asked for; of those that wait for a person, as in their inbox.

    Raises ValueError for a cursor that no such page gave, and UnorderedError.
    """
    keep, lists = _keeps(which), _lists(which)
    if keep is None and len(lists) == 1:
        page = await engine.list_runs(replace(lists[0], cursor=cursor, limit=limit))
        return ListPage([_row(record) for record in page.records], page.cursor)

    def rows_of(record: RunRecord) -> list[Row]:
        return [_row(record)] if keep is None or keep(record) else []

    if _has_range(which):
        raise UnorderedError("state, delivery and text can't be looked for in a list by a range")
    return await _look(engine, lists, rows_of, cursor, limit, which.waiting_for)


async def each_run(engine: Engine, which: RunFilter, most: int) -> AsyncIterator[Row]:
    """Yield the runs that match, up to so many; of what no index has, among the first 20,000."""
    cursor, looked = None, 0
    while most > 0 and looked < LOOKED_AT_IN_TABLE:
        page = await find_runs(engine, which, cursor=cursor, limit=min(AT_ONCE, most))
        for row in page.rows:
            yield row
        most, cursor, looked = most - len(page.rows), page.cursor, looked + page.looked
        if cursor is None:
            return


def shown_state(record: RunRecord) -> str:
    """Return the state that a list shows this run in: a `RunState`, or its status where there is no such word."""
    request = request_of(record) if record.kind == REQUEST else None
    if request is None or record.status in ("failed", "reset", "stalled"):
        return record.status
    return "changes" if request.state == "changes_requested" else request.state


def _row(record: RunRecord) -> Row:
    return record, request_of(record) if record.kind == REQUEST else None


def _lists(which: RunFilter) -> list[Filter]:
    """Return the lists that have all the runs that match, each from an index."""
    attributes: dict[str, Wanted] = {}
    if which.waiting_for is not None:
        attributes[projected("waiting_for")] = which.waiting_for
    if which.requester is not None:
        attributes[projected("requested_by")] = which.requester
    if which.delivery in TROUBLES:
        attributes[projected(IN_TROUBLE)] = which.delivery
    is_placed = which.waiting_for is not None and not _has_range(which)  # its list has the order of deadlines
    base = Filter(
        workflow=which.workflow,
        status=which.status,
        is_open=True if which.waiting_for is not None else which.is_open,
        attributes=attributes | (which.attributes or {}),
        oldest_first=is_placed or which.order == "oldest",
        opened_after=None if is_placed else which.opened_after,
        opened_before=None if is_placed else which.opened_before,
    )

    def having(name: str, value: str) -> Filter:
        return replace(base, attributes={**base.attributes, projected(name): value})

    def only(status: Status) -> list[Filter]:
        return [replace(base, status=status)] if base.status in (None, status) else []

    match which.state:
        case None:
            return [base]
        case "waiting":
            return [] if base.is_open is False else [replace(base, is_open=True)]
        case "failed" | "stalled" | "completed":
            return only(which.state)
        case "cancelled":
            return [*only("cancelled"), having(STATE, "cancelled")]
        case "changes":
            return [having(STATE, "changes_requested")]
        case "not_delivered":
            return [having(IN_TROUBLE, "not_delivered")]
        case _:
            return [having(STATE, which.state)]


def _has_range(which: RunFilter) -> bool:
    return any(one.operator in RANGES for each in conditions_of(which.attributes or {}).values() for one in each)


def _keeps(which: RunFilter) -> Callable[[RunRecord], bool] | None:
    """Return what decides whether a listed run matches; None if all of them do."""
    checks = list[Callable[[RunRecord], bool]]()
    if which.state is not None:
        checks.append(lambda record: which.state == shown_state(record) or which.state in _deliveries(record))
    if which.text:
        checks.append(lambda record: _has_text(record, None, which.text))
    if which.delivery is not None:
        checks.append(lambda record: which.delivery in _deliveries(record))
    if which.waiting_for is not None and which.opened_after is not None:
        opened_after = which.opened_after
        checks.append(lambda record: record.created_at >= opened_after)
    if which.waiting_for is not None and which.opened_before is not None:
        opened_before = which.opened_before
        checks.append(lambda record: record.created_at < opened_before)
    return (lambda record: all(check(record) for check in checks)) if checks else None


def _deliveries(record: RunRecord) -> set[str]:
    """Return the states of the run's deliveries, and what is wrong with them."""
    pairs = [(request, each) for request in requests_of(record) for each in request.deliveries]
    sent = {each.state for _, each in pairs if each.state in ("sending", "delivered")}
    return sent | {trouble for pair in pairs if (trouble := trouble_of(*pair)) is not None}


def _has_text(record: RunRecord, request: Request | None, text: str) -> bool:
    """Return whether the text is in the ID or the title: of this request, or without one, of any of the run's."""
    if not text:
        return True
    wanted = text.casefold()
    parts = [part.get("title") for part in record.parts if isinstance(part, dict)]
    titles = parts if request is None else [request.title]
    id = record.id if request is None else request.id
    return any(wanted in str(each).casefold() for each in (id, record.workflow, *titles))


# ── looking through lists ──


async def _look(
    engine: Engine,
    lists: Sequence[Filter],
    rows_of: Callable[[RunRecord], list[Row]],
    cursor: str | None,
    limit: int,
    address: str | None,
) -> ListPage:
    """Return the rows of the runs of these lists, merged, until the page is full or enough was looked through."""
    rows, looked = list[Row](), 0
    size = limit if len(lists) == 1 else AT_ONCE
    while looked < LOOKED_AT:
        records, following = await _merged(engine, lists, cursor, max(size, 1))
        for number, record in enumerate(records):
            rows += rows_of(record)
            if len(rows) < limit:
                continue
            if number + 1 == len(records):
                return ListPage(rows, following, looked=looked + number + 1)
            if (cursor_here := _cursor_at(record, lists[0], address)) is not None:
                return ListPage(rows, cursor_here, looked=looked + number + 1)
        if following is None:
            return ListPage(rows, None)
        looked, cursor, size = looked + len(records), following, AT_ONCE
    return ListPage(rows, cursor, is_cut=True, looked=looked)


async def _merged(
    engine: Engine, lists: Sequence[Filter], cursor: str | None, limit: int
) -> tuple[list[RunRecord], str | None]:
    """Return the next runs of all of these lists in their one order, each once, and the cursor after them."""
    pages = [await engine.list_runs(replace(each, cursor=cursor, limit=limit)) for each in lists]
    if len(pages) == 1:
        return pages[0].records, pages[0].cursor
    found = {record.id: record for page in pages for record in page.records}
    is_newest_first = not lists[0].oldest_first
    ordered = sorted(found.values(), key=lambda record: (record.created_at, record.id), reverse=is_newest_first)
    records = ordered[:limit]
    is_over = len(ordered) <= limit and all(page.cursor is None for page in pages)
    return records, None if is_over or not records else cursor_after(records[-1].id, to_micros(records[-1].created_at))


def _cursor_at(record: RunRecord, which: Filter, address: str | None) -> str | None:
    """Return the cursor after this run, wherever in a page it was. None if its row doesn't say where it is listed."""
    if not which.oldest_first or address is None:
        return cursor_after(record.id, to_micros(record.created_at))
    place = place_for(requests_of(record), address)
    return None if place is None else cursor_after(record.id, place)
