"""Resets: a new run begins with another run's first events, and takes its place.

The plan is pure. The store writes it in one transaction, and only if the old log hasn't grown since it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from approvals_bot.durable.core.attributes import attributes_after
from approvals_bot.durable.core.commands import resume_at
from approvals_bot.durable.core.events import ENDINGS, Event, Log, hooks_of
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.protocol import (
    Reset,
    RunRecord,
    Stale,
    Successor,
    TokenTaken,
    WasReset,
)
from approvals_bot.errors import (
    AlreadyResetError,
    HookConflictError,
    NondeterminismError,
    NoSuchEventError,
    RunNotFoundError,
    WorkflowNotFoundError,
)


async def reset_run(
    scheduler: Scheduler,
    run_id: str,
    to: int,
    new_id: str,
    *,
    drop_payloads: bool,
    actor: Mapping[str, Any] | None = None,
    owes: Owes | None = None,
) -> tuple[str, list[Event]]:
    """Reset a run. Returns the ID of the run in its place, and the event that has ended the old one, if any.

    The new run gets the ID `new_id`. A repeat returns the run of the first reset, which may have another ID.
    Raises as `Engine.reset` does.
    """
    store = scheduler.store
    while True:  # it ends: each turn but the last has found a longer log
        found = await store.read(run_id)
        if found is None:
            raise RunNotFoundError(run_id)
        record, log = found
        plan = plan_reset(record, log, to, new_id, drop_payloads=drop_payloads, actor=actor)
        if record.next_run is not None:
            last = await _last_of(scheduler, record)
            if not last.has_ended:
                first = await store.read(record.next_run)
                if first is not None and (first[1][0].data.get("reset_of") == plan.successor.log[0].data["reset_of"]):
                    return record.next_run, []  # the answer to the first call may have been lost
                raise AlreadyResetError(run_id, last.id, record.status)
            plan = plan._replace(successor=plan.successor._replace(holder=last.id))
        now = scheduler.clock.now()
        plan = plan._replace(cancel_until=now + scheduler.cancel_grace, owes=owes)
        match await store.reset(await _with_view(scheduler, plan), now):
            case TokenTaken(token, owner):
                raise HookConflictError(token, owner)
            case WasReset(events):
                return new_id, events
            case Stale():
                pass


async def _last_of(scheduler: Scheduler, record: RunRecord) -> RunRecord:
    """Return the last of the runs that resets have made from this one."""
    while record.next_run is not None:
        found = await scheduler.store.read(record.next_run, after=record.seq)
        assert found is not None, "it was written together with its name"
        record = found[0]
    return record


async def _with_view(scheduler: Scheduler, plan: Reset) -> Reset:
    """Add what the new run shows, so it can be found and read before anybody works on it.

    Raises NondeterminismError if today's code doesn't fit the log. A replay that fails in any other way is left to the
    new run's first activation, which records the error.
    """
    new = plan.successor
    try:
        workflow = scheduler.registry.get(new.row.code, new.row.version)
    except WorkflowNotFoundError:
        return plan
    try:
        outcome = await scheduler.replayer.replay(workflow, new.log, scheduler.entropy())
    except NondeterminismError:
        raise
    except Exception:  # noqa: BLE001  # the activation gets the same error and records it
        return plan
    parts = [] if outcome.projection is None else outcome.projection.parts
    return plan._replace(successor=new._replace(row=new.row._replace(view=outcome.view, parts=parts)))


def plan_reset(
    record: RunRecord,
    log: Log,
    to: int,
    new_id: str,
    *,
    drop_payloads: bool = False,
    actor: Mapping[str, Any] | None = None,
) -> Reset:
    """Plan the run that begins with the events of `log` up to number `to`.

    The end of a run isn't copied, since a replay decides it again. Nor is a cancellation, with all that the run did
    because of it: the new run is to go on. What came from outside after `to` follows the copied
    part, in the order in which it came: see `_kept`. Raises NoSuchEventError.
    """
    if not 1 <= to <= len(log):
        raise NoSuchEventError(record.id, to, len(log))
    asked_to_end = next((event.seq for event in log if event.type == "cancel_requested"), to + 1)
    copied = log[: min(to - (log[to - 1].type in ENDINGS), asked_to_end - 1)]
    created = log[0].data
    reset_of = {"run_id": record.id, "seq": len(copied)}
    if "reset_of" in created:
        reset_of["before"] = created["reset_of"]
    if record.status == "pending":  # it begins now, also if it was started for a later time
        created = {name: value for name, value in created.items() if name != "begins_at"}
    data = created | {"run_id": new_id, "reset_of": reset_of, "seed": created.get("seed", record.id)}
    if actor is not None:
        data["reset_by"] = dict(actor)
    kept = [] if drop_payloads else _kept(copied, log[len(copied) :])
    begun = [log[0]._replace(data=data), *copied[1:], *kept]
    events = [event._replace(seq=seq) for seq, event in enumerate(begun, 1)]
    row = record._replace(
        id=new_id, status="pending", ended_at=None, seq=len(events), view=None, parts=[], stalled=None, ending=None,
        next_run=None, attributes=attributes_after(events),
    )  # fmt: skip
    return Reset(record.id, len(log), record.next_run, Successor(row, events, record.id))


def _kept(copied: Log, later: Log) -> Log:
    """Return the later events that happened to the copied part from outside.

    These are the answers that people gave at its hooks, and its timers that ran out meanwhile. The new run handles them
    in their order: a vote that came before the deadline still does. A timer that somebody ended early isn't among them,
    and steps are run again.
    """
    hooks = {hook.number for hook in hooks_of(copied)}
    waits = {event.data["id"]: resume_at(event) for event in copied if event.type == "wait_created"}
    return [
        event
        for event in later
        if (event.type == "hook_received" and event.data["id"] in hooks)
        or (event.type == "wait_completed" and event.data["id"] in waits and waits[event.data["id"]] <= event.at)
    ]
