"""Payloads from outside: which hook they are for, whether they fit, and what the caller is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from starlette.responses import Response

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import ENDINGS, Event, Log, NewEvent
from approvals_bot.durable.core.serialization import encode, to_json
from approvals_bot.durable.engine.cache import CachedRun
from approvals_bot.durable.engine.http import response_of
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.replayer import INLINE_EVENTS
from approvals_bot.durable.engine.runs import RunRecord
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.protocol import ENDED, Append, HookRow, RunRow
from approvals_bot.errors import (
    ApprovalsBotError,
    HookNotFoundError,
    IdempotencyConflictError,
    LimitExceededError,
    SerializationError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)

T = TypeVar("T")


class HookTarget(NamedTuple):
    """What a payload is for: a hook, its run, and its log if that is short, all as they were in one look; or as this
    process remembers the run, which may be out of date."""

    hook: HookRow
    row: RunRow
    log: Log | None
    remembered: CachedRun | None = None

    @property
    def record(self) -> RunRecord:
        """The run as it was then."""
        return RunRecord.of(self.row)


class Taken(NamedTuple):
    """Which hook has taken a payload; the payload as it stands in the log, and what followed from it in the same
    breath."""

    hook: HookRow
    events: list[Event]


class Receiver:
    """Takes payloads, for the process that the scheduler works in."""

    def __init__(self, scheduler: Scheduler, news: Notifier) -> None:
        self._scheduler = scheduler
        self._news = news

    async def find(self, hook_id: str) -> HookTarget | None:
        """The hook of this id, live or not."""
        remembered = self._scheduler.remembered.of_hook(hook_id)
        found = await self._scheduler.store.look(0 if remembered else INLINE_EVENTS, hook_id=hook_id)
        return None if found is None else HookTarget(*found, remembered)

    async def target(self, token: str, *, is_webhook: bool) -> HookTarget:
        """HookNotFoundError unless a hook of this kind is open."""
        known = self._scheduler.remembered.by_token(token)
        if known is not None and known[1].is_webhook == is_webhook:
            run, hook = known
            return HookTarget(hook, run.row, None, run)
        return await self._look(token, is_webhook=is_webhook)

    async def _look(self, token: str, *, is_webhook: bool) -> HookTarget:
        found = await self._scheduler.store.look(INLINE_EVENTS, token=token)
        if found is None or found[0].is_webhook != is_webhook:
            raise HookNotFoundError(token)
        return HookTarget(*found)

    async def receive(self, target: HookTarget, payload: Any, resume_id: str | None) -> Taken:
        """Write the payload.

        InvalidPayloadError if it doesn't fit the hook's schema; HookNotFoundError if the hook has been closed
        meanwhile; IdempotencyConflictError.
        """
        resume_id = resume_id or self._scheduler.entropy()[:12].hex()
        encoded = await self._encoded(target, payload)
        events = await self._scheduler.to_its_end(self._write(target, encoded, resume_id))
        if events is None and target.remembered is not None:  # another hook may have this token by now, and its schema
            target = await self._look(target.hook.token, is_webhook=target.hook.is_webhook)
            encoded = await self._encoded(target, payload)
            events = await self._scheduler.to_its_end(self._write(target, encoded, resume_id))
        if events is None:
            raise HookNotFoundError(target.hook.token)
        if events[0].data["payload"] != encoded:
            raise IdempotencyConflictError(resume_id, target.row.id, "the payload differs from the first one")
        return Taken(target.hook, events)

    async def _encoded(self, target: HookTarget, payload: Any) -> Any:
        """The payload as the log keeps it."""
        schema = await self._schema(target) if target.hook.has_schema else None
        encoded = encode(payload, Any if schema is None else schema, "payload")
        to_json(encoded, "payload")
        return encoded

    async def _write(self, target: HookTarget, payload: Any, resume_id: str) -> list[Event] | None:
        scheduler, hook = self._scheduler, target.hook
        run_id = target.row.id
        now = scheduler.now()
        lease = scheduler.ask(run_id)
        run = self._ours(target) if lease is not None else None
        turn = then = None
        try:
            if run is not None:
                fact = NewEvent("hook_received", {"id": hook.number, "resume_id": resume_id, "payload": payload})
                workflow = self._workflow(run.row)
                turn = run.ahead(fact, workflow, scheduler.replayer, now, scheduler.entropy)
                then = None if turn is None else turn.append(run_id, run.epoch + 1, len(run.log) + 1, now)
            write = partial(scheduler.store.receive, hook.id, resume_id, payload, now, lease)
            received = await together(write, then)
        except BaseException:
            if run is not None:
                run.close()
            raise
        scheduler.answered(lease)
        if run is not None and turn is not None and received is not None and received.then is not None:
            events = [received.event, *received.then]
            scheduler.go_on(run, turn, events)
            return events
        if run is not None:
            run.close()
        if received is None:
            return None
        if received.claimed is not None:
            scheduler.begin(received.claimed)
        else:
            scheduler.tell(run_id, [received.event])
        return [received.event]

    def _ours(self, target: HookTarget) -> CachedRun | None:
        """The run, for us alone: what is remembered may have been taken by somebody else in between."""
        if target.remembered is not None:
            return self._scheduler.remembered.take(target.row.id)
        return None if target.log is None else CachedRun(target.row, [*target.log], target.row.epoch)

    async def answer(self, taken: Taken, seconds: float) -> Response:
        """The workflow's answer to this request; 504 when the time is up, or the store can't tell: it was taken."""
        with suppress(TimeoutError, StoreUnavailableError):
            async with asyncio.timeout(seconds):
                answer = await self._answer_to(taken)
            if answer is not None:
                return response_of(answer)
        return Response("The request was received, but not answered.\n", 504, media_type="text/plain")

    async def _answer_to(self, taken: Taken) -> dict[str, Any] | None:
        """None: the run has ended without one."""
        run_id, seq = taken.hook.run_id, taken.events[0].seq
        with self._news.of(run_id, None, self._scheduler.patience, ENDINGS | {"hook_responded"}) as news:
            answer = _answer_in(taken.events, seq)
            while answer is None:
                found = await self._scheduler.store.read(run_id, after=seq)
                answer = None if found is None else _answer_in(found[1], seq)
                if answer is None and (found is None or found[0].status in ENDED):
                    return None
                if answer is None:
                    await news.next()
            return answer

    async def _schema(self, target: HookTarget) -> Any:
        """The hook's schema, as the workflow's code has it now. None if that code is not here, or has drifted: then the
        payload is checked when it is delivered."""
        workflow, log, run = self._workflow(target.row), target.log, target.remembered
        if workflow is None:
            return None
        if run is not None and run.schemas is not None and run.is_of(workflow):
            return run.schemas.get(target.hook.number)
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


def _answer_in(log: Log, seq: int) -> dict[str, Any] | None:
    """The answer to the request that is this event."""
    for event in log:
        if event.type == "hook_responded" and event.data["to"] == seq:
            answer: dict[str, Any] = event.data["answer"]
            return answer
    return None


async def together(write: Callable[[Append | None], Awaitable[T]], then: Append | None) -> T:
    """Write, with what follows if that can be kept; if not, the run hears of it when it is worked on."""
    try:
        return await write(then)
    except (LimitExceededError, SerializationError):
        if then is None:
            raise
        return await write(None)
