"""The JSON of calls for PostgreSQL's functions, and the decoding of their answers.

The data of events, views and the like is JSON within JSON, as text. So it reaches the table unchanged, NUL included.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from approvals_bot.durable.core.events import (
    ENDINGS,
    Event,
    Log,
    NewEvent,
    children_of,
    closed_by,
    from_micros,
    hooks_of,
    to_micros,
)
from approvals_bot.durable.core.serialization import to_json
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.encoding import (
    as_given,
    cancel_request,
    indexed,
    log_unreadable,
    most_unread,
    own_json,
    own_pairs,
    parent_ended,
    parent_gave_up,
    readable_attributes,
    readable_json,
    readable_time,
    storable,
)
from approvals_bot.durable.store.postgres_connection import SHOWN
from approvals_bot.durable.store.protocol import (
    ENDED_HOOKS,
    MAX_RECEIVED,
    MAX_RECEIVING,
    Append,
    Appended,
    Claim,
    Claimed,
    Created,
    Fenced,
    Full,
    HookRow,
    Lease,
    NewRun,
    Parent,
    Received,
    Reset,
    RunRecord,
    Stale,
    Successor,
    TokenTaken,
    WasReset,
    why_full,
)

Call = dict[str, Any]

_NOTIFIED = ENDINGS | {"hook_responded"}
"""Events that a caller may be waiting for at another replica."""


# ── calls ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def create(run: NewRun, at: datetime, lease: Lease | None, then: Append | None) -> Call:
    new = run.row
    call: Call = {
        "call": "create",
        "run": storable(new.id),
        "workflow": storable(new.workflow),
        "code": storable(new.code),
        "version": storable(new.version),
        "idempotency_key": storable(run.idempotency_key),
        "kind": storable(new.kind),
        "attributes": own_json(new.attributes),
        "at": to_micros(at),
        "wake_at": to_micros(max(at, new.wake_at or at)),
        "events": [_event(event) for event in run.events()],
    }
    if new.attributes:
        call["pairs"] = own_pairs(new.attributes)
    fits = then is not None and (then.expected, then.epoch) == (len(call["events"]), 1)
    return _with_relatives(call | _lease_and_then(lease, then if fits else None)) | owing(run.owes)


def _with_relatives(call: Call) -> Call:
    """Say in a call whether its planned batch writes to the run's parent or children, which are to be locked then."""
    return call | ({"writes_to_relatives": True} if "writes_to_relatives" in call.get("then", ()) else {})


def create_with_hooks(run: NewRun, at: datetime, lease: Lease | None, then: Append | None) -> Call:
    hooks = run.data["hooks"]
    call = create(run, at, lease, then) | {"call": "create_with_hooks", "hooks": [_hook(hook) for hook in hooks]}
    if run.payload is not None:
        call["payload"] = {
            "token": storable(hooks[0]["token"]),
            "resume_id": storable(run.payload.data["resume_id"]),
            "ended": ENDED_HOOKS,
            "data": to_json(run.payload.data, "hook_received"),
            "unread": to_json({str(run.payload.data["id"]): 1}, "unread"),
        }
    return call


def receive(
    hook_id: str,
    resume_id: str,
    payload: Any,
    at: datetime,
    lease: Lease | None,
    then: Append | None,
    also: dict[str, Any] | None,
    most: int,
) -> Call:
    call = {
        "call": "receive",
        "hook": storable(hook_id),
        "resume_id": storable(resume_id),
        "data": to_json({"resume_id": resume_id, "payload": payload, **(also or {})}, "hook_received"),
        "at": to_micros(at),
        "max_unread": most,
        "max_received": MAX_RECEIVED,
        "max_receiving": MAX_RECEIVING,
    }
    return _with_relatives(call | _lease_and_then(lease, then))


def owing(owes: Owes | None) -> Call:
    """Return what a call has for the line that the audit owes once it is carried out."""
    return {} if owes is None else {"owes": [owes.id, to_json(owes.about, "the audit")]}


def append(batch: Append) -> Call:
    return {"call": "append"} | _batch(batch)


def record(run_id: str, facts: list[NewEvent], at: datetime) -> Call:
    new = list({fact.key: fact for fact in facts}.values())
    call = {
        "call": "record",
        "run": storable(run_id),
        "events": [_event(fact) for fact in new],
        "at": to_micros(at),
    }
    return call | _ending(run_id, new, to_micros(at), None)


def reset(reset: Reset, at: datetime) -> Call:
    return (
        {
            "call": "reset",
            "run": storable(reset.old),
            "expected": reset.expected,
            "next_run": storable(reset.next_run),
            "end": [_event(reset.end())],
            "successor": _successor(reset.successor),
            "at": to_micros(at),
        }
        | _ending(reset.old, [reset.end()], to_micros(at), reset.cancel_until)
        | owing(reset.owes)
    )


def _successor(successor: Successor) -> Call:
    new = successor.row
    call: Call = {
        "run": storable(new.id),
        "holder": storable(successor.holder),
        "workflow": storable(new.workflow),
        "code": storable(new.code),
        "version": storable(new.version),
        "kind": storable(new.kind),
        "attributes": own_json(new.attributes),
        "view": None if new.view is None else to_json(new.view, "view"),
        "parts": to_json(new.parts, "parts") if new.parts else None,
        "unread": to_json(successor.unread, "unread") if successor.unread else None,
        "log": [
            [event.seq, event.type, to_micros(event.at), storable(event.key), to_json(event.data, event.type)]
            for event in successor.log
        ],
        "hooks": [
            [storable(hook.id), hook.number, hook.is_open, storable(hook.token)] for hook in hooks_of(successor.log)
        ],
        "children": [[storable(child.run_id), child.number] for child in children_of(successor.log)],
    }
    return call | ({"pairs": own_pairs(new.attributes)} if new.attributes else {})


def _parent(parent: Parent) -> Call:
    return {
        "parent": storable(parent.run_id),
        "parent_number": parent.number,
        "on_parent_close": parent.on_parent_close,
    }


def claim(lease: Lease, limit: int, run_id: str | None) -> Call:
    if run_id is None:
        return {"call": "claim_due", "lease": _lease(lease), "limit": limit}
    return {"call": "claim", "lease": _lease(lease), "run": storable(run_id)}


def renew(claims: list[Claim], until: datetime) -> Call:
    held = [[storable(claim.run_id), claim.epoch] for claim in claims]
    return {"call": "renew", "claims": held, "until": to_micros(until)}


def _lease_and_then(lease: Lease | None, then: Append | None) -> Call:
    if lease is None:
        return {}
    return {"lease": _lease(lease)} | ({} if then is None else {"then": _batch(then)})


def _lease(lease: Lease) -> Call:
    return {"owner": storable(lease.owner), "at": to_micros(lease.at), "until": to_micros(lease.until)}


def _batch(batch: Append) -> Call:
    at = to_micros(batch.at)
    wake_at = None if batch.wake_at is None else to_micros(batch.wake_at)
    call = {
        "run": storable(batch.run_id),
        "epoch": batch.epoch,
        "expected": batch.expected,
        "events": [_event(event) for event in batch.events],
        "at": at,
        "release": batch.release,
        "wake_at": wake_at,
    }
    if (
        batch.children is not None
        or any(event.type in _NOTIFIED for event in batch.events)
        or (batch.release and wake_at is not None and wake_at <= at)
    ):
        call["notify"] = call["run"]
    elif batch.view is not None or batch.parts is not None:
        call["notify"] = f"{SHOWN}{call['run']}"
    if batch.view is not None:
        call["view"] = to_json(batch.view, "view")
    if batch.parts is not None:
        call["parts"] = to_json(batch.parts, "parts")
    if batch.attributes is not None:
        pairs, digest = indexed(batch.attributes)
        call |= {"pairs": pairs, "indexed": digest}
    if batch.unread is None:
        call["keeps_unread"] = True
    elif batch.unread:
        call["unread"] = to_json(batch.unread, "unread")
    if batch.own is not None:
        call |= {"own": own_json(batch.own), "own_pairs": own_pairs(batch.own)}
    if batch.stalled is not None:
        call["stalled"] = storable(batch.stalled)
    if batch.successor is not None:
        call |= {
            "successor": _successor(batch.successor),
            "notify": f"{call['run']} {storable(batch.successor.row.id)}",
        }
    if batch.children is not None:
        request = cancel_request(parent_gave_up(batch.run_id), at, batch.cancel_until)
        call |= {
            "children": [_child(child) for child in batch.children.started],
            "gives_up": list(batch.children.given_up),
            "cancel_request": to_json(request),
            "writes_to_relatives": True,
        }
    return call | _ending(batch.run_id, batch.events, at, batch.cancel_until)


def _child(child: NewRun) -> Call:
    new = child.row
    assert new.parent is not None
    call: Call = {
        "run": storable(new.id),
        "workflow": storable(new.workflow),
        "code": storable(new.code),
        "version": storable(new.version),
        "kind": storable(new.kind),
        "attributes": own_json(new.attributes),
        "data": to_json(child.data, "run_created"),
    }
    return call | _parent(new.parent) | ({"pairs": own_pairs(new.attributes)} if new.attributes else {})


def _ending(run_id: str, events: list[NewEvent], at: int, until: datetime | None) -> Call:
    """Return the status that these events end a run with, if they do, and what its children are asked."""
    ending = next((event.type.removeprefix("run_") for event in events if event.type in ENDINGS), None)
    if ending is None:
        return {}
    request = to_json(cancel_request(parent_ended(run_id), at, until))
    return {"ending": ending, "end_request": request, "writes_to_relatives": True}


def _event(event: NewEvent) -> list[Any]:
    encoded: list[Any] = [event.type, storable(event.key), to_json(event.data, event.type)]
    match event.type:
        case "hook_created":
            encoded.append(_hook(event.data))
        case _ if closed := closed_by(event):
            encoded.append({"closed": closed})
        case _:
            pass
    return encoded


def _hook(data: dict[str, Any]) -> dict[str, Any]:
    answer = data.get("answer")
    hook = {
        "id": storable(data["hook_id"]),
        "number": data["id"],
        "token": storable(data["token"]),
        "is_webhook": answer is not None,
        "has_schema": bool(data.get("has_schema")),
        "answer": None if answer is None else to_json(answer),
        "metadata": to_json(data.get("metadata"), "metadata"),
        "lost": to_json({"id": data["id"], "hook_id": data["hook_id"], "token": data["token"]}),
    }
    return hook | {"adopts": data["adopts"]} if "adopts" in data else hook


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def created(run: NewRun, at: datetime, then: Append | None, answer: Any) -> Created:
    if "run" in answer:
        run_id = as_given(answer["run"])
        return Created(
            run_id, run_id == run.row.id, json.loads(answer["data"])
        )  # the same id again: the first answer was lost
    if then is not None and "then" in answer:
        return Created(run.row.id, True, run.data, then=decided(then, answer["then"]))
    return Created(run.row.id, True, run.data, _claimed_at_once(run, at) if answer["claimed"] else None)


def created_with_hooks(run: NewRun, at: datetime, then: Append | None, answer: Any) -> Created | TokenTaken:
    if "owner" in answer:
        return TokenTaken(as_given(answer["token"]), as_given(answer["owner"]))
    return created(run, at, then, answer)


def _claimed_at_once(run: NewRun, at: datetime) -> Claimed:
    return Claimed(
        Claim(run.row.id, 1),
        run.row._replace(created_at=at, wake_at=at, epoch=1, seq=len(run.events())),
        [Event(seq, event.type, at, event.data) for seq, event in enumerate(run.events(), 1)],
    )


def received(then: Append | None, most: int, answer: Any) -> Received | Full | None:
    if answer is None:
        return None
    if "full" in answer:
        unread, size, seq = answer["full"]
        return why_full(unread, size, seq, most)
    if answer["event"] is None:
        return None
    followed = None if answer.get("then") is None or then is None else decided(then, answer["then"])
    run_id, size, kept = as_given(answer.get("run")), answer.get("size", 0), answer.get("kept", 0)
    recorded = event(answer["event"])
    if followed is not None and then is not None:
        kept = (then.unread or {}).get(recorded.data["id"], 0)
    return Received(recorded, _claimed(answer.get("claimed")), followed, run_id, size, kept)


def was_reset(answer: Any) -> WasReset | Stale | TokenTaken:
    match answer:
        case "stale":
            return Stale()
        case {"token": token, "owner": owner}:
            return TokenTaken(as_given(token), as_given(owner))
        case _:
            return WasReset([event(each) for each in answer["events"]])


def appended(batch: Append, answer: Any) -> Appended | Stale | Fenced:
    match answer:
        case "stale":
            return Stale()
        case "fenced":
            return Fenced()
        case _:
            return Appended(decided(batch, answer))


def decided(batch: Append, answer: Any) -> list[Event]:
    """Return the events as they are in the log: with its time, and with conflicts where a token was taken."""
    at, lost, _ = answer
    when = from_micros(at)
    return [
        Event(seq, new.type, when, new.data)
        if str(seq) not in lost
        else Event(seq, "hook_conflict", when, _conflict(new.data, lost[str(seq)]))
        for seq, new in enumerate(batch.events, batch.expected + 1)
    ]


def _conflict(data: dict[str, Any], owner: str) -> dict[str, Any]:
    return {"id": data["id"], "hook_id": data["hook_id"], "token": data["token"], "owner": owner}


def claims(answer: Any) -> list[Claimed]:
    found = [claimed for each in answer if (claimed := _claimed(each)) is not None]
    return sorted(found, key=lambda claimed: (claimed.row.wake_at is None, claimed.row.wake_at))


def _claimed(answer: Any) -> Claimed | None:
    if answer is None:
        return None
    row = run_row(answer[0])
    try:
        return Claimed(Claim(row.id, row.epoch), row, log(answer[1]), len(answer) > 2 and bool(answer[2]))
    except ValueError as error:  # it stays claimed until its lease ends, so a damaged log can't hold up others
        log_unreadable(row.id, error)
        return None


def run_and_log(answer: Any) -> tuple[RunRecord, Log]:
    row, events = answer
    return run_row(row), log(events)


def log(answers: Any) -> Log:
    """Decode a log's events, faster than one by one: their data in one pass, and each distinct time once."""
    found = json.loads(f"[{','.join([data for *_, data in answers])}]")
    times = {at: from_micros(at) for _, _, at, _ in answers}
    return [Event(seq, type, times[at], data) for (seq, type, at, _), data in zip(answers, found, strict=True)]


def event(answer: Any) -> Event:
    seq, type, at, data = answer
    return Event(seq, type, from_micros(at), json.loads(data))


def run_row(row: Any) -> RunRecord:
    return RunRecord(
        id=as_given(row[0]), workflow=as_given(row[1]), code=as_given(row[2]), version=as_given(row[3]),
        kind=as_given(row[4]), status=row[5], created_at=readable_time(row[6]), ended_at=readable_time(row[7]),
        attributes=readable_attributes(row[8]), seq=row[9], view=readable_json(row[10], object),
        parts=readable_json(row[11], list) or [], stalled=as_given(row[12]), wake_at=readable_time(row[13]),
        epoch=row[14], ending=readable_json(row[15], dict),
        next_run=as_given(row[16]), payload_size=row[17], most_unread=0 if row[18] is None else most_unread(row[18]),
        parent=None if row[19] is None else Parent(*row[19:]),
    )  # fmt: skip


def hook_row(row: Any) -> HookRow:
    return HookRow(
        id=as_given(row[0]), run_id=as_given(row[1]), number=row[2], token=as_given(row[3]), is_webhook=row[4],
        has_schema=row[5], answer=None if row[6] is None else json.loads(row[6]), metadata=json.loads(row[7]),
        created_at=from_micros(row[8]), generation=row[9], is_live=row[10],
    )  # fmt: skip
