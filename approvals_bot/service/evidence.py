"""The evidence of one request: everything that somebody needs to believe it, in one signed file.

`verify_evidence.py` checks it with Python's standard library alone, offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from approvals_bot.approvals.acts import REFUSALS, Actor
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.request import RecordedVote, Request
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import AuditFilter, AuditLine
from approvals_bot.durable.store.chain import ChainedEvent
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.service.anchors import sign_anchor
from approvals_bot.service.audit import audit_as_json, event_as_json
from approvals_bot.service.audit_keeper import FILE
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.owed_lines import ACTED, SHOWN, complete_lines
from approvals_bot.service.read import api_request, iso, redact, requests_of
from approvals_bot.verify_evidence import FORMAT, written

FILES_AT_ONCE = 20  # texts of workflows' files that are read at once
MOST_LINES = 10_000  # of the audit, about one run


class NoAuditKeyError(ApprovalsBotError):
    """Evidence is signed, and the service has no audit key."""

    def __init__(self) -> None:
        super().__init__("Evidence is signed with the audit key. Set key in [audit] of config.toml.")


async def make_evidence(
    engine: Engine,
    record: RunRecord,
    key: AuditKey | None,
    *,
    actor: Actor,
    who: str | None = None,
    only: Request | None = None,
) -> bytes:
    """Return the evidence of a run as a file. Raises NoAuditKeyError.

    `actor` wants it, for themselves or as `who`.

    `only`: one of the run's requests, whose evidence it is. Of the run's other events, there are only the seals then,
    which the chain needs; and nothing of its input, which may be about other people.
    """
    if key is None:
        raise NoAuditKeyError
    # The audit vouches for the log up to here: a run that has ended, or its head now.
    if record.ended_at is not None:
        while await engine.store.seal_ended(engine.now(), engine.audit_key, MOST_LINES) == MOST_LINES:
            pass
    await complete_lines(engine)
    log = await engine.store.chained(record.id)
    head = {"seq": len(log), "hash": log[-1].hash if log else ""}
    data = {"seq": head["seq"], "head": head["hash"]}
    line = await engine.audit("evidence_made", who=who, actor=actor.as_json(), run_id=record.id, data=data)
    lines = await engine.audit_lines(AuditFilter(run_id=record.id, limit=MOST_LINES))
    events = [event_as_json(event) for event in log]
    requests = requests_of(record)
    if only is not None and only.number:  # without a number, the run is this request
        requests = (only,)
        lines, events = _lines_of(only, lines), _events_of(only, log, events)
    unsigned = {
        "format": FORMAT,
        "made_at": iso(line.at),
        "installation": engine.store.installation,
        "run": {
            "id": record.id, "workflow": record.workflow, "status": record.status, "version": record.version,
            "created_at": iso(record.created_at),
        },
        "request": [{"id": each.id} | api_request(each) for each in requests],
        "rules": {
            "digest": [each.definition for each in requests],
            "files": [await _file_of(engine, each) for each in requests],
            "input": events[0]["data"] if events else None,
        },
        "asked": [_asked(each) for each in requests],
        "votes": [_vote(vote, each, lines) for each in requests for vote in each.votes if not vote.carried_from],
        "outcome": [_outcome(each) for each in requests],
        "shown": {each.entry.data["sha256"]: each.entry.data["text"] for each in lines if each.entry.what == SHOWN},
        "log": events,
        "head": head,
        "audit": [audit_as_json(each) for each in lines],
        "anchor": sign_anchor(key, line.seq, line.hash, "", line.at).as_json(),
        "key": key.public,
    }  # fmt: skip
    return written(unsigned | {"signature": key.sign(unsigned)})


async def _file_of(engine: Engine, request: Request) -> dict[str, Any] | None:
    """Return the file that the request follows, with its text, as the audit keeps it. None if it has none."""
    below: int | None = None
    while True:
        which = AuditFilter(what=FILE, below=below, newest_first=True, limit=FILES_AT_ONCE)
        lines = await engine.audit_lines(which)
        for line in lines:
            if line.entry.data.get("version") == request.definition:
                return line.entry.data
        if len(lines) < FILES_AT_ONCE:
            return None
        below = lines[-1].seq


def _events_of(request: Request, log: Sequence[ChainedEvent], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events with the content of those that are this request's acts and replies; of others, the seals."""
    hooks = {
        event["data"].get("id")
        for event in events
        if event["type"] == "hook_created" and event["data"].get("hook_id") == request.hook_id
    }
    return [
        shown
        if shown["type"].startswith("hook_") and shown["data"].get("id") in hooks
        else {name: shown[name] for name in ("seq", "type", "at", "key", "hash")} | {"data": None, "sealed": event.seal}
        for event, shown in zip(log, events, strict=True)
    ]


def _lines_of(request: Request, lines: Sequence[AuditLine]) -> list[AuditLine]:
    """Return the lines about this request and its run's log, with the texts that its voters saw."""
    own = [each for each in lines if each.entry.data.get("request_id") == request.id]
    seen = {each.entry.data.get("shown") for each in own}
    return [
        each
        for each in lines
        if each in own
        or each.entry.what in ("evidence_made", "run_ended")
        or (each.entry.what == SHOWN and each.entry.data.get("sha256") in seen)
    ]


def _asked(request: Request) -> dict[str, Any]:
    """Return who was asked in each stage, and why; and why each rule applied."""
    stages = [
        {"stage": stage.id, "seats": [{"need": seat.need, "people": seat.eligible} for seat in stage.seats]}
        for stage in request.stages
    ]
    return {"request": request.id, "stages": stages, "rules": redact(explain(request)["rules"])}


def _vote(vote: RecordedVote, request: Request, lines: Sequence[AuditLine]) -> dict[str, Any]:
    """Return a vote with how the person was identified, and the hash of the text that they saw."""
    line = next(
        (
            each
            for each in lines
            if (each.entry.what, each.entry.data.get("request_id")) == (ACTED, request.id)
            and (each.entry.who, each.entry.data.get("choice")) == (vote.by, vote.choice)
            and each.entry.data.get("digest") in (None, vote.vote.digest)
            and each.entry.data.get("via") == vote.vote.via
            and each.entry.data.get("verdict") not in REFUSALS  # of the same press before, such as without a comment
            and each.at >= vote.at
        ),
        None,
    )
    return {
        "request": request.id, "by": vote.by, "choice": vote.choice, "at": iso(vote.at), "via": vote.vote.via,
        "actor": None if line is None else line.entry.actor, "digest": vote.vote.digest, "comment": vote.vote.comment,
        "counts": vote.counts, "shown": None if line is None else line.entry.data.get("shown"),
    }  # fmt: skip


def _outcome(request: Request) -> dict[str, Any] | None:
    ended = request.outcome
    if ended is None:
        return None
    return {"request": request.id, "state": ended.state, "by": ended.by, "at": iso(ended.at), "because": ended.because}
