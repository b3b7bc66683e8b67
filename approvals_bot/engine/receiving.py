"""Payloads from outside: which hook they are for, whether they fit, and what the caller is answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.events import ENDINGS, Event, Log, NewEvent
from approvals_bot.core.values import encode, to_json
from approvals_bot.engine.ahead import decided_ahead, together
from approvals_bot.engine.http import response_of
from approvals_bot.engine.news import News
from approvals_bot.engine.replaying import INLINE_EVENTS
from approvals_bot.engine.runs import RunRecord
from approvals_bot.engine.scheduling import Scheduler
from approvals_bot.engine.turn import draft
from approvals_bot.errors import (
    ApprovalsBotError,
    HookNotFoundError,
    IdempotencyConflictError,
    WorkflowNotFoundError,
)
from approvals_bot.store import ENDED, Claim, Claimed, HookRow, RunRow


@dataclass(frozen=True, slots=True)
class Target:
    """What a payload is for: a hook, its run, and its log if that is short, all as they were in one look."""

    hook: HookRow
    row: RunRow
    log: Log | None

    @property
    def record(self) -> RunRecord:
        """The run as it was then."""
        return RunRecord.of(self.row)


class Receiver:
    """Takes payloads, for the process that the scheduler works in."""

    def __init__(self, scheduler: Scheduler, news: News) -> None:
        self._scheduler = scheduler
        self._news = news

    async def find(self, hook_id: str) -> Target | None:
        """The hook of this id, live or not."""
        found = await self._scheduler.store.look(INLINE_EVENTS, hook_id=hook_id)
        return None if found is None else Target(*found)

    async def target(self, token: str, *, is_webhook: bool) -> Target:
        """HookNotFoundError unless a hook of this kind is open."""
        found = await self._scheduler.store.look(INLINE_EVENTS, token=token)
        if found is None or found[0].is_webhook != is_webhook:
            raise HookNotFoundError(token)
        return Target(*found)

    async def encoded(self, target: Target, payload: Any) -> Any:
        """The payload as the log keeps it. InvalidPayloadError if it doesn't fit the hook's schema."""
        schema = await self._schema(target) if target.hook.has_schema else None
        return encode(payload, Any if schema is None else schema, "payload")

    async def receive(self, target: Target, payload: Any, resume_id: str | None) -> list[Event]:
        """Write the payload. Gives it as it stands in the log, and what followed from it in the same breath.

        HookNotFoundError if the hook has been closed meanwhile; IdempotencyConflictError.
        """
        scheduler, hook, row = self._scheduler, target.hook, target.row
        to_json(payload, "payload")
        resume_id = resume_id or scheduler.entropy()[:12].hex()
        fact = NewEvent("hook_received", {"id": hook.number, "resume_id": resume_id, "payload": payload})
        now = scheduler.now()
        with scheduler.asking(row.id) as lease:
            log = [] if lease is None or target.log is None else draft(target.log, [fact], now)
            with decided_ahead(scheduler.replayer, self._workflow(row), log, now, scheduler.entropy()) as ahead:
                then = ahead.append(row.id, row.epoch + 1, row.seq + 1, now)
                write = partial(scheduler.store.receive, hook.id, resume_id, payload, now, lease)
                received = await together(write, then)
                events = [] if received is None else [received.event, *(received.then or [])]
                if received is not None and target.log is not None and received.then is not None:
                    claimed = Claimed(Claim(row.id, row.epoch + 1), row, [*target.log, *events])
                    scheduler.go_on(claimed, ahead, events)
        if received is None:
            raise HookNotFoundError(hook.token)
        if received.claimed is not None:
            scheduler.begin(received.claimed)
        elif received.then is None:
            scheduler.tell(row.id, events)
        if received.event.data["payload"] != payload:
            raise IdempotencyConflictError(resume_id, hook.run_id, "the payload differs from the first one")
        return events

    async def answer(self, run_id: str, received: list[Event], seconds: float) -> Response:
        """The workflow's answer to this request, or 504 when the time is up."""
        seq = received[0].seq
        with self._news.of(run_id, seconds, self._scheduler.patience, ENDINGS | {"hook_responded"}) as news:
            later = received[1:]
            while True:
                for event in later:
                    if event.type == "hook_responded" and event.data["to"] == seq:
                        return response_of(event.data["answer"])
                found = await self._scheduler.store.read(run_id, after=seq)
                row, later = found if found is not None else (None, [])
                if any(event.type == "hook_responded" and event.data["to"] == seq for event in later):
                    continue
                if row is None or row.status in ENDED or not await news.next():
                    return Response("The request was received, but not answered.\n", 504, media_type="text/plain")

    async def _schema(self, target: Target) -> Any:
        """The hook's schema, as the workflow's code has it now. None if that code is not here, or has drifted: then the
        payload is checked when it is delivered."""
        log, workflow = target.log, self._workflow(target.row)
        if workflow is None:
            return None
        if log is None:
            found = await self._scheduler.store.read(target.row.id)
            log = [] if found is None else found[1]
        try:
            outcome = await self._scheduler.replayer.replay(workflow, log, b"")
        except ApprovalsBotError:
            return None
        return outcome.schemas.get(target.hook.number)

    def _workflow(self, row: RunRow) -> Workflow[Any, Any] | None:
        try:
            return self._scheduler.registry.get(row.code, row.version)
        except WorkflowNotFoundError:
            return None
