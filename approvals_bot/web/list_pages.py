"""The pages with lists: a person's inbox, and for viewers all requests and runs, also as a table for spreadsheets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response, StreamingResponse

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.request import Request, state_mark
from approvals_bot.durable.engine import RunRecord
from approvals_bot.service.audit_csv import cell, text_of
from approvals_bot.service.grants import ListedGrant, allowances_given
from approvals_bot.service.lists import (
    DELIVERIES,
    LOOKED_AT,
    LOOKED_AT_IN_TABLE,
    PAGE,
    RUN_STATES,
    Box,
    ListPage,
    RunFilter,
    count_waiting,
    each_run,
    find_runs,
    list_box,
    shown_state,
)
from approvals_bot.service.read import iso
from approvals_bot.web.admission import DEVELOPER
from approvals_bot.web.batch import InboxVotes, can_be_batched
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.pages import PeoplePages, row_of
from approvals_bot.web.responses import Problem
from approvals_bot.web.run_filters import FILTERS, ORDERS, STATUSES, run_filter
from approvals_bot.web.sessions import actor_at
from approvals_bot.web.validation import bad_query

MOST_IN_TABLE = 10_000  # rows of /runs.csv
AT_ONCE = 50  # of them, in one piece of the answer
COLUMNS = ("id", "workflow", "title", "state", "requester", "opened_at", "ended_at", "outcome", "by")
BOXES: tuple[Box, ...] = get_args(Box)
NOT_A_CURSOR = "not a cursor that a page gave"


class ListPages:
    """`/inbox`, `/runs` and `/runs.csv`."""

    def __init__(self, desk: WebDesk, batches: InboxVotes, pages: PeoplePages) -> None:
        self._engine, self._people, self._workflows = desk.engine, desk.people, desk.workflows
        self._sessions, self._links, self._forms, self._login = desk.sessions, desk.links, desk.forms, desk.login
        self._now, self._root, self._open = desk.now, desk.root, desk.open_pages
        self._batches, self._pages = batches, pages

    # ── the inbox ──

    async def inbox(self, request: HttpRequest) -> Response:
        """Show what waits for one person; after signing in, also what they requested and what they voted on."""
        reader = await self._sessions.who(request)
        if not self._open and reader is None:
            return await self._login.instead_of(request)
        asked = request.query_params
        address = reader or self._people.identity(asked.get("person", ""))
        box = asked.get("box") or "waiting"
        if box not in BOXES:
            raise Problem(422, "No such box", f"An inbox has these: {', '.join(BOXES)}.")
        given = {name: text for name in ("workflow", "q") if (text := asked.get(name, "").strip())}
        listed, waiting = ListPage([], None, 0), ""
        if address:
            listed = await self._box(box, address, given, asked.get("cursor"))
            waiting = await count_waiting(self._engine, address)
        rows = [await self._box_row(record, found, reader, box) for record, found in listed.rows]
        shown = self._preview(rows, asked.get("show", ""), reader)
        person = {"person": address} if address and not reader else {}
        return await self._pages.page(
            request,
            "inbox.html",
            "/inbox",
            box=box,
            boxes=[(each, urlencode({**({"box": each} if each != "waiting" else {}), **person})) for each in BOXES],
            rows=rows,
            shown=shown,
            here_again=urlencode({"box": box, **given, **person, **_cursor(asked), "show": ""}),
            listed=listed,
            older=urlencode({"box": box, **given, **person, "cursor": listed.cursor}) if listed.cursor else "",
            given=given,
            workflows=sorted({row["record"].workflow for row in rows} | set(filter(None, [given.get("workflow")]))),
            waiting=waiting,
            address=address,
            person="" if reader else address,
            longest=max((row["age"] for row in rows), default=None),
            may_leave=reader is not None,
            live=f"/live?{urlencode({'inbox': '' if reader else address})}" if address else "",
            form_token=self._forms.make(request, "logout") if reader is not None else "",
            batch_token=self._forms.make(request, "batch") if any(row.get("can_be_batched") for row in rows) else "",
            keys=self._has_keys(reader),
            looked_at=LOOKED_AT,
            allowances=await self._allowances(reader) if reader and box != "asked" else (),
            talk_token=self._forms.make(request, "talk") if reader else "",
            batch=await self._batches.rows_of(asked.get("batch", ""), reader) if reader else (),
        )

    async def _allowances(self, reader: str) -> Sequence[ListedGrant]:
        """Return what this reader has approved of an agent's next calls, where the file of tool calls permits that."""
        listed = self._workflows.find(TOOL_CALL)
        if listed is None or listed.definition is None or listed.definition.allowance is None:
            return ()
        return await allowances_given(self._engine, reader)

    async def next(self, request: HttpRequest) -> Response:
        """Lead to the person's own page of the request that is due first; to the inbox if there is none."""
        reader = await self._sessions.who(request)
        if reader is None:
            return await self._login.instead_of(request)
        listed = await list_box(self._engine, "waiting", reader, limit=1)
        found = listed.rows[0][1] if listed.rows else None
        path = await self._links.inbox_path(found, reader) if found is not None else ""
        return RedirectResponse(f"{self._root}{path or '/inbox'}", 303)

    def _preview(self, rows: list[dict[str, Any]], wanted: str, reader: str | None) -> dict[str, Any] | None:
        """Return the row whose card a wide screen shows beside the list: the chosen one, or the first."""
        cards = [row for row in rows if row["card"] is not None]
        row = next((row for row in cards if row["card"].run_id == wanted), cards[0] if cards else None)
        if row is None or row["view"] is None:
            return None
        return row | {"card": card_of(row["view"], reader, self._now())}

    def _has_keys(self, reader: str | None) -> bool:
        return reader is None or self._people.own.of(reader).has_keys

    async def _box(self, box: Box, address: str, given: dict[str, str], cursor: str | None) -> ListPage:
        try:
            return await list_box(
                self._engine,
                box,
                address,
                workflow=given.get("workflow"),
                text=given.get("q", ""),
                cursor=cursor,
                limit=PAGE,
            )
        except ValueError:
            raise Problem(404) from None

    async def _box_row(self, record: RunRecord, view: Request | None, reader: str | None, box: str) -> dict[str, Any]:
        row = row_of(record, view, self._now())
        if reader is None or view is None or box != "waiting":
            return row
        own_page = await self._links.inbox_path(view, reader)
        can = can_be_batched(view, card_of(view, reader, self._now()))
        shown = {"can_be_batched": can, "chosen": f"{view.id}:{view.digest}:{state_mark(view.version, view.votes)}"}
        return row | shown | ({"path": own_page} if own_page else {})

    # ── all requests and runs ──

    async def runs(self, request: HttpRequest) -> Response:
        """The requests and runs that match the filters, newest first unless asked otherwise."""
        if (refusal := await self._pages.refuse_all_but_viewers(request)) is not None:
            return refusal
        given, listed, faults = dict[str, str](), ListPage([], None), list[tuple[str, str]]()
        try:
            given = _given(request)
            which = self._filter(given)
            listed = await self._found(which, request.query_params.get("cursor"))
        except Problem as problem:
            if problem.status != 422:
                raise
            faults = [(str(error["loc"][-1]), str(error["msg"])) for error in problem.errors]
        return await self._pages.page(
            request,
            "runs.html",
            "/runs",
            status=422 if faults else 200,
            rows=[row_of(record, found, self._now()) for record, found in listed.rows],
            is_cut=listed.is_cut,
            faults=faults,
            given=given,
            older=urlencode(given | {"cursor": listed.cursor}) if listed.cursor else "",
            orders=ORDERS,
            other_order=_other_order(given),
            looked_at=LOOKED_AT,
            looked_at_in_table=LOOKED_AT_IN_TABLE,
            exported=urlencode(given),
            workflows=sorted(self._workflows.names()),
            states=RUN_STATES,
            statuses=STATUSES,
            deliveries=DELIVERIES,
            keys=self._has_keys(await self._sessions.who(request)),
        )

    async def table(self, request: HttpRequest) -> Response:
        """Return what matches the filters as CSV, up to 10,000 rows."""
        if (refusal := await self._pages.refuse_all_but_viewers(request)) is not None:
            return refusal
        which, given = self._filter(_given(request)), _given(request)
        session = await self._sessions.find(request)
        who, actor = (session.person, actor_at(request, session)) if session is not None else (None, DEVELOPER)
        await self._engine.audit("runs_exported", who=who, actor=actor.as_json(), data={"selected": given})
        headers = {"content-disposition": 'attachment; filename="runs.csv"'}
        return StreamingResponse(self._rows_of(which), media_type="text/csv; charset=utf-8", headers=headers)

    async def _rows_of(self, which: RunFilter) -> AsyncIterator[bytes]:
        yield text_of([list(COLUMNS)])
        rows = list[list[str]]()
        async for record, view in each_run(self._engine, which, MOST_IN_TABLE):
            rows.append([cell(each) for each in _columns(record, view)])
            if len(rows) == AT_ONCE:
                yield text_of(rows)
                rows = []
        yield text_of(rows)

    def _filter(self, given: dict[str, str]) -> RunFilter:
        return run_filter(given, self._people, [*self._workflows.names()])

    async def _found(self, which: RunFilter, cursor: str | None) -> ListPage:
        try:
            return await find_runs(self._engine, which, cursor=cursor)
        except ValueError:
            raise Problem(404) from None


def _other_order(given: Mapping[str, str]) -> str:
    """Return the query of the same list in the other order; "" for one whose order is that of deadlines."""
    if "waiting_for" in given:
        return ""
    rest = {name: text for name, text in given.items() if name != "order"}
    return urlencode(rest | ({} if given.get("order") == "oldest" else {"order": "oldest"}))


def _cursor(asked: Mapping[str, str]) -> dict[str, str]:
    return {"cursor": asked["cursor"]} if asked.get("cursor") else {}


def _given(request: HttpRequest) -> dict[str, str]:
    """Return the filters of an address: what a form sends empty is none. Raises Problem 422 for unknown names."""
    asked = {name: text.strip() for name, text in request.query_params.items() if text.strip() and name != "cursor"}
    message = f"no such filter; there are {', '.join(FILTERS)}"
    if unknown := [{"loc": ["query", name], "msg": message} for name in asked if name not in FILTERS]:
        raise bad_query(unknown)
    return asked


def _columns(record: RunRecord, view: Request | None) -> tuple[str | None, ...]:
    outcome = view.outcome if view is not None else None
    return (
        record.id,
        record.workflow,
        view.title if view is not None else None,
        shown_state(record),
        view.requester if view is not None else None,
        iso(record.created_at),
        iso(record.ended_at) if record.ended_at is not None else None,
        outcome.outcome if outcome is not None else None,
        outcome.by if outcome is not None else None,
    )
