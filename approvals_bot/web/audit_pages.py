"""The audit for auditors, and the evidence of a request: `/audit`, its exports, `/requests/{id}/evidence`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from approvals_bot.approvals.acts import Actor
from approvals_bot.approvals.request import Request
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import ALL_LINES, AuditFilter, AuditLine
from approvals_bot.errors import RunNotFoundError
from approvals_bot.people import SourceUnavailable
from approvals_bot.service.audit import Selection, write_export
from approvals_bot.service.audit_csv import csv_lines
from approvals_bot.service.audit_keeper import ANCHORED
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.evidence import NoAuditKeyError, make_evidence
from approvals_bot.service.known import concerns_now
from approvals_bot.service.read import find_record, redact, request_of
from approvals_bot.web.admission import DEVELOPER
from approvals_bot.web.desk import WebDesk
from approvals_bot.web.keys import actor_of, check_reach, key_of
from approvals_bot.web.responses import Problem
from approvals_bot.web.sessions import actor_at

SHOWN = 50  # lines on a page
CHUNK = 65_536  # bytes

UNAVAILABLE = "Your roles can't be looked up right now, because a source of groups doesn't answer. Try again soon."


class AuditPages:
    """The pages about what happened, for those who check it. They change nothing but the audit."""

    def __init__(self, desk: WebDesk, key: AuditKey | None) -> None:
        self._engine, self._roles = desk.engine, desk.roles
        self._sessions, self._login, self._open = desk.sessions, desk.login, desk.open_pages
        self._navigation, self._pages = desk.navigation, desk.pages
        self._key = key

    async def show(self, request: HttpRequest) -> Response:
        """Show the lines of the audit, the newest first, by person, kind, run and time if asked."""
        refused = await self._refused(request)
        if refused is not None:
            return refused
        which = _filter_of(request)
        lines = await self._engine.audit_lines(which)
        shown, given = lines[:SHOWN], _given(request)
        older = urlencode(given | {"cursor": str(shown[-1].seq)}) if len(lines) > SHOWN else ""
        anchors = await self._engine.audit_lines(AuditFilter(what=ANCHORED, newest_first=True, limit=1))
        return self._pages.page(
            "audit.html",
            nav=await self._navigation.of(await self._sessions.who(request)),
            here="/audit",
            rows=[_row(line) for line in shown],
            given=given,
            older=older,
            exported=urlencode(given),
            anchor=anchors[0] if anchors else None,
            has_key=self._key is not None,
        )

    async def table(self, request: HttpRequest) -> Response:
        """Return the lines as CSV."""
        return await self._export(request, "csv")

    async def lines(self, request: HttpRequest) -> Response:
        """Return the lines, and the logs of the runs that they name, as JSON lines that `audit verify` checks."""
        return await self._export(request, "jsonl")

    async def _export(self, request: HttpRequest, form: str) -> Response:
        refused = await self._refused(request)
        if refused is not None:
            return refused
        selection = Selection(replace(_filter_of(request), below=None, newest_first=False, limit=ALL_LINES.limit))
        who, actor = await self._visitor(request)
        data = {"selected": selection.as_json(), "format": form}
        await self._engine.audit("audit_exported", who=who, actor=actor.as_json(), data=data)
        if form == "csv":
            return _download(csv_lines(self._engine, selection), "text/csv; charset=utf-8", "audit.csv")
        if self._key is None:
            raise Problem(404, detail=str(NoAuditKeyError()))
        return _download(_exported(self._engine, self._key, selection), "application/jsonl", "audit.jsonl")

    async def evidence(self, request: HttpRequest) -> Response:
        """Return the evidence of one request, for those whom it concerns. Viewers may have that of a whole run."""
        reader = await self._sessions.who(request)
        if not self._open and reader is None:
            return await self._login.instead_of(request)
        record = await find_record(self._engine, request.path_params["id"])
        view = None if record is None else request_of(record)
        if record is None:
            raise Problem(404)
        if (self._open and reader is None) or "viewer" in await self._roles_of(reader):
            return await self._evidence_of(record, _named(request, record), await self._visitor(request))
        if view is None or not await concerns_now(self._engine, view, reader):
            raise Problem(404)
        return await self._evidence_of(record, view, await self._visitor(request))

    async def evidence_for_programs(self, request: HttpRequest) -> Response:
        """Return the evidence of a run that the caller's key may read."""
        record = await find_record(self._engine, request.path_params["id"])
        if record is None:
            raise RunNotFoundError(request.path_params["id"])  # as for a run that the key doesn't reach
        await check_reach(self._engine, request, record)
        by = key_of(request).address, actor_of(request)
        return await self._evidence_of(record, _named(request, record), by)

    async def _evidence_of(self, record: RunRecord, only: Request | None, by: tuple[str | None, Actor]) -> Response:
        try:
            content = await make_evidence(self._engine, record, self._key, who=by[0], actor=by[1], only=only)
        except NoAuditKeyError as error:
            raise Problem(404, detail=str(error)) from None
        headers = {"content-disposition": f'attachment; filename="evidence-{record.id}.json"'}
        return Response(content, media_type="application/json", headers=headers)

    async def _visitor(self, request: HttpRequest) -> tuple[str | None, Actor]:
        """Return who is at this browser, as the audit has them, and as the actor of what they do."""
        session = await self._sessions.find(request)
        return (None, DEVELOPER) if session is None else (session.person, actor_at(request, session))

    async def _refused(self, request: HttpRequest) -> Response | None:
        """Return the answer to somebody who is no auditor."""
        reader = await self._sessions.who(request)
        if reader is None:
            return None if self._open else await self._login.instead_of(request)
        if "auditor" not in await self._roles_of(reader):
            detail = "Ask an operator if you need it: they can add you to auditor in [roles]."
            nav = await self._navigation.of(reader)
            return self._pages.page("error.html", 403, title="This page is for auditors", detail=detail, nav=nav)
        return None

    async def _roles_of(self, reader: str | None) -> frozenset[Any]:
        try:
            return frozenset() if reader is None else await self._roles.of(reader)
        except SourceUnavailable:
            raise Problem(503, detail=UNAVAILABLE) from None


def _named(request: HttpRequest, record: RunRecord) -> Request | None:
    """Return the request whose own id the address has; None if it has the run's."""
    return request_of(record) if request.path_params["id"] != record.id else None


FILTERS = ("who", "what", "run", "after", "before")


def _given(request: HttpRequest) -> dict[str, str]:
    return {name: text for name in FILTERS if (text := request.query_params.get(name, "").strip())}


def _filter_of(request: HttpRequest) -> AuditFilter:
    """Return the lines that the address asks for. Raises Problem 422 for a time or a cursor that isn't one."""
    given, cursor = _given(request), request.query_params.get("cursor", "")
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise Problem(422, detail="This isn't the address of a page of the audit.")
    return AuditFilter(
        who=given.get("who"),
        what=given.get("what"),
        run_id=given.get("run"),
        since=_time(given.get("after")),
        until=_time(given.get("before")),
        below=int(cursor) if cursor else None,
        newest_first=True,
        limit=SHOWN + 1,
    )


def _time(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise Problem(422, detail="Write times like 2026-11-28 or 2026-11-28T10:00.") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _row(line: AuditLine) -> dict[str, Any]:
    entry = line.entry
    data = {name: value for name, value in redact(entry.data).items() if name not in ("rights", "text", "heads")}
    return {"line": line, "entry": entry, "actor": entry.actor or {}, "data": data}


async def _exported(engine: Engine, key: AuditKey, selection: Selection) -> AsyncIterator[bytes]:
    """Yield an export, which is written to a file on disk before: it may be long, and its reader slow."""
    with tempfile.TemporaryFile() as file:
        await write_export(engine, key, file, selection)
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


def _download(content: AsyncIterator[bytes], kind: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(content, media_type=kind, headers=headers)
