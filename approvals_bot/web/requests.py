"""The requests of a run, and what they show of themselves.

A run of a workflow file is one request. A Python workflow may make none, one or many; each is called by its run's id
and its number, `run_0….2`, and by the run's id alone where only one can be meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from approvals_bot.approvals.request import OutcomeView, RequestView, dumped
from approvals_bot.engine import Engine, RunRecord, Target

_MARKS = {"hook_id", "recipients", "digest", "waiting_for"}


def requests_of(record: RunRecord) -> tuple[RequestView, ...]:
    """All requests that this run shows, in the order in which they were made."""
    match record.view:
        case {"requests": list(shown), "waiting_for": list(), "published": _}:
            return tuple(_over(RequestView.model_validate(one), record) for one in shown)
        case dict() as view if view.keys() >= _MARKS:
            return (_over(RequestView.model_validate(view), record),)
    return ()


def request_of(record: RunRecord, hook_id: str | None = None) -> RequestView | None:
    """The request behind this hook; without one, the request that the run stands for now: the one that is open, if
    several are the first of them, else the last. None for a run that asks nobody.
    """
    requests = requests_of(record)
    if hook_id is not None:
        return next((view for view in requests if view.hook_id == hook_id), None)
    return stands_for(requests)


def stands_for(requests: Sequence[RequestView]) -> RequestView | None:
    """Of all requests of a run, the one that it stands for now."""
    return next((view for view in requests if view.is_open), requests[-1] if requests else None)


async def find_record(engine: Engine, id: str) -> RunRecord | None:
    """The run of this id; for a request's, `run_0….2`, its run as if that request were all that it shows."""
    run_id, _, number = id.partition(".")
    record = await engine.record(run_id)
    if record is None or not number:
        return record if run_id == id else None
    view = next((view for view in requests_of(record) if view.id == id), None)
    return replace(record, view=dumped(view)) if view is not None else None


def choices_of(requests: Sequence[RequestView]) -> tuple[str, ...]:
    """The ids of the open ones of a run's requests, of which one has to be named, where its id could mean several."""
    open_ones = [view.id for view in requests if view.is_open]
    return tuple(open_ones) if len(open_ones) > 1 else ()


def request_behind(target: Target | None) -> RequestView | None:
    """The request that this hook belongs to."""
    if target is None or target.row.view is None:
        return None
    return request_of(target.record, target.hook.id)


def _over(view: RequestView, record: RunRecord) -> RequestView:
    """A run that was ended from outside takes its open requests with it, without a word of its own."""
    if not record.has_ended or not view.is_open:
        return view
    ended = OutcomeView(
        state="withdrawn",
        by=view.requester,
        at=record.ended_at or view.asked_at,
        via="api",
        because="the workflow that asked was ended",
    )
    return view.model_copy(update={"outcome": ended, "state": "withdrawn", "waiting_for": (), "timers": ()})
