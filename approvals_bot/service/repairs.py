"""What operators do about runs: cancel them, end their sleeps, try again, go on from an earlier event, resume a hook.

Each act needs a reason, and is in the audit with the actor, the reason, and the run that goes on. None of them is a
vote: whatever a person decides with can't be resumed this way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from approvals_bot.approvals.acts import Actor, Reply, Stop
from approvals_bot.approvals.published import REQUEST
from approvals_bot.approvals.request import Request
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.engine import Engine, Run, RunRecord
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.protocol import ENDED, Filter, Status
from approvals_bot.errors import (
    AlreadyResetError,
    ApprovalsBotError,
    HookNotFoundError,
    RunEndedError,
    RunNotFoundError,
    RunNotStalledError,
)
from approvals_bot.service.act import perform
from approvals_bot.service.owed_lines import line_of_operator, write_line
from approvals_bot.service.read import request_behind, request_of, requests_of
from approvals_bot.service.revocations import end_standing

Act = Literal["retry", "new_run", "reset"]

REPAIRABLE: tuple[Status, ...] = ("stalled", "failed")
"""The statuses of runs that a bulk repair finds by default: what a bug leaves behind."""

RETRYABLE: tuple[Status, ...] = (*REPAIRABLE, "cancelled")
"""The statuses of runs of which there can be another attempt."""

PAGE_SIZE = 50  # runs; a row may have 2 MB


class GrantNotOverError(ApprovalsBotError):
    """What a request has given isn't over, and a reset that drops its votes would leave nobody to remove it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"What was approved by run {run_id} isn't over, so its votes can't be dropped: revoke it first. "
            "Nothing was changed."
        )


class OwnReviewError(ApprovalsBotError):
    """The person who opened a request without a vote may not end its review, as an operator neither."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"You opened run {run_id} without a vote, so another operator has to cancel its review.")


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done. `next_run` goes on; after a retry, it is the same run. `is_new`: whether this call made it."""

    run_id: str
    act: Act
    next_run: str
    is_new: bool


def act_of(status: Status, to: int | None) -> Act:
    """Return what repairing a run with this status is. `to`: the event to reset it to, if it is reset."""
    if to is not None:
        return "reset"
    return "retry" if status == "stalled" else "new_run"


def why_not_again(record: RunRecord) -> ApprovalsBotError | None:
    """Return the error that another attempt at this run would raise; None if there can be one."""
    if record.next_run is not None:
        return AlreadyResetError(record.id, record.next_run, record.status)
    if record.status in RETRYABLE:
        return None
    return (RunEndedError if record.has_ended else RunNotStalledError)(record.id, record.status)


async def attempt_again(engine: Engine, run_id: str, *, who: str, actor: Actor, reason: str) -> Repair:
    """Retry a stalled run, or start a failed or cancelled one again, as a new run with the same input.

    A repeat returns the same new run. Raises as `Engine.attempt` does; nothing was changed then.
    """
    record = await _record(engine, run_id)
    what = "run_attempted" if record.has_ended else "run_retried"
    owed = line_of_operator(what, who, actor, run_id, {"reason": reason, "status": record.status})
    run = await engine.attempt(run_id, actor=actor.as_json(), owes=owed)
    await _write_line(engine, owed, run)
    return Repair(run_id, "retry" if run.id == run_id else "new_run", run.id, run.is_new)


async def reset(
    engine: Engine, run_id: str, to: int, *, who: str, actor: Actor, reason: str, drop_payloads: bool = False
) -> Repair:
    """Let a new run go on from event `to` of a run, in its place.

    What its approval covers of later requests ends, since the new run may decide otherwise, or cover them itself. A
    repeat returns the same new run while that is open. Raises as `Engine.reset` does, and GrantNotOverError; nothing
    was changed then.
    """
    record = await _record(engine, run_id)
    if drop_payloads and await _drops_what_gives(engine, record, to):
        raise GrantNotOverError(run_id)
    data = {"reason": reason, "status": record.status, "to": to, "drop_payloads": drop_payloads}
    owed = line_of_operator("run_reset", who, actor, run_id, data)
    run = await engine.reset(run_id, to=to, drop_payloads=drop_payloads, actor=actor.as_json(), owes=owed)
    await _write_line(engine, owed, run)
    for request in requests_of(record):
        if request.standing is not None:
            await end_standing(engine, request, request.standing, who, reason, actor=actor.as_json(), via="inbox")
    return Repair(run_id, "reset", run.id, run.is_new)


async def _drops_what_gives(engine: Engine, record: RunRecord, to: int) -> bool:
    """Return whether the decision that has given something which isn't over comes after event `to`."""
    decided = [
        each.outcome.at for each in requests_of(record) if each.outcome and each.grant and not each.grant.is_over
    ]
    if not decided:
        return False
    _, log = await engine.read(record.id)
    return any(event.seq == to and event.at <= max(decided) for event in log)


async def cancel_run(engine: Engine, run_id: str, *, who: str, actor: Actor, reason: str) -> None:
    """Ask a run that is no open request to end. What its approval gave is removed first.

    Raises as `Engine.cancel` does, and OwnReviewError; nothing was changed then.
    """
    record = await engine.record(run_id)
    given = request_of(record) if record is not None and not record.has_ended and record.kind == REQUEST else None
    if given is not None and given.review is not None and who in (given.requester, given.on_behalf_of):
        raise OwnReviewError(run_id)
    if given is not None and given.grant is not None:
        await perform(engine, given, Stop(who, reason, "inbox", actor=actor))
        return
    owed = line_of_operator("run_cancelled", who, actor, run_id, {"reason": reason})
    await engine.cancel(run_id, reason or None, actor=actor.as_json(), owes=owed)
    await write_line(engine, owed)


async def cancel_request(engine: Engine, request: Request, *, who: str, actor: Actor, reason: str) -> Reply:
    """Cancel a request that is open, and the run with it. Returns the reply; everybody involved is notified."""
    return await perform(engine, request, Stop(who, reason, "inbox", actor=actor))


async def end_sleeps(engine: Engine, run_id: str, *, who: str, actor: Actor, reason: str) -> int:
    """End the sleeps that a run is in, and return their number. Raises RunNotFoundError."""
    owed = line_of_operator("run_woken", who, actor, run_id, {"reason": reason})
    ended = await engine.wake_up(run_id, owes=owed)
    if ended:
        await write_line(engine, owed, sleeps=ended)
    return ended


async def resume_waiting_hook(
    engine: Engine, run_id: str, hook_id: str, payload: Any, *, who: str, actor: Actor, reason: str
) -> None:
    """Give a payload to a live hook or webhook of this run, in the place of the one who should have sent it.

    Raises HookNotFoundError for another run's hook, and for one that people decide by; InvalidPayloadError.
    """
    target = await engine.find(hook_id)
    if target is None or target.record.id != run_id or not target.hook.is_live or request_behind(target) is not None:
        raise HookNotFoundError(hook_id)
    owed = line_of_operator("hook_resumed", who, actor, run_id, {"reason": reason, "hook_id": hook_id})
    if target.hook.is_webhook:
        url = f"{engine.base_url}/webhooks/{hook_id}"  # by this, the log differs from our own messages
        await engine.send_to_webhook(target, WebhookRequest.of_json(payload, url), actor=actor.as_json(), owes=owed)
    else:
        await engine.resume_hook(target.hook.token, payload, actor=actor.as_json(), owes=owed)
    await write_line(engine, owed)


async def _write_line(engine: Engine, owed: Owes, run: Run[Any]) -> None:
    """Write the line of an act. A repeat changes nothing, so it owes none, but it has one."""
    if not await write_line(engine, owed, next_run=run.id) and not run.is_new:
        about = owed.about
        data = about["data"] | {"next_run": run.id}
        await engine.audit(about["what"], who=about["who"], actor=about["actor"], run_id=about["run_id"], data=data)


async def _record(engine: Engine, run_id: str) -> RunRecord:
    record = await engine.record(run_id)
    if record is None:
        raise RunNotFoundError(run_id)
    return record


async def find_broken(
    engine: Engine,
    *,
    workflow: str | None = None,
    statuses: Sequence[Status] = REPAIRABLE,
    since: datetime | None = None,
    error: str | None = None,
) -> AsyncIterator[RunRecord]:
    """Yield the runs with one of these statuses, the oldest first, but for those that a reset has replaced.

    `since`: only those that ended then or later, in the order of their ends, or, while they are open, whose last event
    is as late. `error`: only those whose error has this text, in any case.
    """
    for status in statuses:
        ended_since = since if status in ENDED else None
        which = Filter(workflow, status, ended_since=ended_since, oldest_first=True, limit=PAGE_SIZE)
        while True:
            page = await engine.list_runs(which)
            for record in page.records:
                if record.next_run is not None or not _has_error(record, error):
                    continue
                if since is None or ended_since is not None or await _last_event(engine, record) >= since:
                    yield record
            if page.cursor is None:
                break
            which = replace(which, cursor=page.cursor)


def error_of(record: RunRecord) -> str:
    """Return what went wrong in a run, as operators read it; "" if nothing has."""
    if record.stalled is not None:
        return str(record.stalled)
    found = record.error
    return ": ".join(text for text in (found["type"], found["message"]) if text) if found is not None else ""


def _has_error(record: RunRecord, text: str | None) -> bool:
    return text is None or text.casefold() in error_of(record).casefold()


async def _last_event(engine: Engine, record: RunRecord) -> datetime:
    """Return the time of a run's last event."""
    found = await engine.store.read(record.id, after=record.seq - 1, patient=True)
    return found[1][-1].at if found is not None and found[1] else record.created_at
