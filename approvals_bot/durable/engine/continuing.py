"""Runs that continue as new ones: what the next run begins with.

Pure: the store writes it in the transaction that ends the old run.
"""

from __future__ import annotations

import platform
from typing import Any

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.continuing import Continuation, MovingHook
from approvals_bot.durable.core.events import Event, Log, NewEvent, children_of
from approvals_bot.durable.core.serialization import encode
from approvals_bot.durable.engine.batch import Batch
from approvals_bot.durable.engine.limits import MAX_MOVED
from approvals_bot.durable.store.protocol import RunRecord, Successor
from approvals_bot.errors import LimitExceededError


def with_successor(batch: Batch, row: RunRecord, log: Log, newest: Workflow[Any, Any], new_id: str) -> Batch:
    """Add the next run to a batch that ends this one as continued.

    The next run is on the workflow's `newest` version, like every run that begins. Raises DeserializationError or
    InvalidPayloadError if that can't take the input, LimitExceededError if too much would move.
    """
    continued, append = batch.outcome.continued, batch.append
    assert continued is not None
    end = append.events[-1]
    newest.signature.decode_call(end.data["input"])
    at = max(append.at, log[-1].at)
    moves = _Moves(log, continued)
    data = _created(log[0], newest, new_id, end.data["input"], continued) | moves.listed()
    begun = [NewEvent("run_created", data), *moves.facts()]
    events = [Event(seq, event.type, at, event.data) for seq, event in enumerate(begun, 1)]
    new = row._replace(
        id=new_id, version=newest.version, kind=newest.kind, status="pending", created_at=at, ended_at=None,
        attributes=dict(continued.attributes), seq=len(events), view=None, parts=[], stalled=None, ending=None,
        next_run=None,
    )  # fmt: skip
    successor = Successor(new, events, row.id, moves.unread())
    ended = [*append.events[:-1], NewEvent("run_continued", {"next": new_id, **end.data})]
    # Lists find the next run by what its projection shows, and no longer this one.
    append = append._replace(events=ended, attributes=append.attributes and {}, successor=successor)
    return batch._replace(append=append)


def _created(
    first: Event, newest: Workflow[Any, Any], new_id: str, input: dict[str, Any], continued: Continuation
) -> dict[str, Any]:
    """Return the data of the next run's first event, but for what moves to it.

    `sent` is what the idempotency key came with: the key moves, so a repeat of that start finds the next run.
    """
    was = first.data
    continues = {"run_id": was["run_id"], "first": was.get("continues", {}).get("first", was["run_id"])}
    data: dict[str, Any] = {
        "run_id": new_id,
        "workflow": was["workflow"],
        "input": input,
        "python": platform.python_version(),
        "continues": continues,
        "sent": was.get("sent", {"input": was["input"]}),
    }
    if continued.attributes:
        data["attributes"] = encode(continued.attributes)
    if newest.version is not None:
        data["version"] = newest.version
    if "settings" in was:
        data["settings"] = was["settings"]
    return data


class _Moves:
    """The open hooks and children that move to the next run, where they have negative numbers."""

    def __init__(self, log: Log, continued: Continuation) -> None:
        self._log = log
        self._hooks: dict[int, MovingHook] = {-place: hook for place, hook in enumerate(continued.hooks, 1)}
        children = enumerate(children_of(log), len(self._hooks) + 1)
        self._children = {-place: child.run_id for place, child in children}
        count = len(self._hooks) + len(self._children)
        if count > MAX_MOVED:
            raise LimitExceededError("open hooks and children of a run that continues", MAX_MOVED, count, "of them")

    def listed(self) -> dict[str, Any]:
        """Return how `run_created` names them."""
        hooks = [_reserved(number, hook) for number, hook in self._hooks.items()]
        children = [{"id": number, "run_id": run_id} for number, run_id in self._children.items()]
        return ({"hooks": hooks} if hooks else {}) | ({"children": children} if children else {})

    def facts(self) -> list[NewEvent]:
        """Return what came to this run and is for the next: a request to cancel it, and unread payloads in order."""
        asked = [NewEvent(event.type, event.data) for event in self._log if str(event.type) == "cancel_requested"]
        unread = {seq: number for number, hook in self._hooks.items() for seq in hook.unread}
        payloads = [
            NewEvent("hook_received", self._log[seq - 1].data | {"id": number})
            for seq, number in sorted(unread.items())
        ]
        return [*asked, *payloads]

    def unread(self) -> dict[int, int]:
        return {number: len(hook.unread) for number, hook in self._hooks.items() if hook.unread}


def _reserved(number: int, hook: MovingHook) -> dict[str, Any]:
    data: dict[str, Any] = {"id": number, "hook_id": hook.hook_id, "token": hook.token}
    if hook.answer is not None:
        data["answer"] = dict(hook.answer)
    if hook.is_first:
        data["first"] = True
    return data
