"""The intake of facts from outside: starts of runs, payloads for hooks, cancellations and wake-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.attributes import Attribute
from approvals_bot.durable.core.events import ENDINGS, Event, Log, NewEvent, hooks_of, new_run_id, to_micros
from approvals_bot.durable.core.idempotency import (
    SentKey,
    abridged,
    as_sent,
    difference,
    digest_of_sent,
    find_difference,
    find_difference_of_payload,
)
from approvals_bot.durable.core.serialization import encode, to_json
from approvals_bot.durable.engine.batch import Batch, plan
from approvals_bot.durable.engine.cache import CachedRun
from approvals_bot.durable.engine.lookups import decide_with_lookups
from approvals_bot.durable.engine.near_limits import NEAR_ATTRIBUTES, NEAR_RECEIVED
from approvals_bot.durable.engine.notifier import Notifier, Subscription
from approvals_bot.durable.engine.replayer import INLINE_EVENTS
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.engine.starts import new_run
from approvals_bot.durable.store.audit import Owes
from approvals_bot.durable.store.encoding import storable
from approvals_bot.durable.store.protocol import (
    REPLACED,
    Append,
    Created,
    Full,
    HookRow,
    Lease,
    NewRun,
    Received,
    RunRecord,
    TokenTaken,
)
from approvals_bot.durable.store.retention import key_digest
from approvals_bot.errors import (
    ApprovalsBotError,
    HookConflictError,
    HookFullError,
    HookNotFoundError,
    IdempotencyConflictError,
    LimitExceededError,
    SerializationError,
    StoreUnavailableError,
    WorkflowBugError,
    WorkflowNotFoundError,
)

T = TypeVar("T")
Written = TypeVar("Written", Created, Received)


def encode_unchecked(payload: Any) -> Any:
    """Return a payload as the log keeps it before anybody knows its schema: as plain data, as if it came by HTTP."""
    try:
        encoded = encode(payload, Any, "payload")
    except SerializationError:  # it isn't plain data: a model, perhaps
        encoded = encode(payload, type(payload), "payload")
    to_json(encoded, "payload")
    return encoded


class HookTarget(NamedTuple):
    """The hook that a payload is for, its run, and the run's log if it is short.

    All are from one read. `cached` is set if the run is in the run cache. The target may then be out of date; the write
    detects that.
    """

    hook: HookRow
    record: RunRecord
    log: Log | None
    cached: CachedRun | None = None

    @property
    def whole_log(self) -> Log | None:
        """The run's log as of this read. None if it is long, and isn't cached as it is now."""
        if self.cached is not None and len(self.cached.log) == self.record.seq:
            return self.cached.log
        return self.log


class KeptPayload(NamedTuple):
    """A payload that is in the log: its hook, its event, and the events that were written with it."""

    hook: HookRow
    events: list[Event]


class Intake:
    """The writer of facts from outside, in the process that the scheduler works in."""

    def __init__(self, scheduler: Scheduler, notifier: Notifier) -> None:
        self._scheduler = scheduler
        self._notifier = notifier

    async def start(
        self,
        workflow: Workflow[Any, Any],
        input: dict[str, Any],
        key: str | None,
        attributes: dict[str, Attribute],
        sent: dict[str, Any] | None = None,
        begins_at: datetime | None = None,
        owes: Owes | None = None,
        **more: Any,
    ) -> Created:
        """Create a run with this encoded input, or find the run that has this idempotency key.

        It begins at once, or at `begins_at`. `owes`: the audit's line of it. `sent` is what the caller sent under the
        key, before validation. `more` is added to the data of `run_created`. Raises IdempotencyConflictError if the key
        came with something else before; HookConflictError, if another live hook has the token of one that the run is
        started with; LimitExceededError, SerializationError.
        """
        if key is not None and sent is not None and (deleted := await self.find_deleted(workflow, sent, key)):
            return Created(deleted, False, {})
        new = self.new_run(workflow, input, attributes, **more)._replace(idempotency_key=key, owes=owes)
        if sent is not None and difference({"input": input}, sent, "") is not None:
            new.data["sent"] = abridged(sent)
        if begins_at is not None:
            new = new._replace(row=new.row._replace(wake_at=begins_at))
            new.data["begins_at"] = to_micros(begins_at)
        created = await self.create(new)
        if isinstance(created, TokenTaken):
            raise HookConflictError(created.token, created.owner)
        if not created.is_new and sent is not None:
            _compare_start(created, workflow, sent, key)
        if created.is_new and len(attributes) >= NEAR_ATTRIBUTES:
            self._notifier.limits.begun_with(created.run_id, attributes)
        return created

    async def find_deleted(self, workflow: Workflow[Any, Any], sent: dict[str, Any], key: str) -> str:
        """Return the ID of the run that this key started, if it was deleted not too long ago; else "".

        Raises IdempotencyConflictError if that was started otherwise.
        """
        stub = await self._scheduler.store.stub(key=key_digest(storable(key)))
        if stub is None or stub.key_until is None or stub.key_until <= self._scheduler.clock.now():
            return ""
        if stub.input != digest_of_sent(workflow.name, sent):
            raise IdempotencyConflictError(key, stub.run_id, "the input was another one; the run is no longer kept")
        return stub.run_id

    def new_run(
        self, workflow: Workflow[Any, Any], input: dict[str, Any], attributes: dict[str, Attribute], **more: Any
    ) -> NewRun:
        """Return a run that starts now, not yet created. `more` is added to the data of `run_created`."""
        now = self._scheduler.clock.now()
        return new_run(new_run_id(now, self._scheduler.entropy()), workflow, input, attributes, now, **more)

    async def create(self, new: NewRun) -> Created | TokenTaken:
        """Create a run, or find the one that has its idempotency key, and start working on it."""
        scheduler, row, now = self._scheduler, new.row, new.row.created_at
        lease = scheduler.request_lease() if "begins_at" not in new.data else None
        log = [Event(seq, event.type, now, event.data) for seq, event in enumerate(new.events(), 1)]
        run = None if lease is None else CachedRun(row, log, 0)
        store = scheduler.store
        write = partial(store.create_with_hooks if "hooks" in new.data else store.create, new, now, lease)
        created = await self._finish(self._write(row.id, run, None, lease, now, write))
        assert isinstance(created, Created | TokenTaken)  # only a hook can be missing or full
        return created

    async def receive(
        self,
        target: HookTarget,
        payload: Any,
        resume_id: str | None,
        actor: Mapping[str, Any] | None = None,
        owes: Owes | None = None,
    ) -> KeptPayload:
        """Write a payload. Returns it as it is in the log; for a repeated `resume_id`, as it was the first time.

        `actor`: who sent it, for the log. `owes`: the audit's line of it, unless it is a repeat.
        Raises InvalidPayloadError if it doesn't fit the hook's schema, HookNotFoundError if the hook is closed and
        didn't take this `resume_id` before, IdempotencyConflictError if it came with another payload then.
        """
        if not target.hook.is_live:
            return await self._repeated(target, payload, resume_id)
        key = resume_id or self._scheduler.entropy()[:12].hex()
        named = {} if actor is None else {"actor": dict(actor)}
        encoded = await self._encoded(target, payload)
        also = _also(target, resume_id, payload, encoded) | named
        kept = await self._finish(self._receive(target, encoded, key, also, owes))
        if kept is None and target.cached is not None:  # by now another hook, with another schema, may have the token
            target = await self._read_target(target.hook.token, resume_id, is_webhook=target.hook.is_webhook)
            if not target.hook.is_live:
                return await self._repeated(target, payload, resume_id)
            encoded = await self._encoded(target, payload)
            also = _also(target, resume_id, payload, encoded) | named
            kept = await self._finish(self._receive(target, encoded, key, also, owes))
        if kept is None:
            raise HookNotFoundError(target.hook.token)
        if isinstance(kept, Full):
            raise HookFullError(target.hook.token, target.record.id, kept.limit, kept.maximum)
        if resume_id and kept.events[0].data["payload"] is not encoded:
            _compare(target, resume_id, kept.events[0], payload, encoded)
        return kept

    async def _repeated(self, target: HookTarget, payload: Any, resume_id: str | None) -> KeptPayload:
        """Return the payload that a closed hook took under this `resume_id`. Nothing is written."""
        # Only read: a reset may have opened the hook again meanwhile, and this payload wasn't checked by its schema.
        found = await self._scheduler.store.taken(target.hook.id, resume_id) if resume_id else None
        if found is None or not resume_id:
            raise HookNotFoundError(target.hook.token)
        _compare(target, resume_id, found.event, payload, None)
        return KeptPayload(_in_run(target.hook, found.run_id), [found.event])

    async def record(self, run_id: str, *facts: NewEvent, owes: Owes | None = None) -> list[Event]:
        """Write facts that need no plan: a request to cancel, the end of sleeps. Without any, only wake the run.

        `owes`: the audit's line of them. Returns them as events of the log. A fact is left out if the run has ended, or
        if the log already had another event with its key.
        """
        scheduler = self._scheduler
        found = await scheduler.store.record(run_id, [*facts], scheduler.clock.now(), owes)
        recorded = [event for event in found if (event.type, event.data) in facts]
        self._notifier.notify(run_id, recorded)
        scheduler.wake(run_id)
        return recorded

    async def _receive(
        self, target: HookTarget, payload: Any, key: str, also: dict[str, Any], owes: Owes | None
    ) -> KeptPayload | Full | None:
        """Write an encoded payload. Returns None if the hook is no longer open, Full if that is a payload too many."""
        scheduler, most, hook, record = self._scheduler, self._notifier.limits.max_waiting, target.hook, target.record
        replayed = None if target.cached is None else target.cached.replayed
        is_full = replayed is not None and replayed.unread.get(hook.number, 0) >= most
        # A full hook only asks the store. Planning would cost the run its place in the cache, with every such call.
        now, lease, run = scheduler.clock.now(), None if is_full else scheduler.request_lease(record.id), None
        if lease is not None and target.cached is not None:
            run = scheduler.cache.take(record.id)  # None if another call has taken it
        elif lease is not None and target.log is not None:
            run = CachedRun(record, [*target.log], record.epoch)
        fact = NewEvent("hook_received", {"id": hook.number, "resume_id": key, "payload": payload, **also})
        write = partial(scheduler.store.receive, hook.id, key, payload, now, lease, also=also, owes=owes, most=most)
        received = await self._write(record.id, run, fact, lease, now, write)
        if received is None or isinstance(received, Full):
            return received
        assert isinstance(received, Received)  # only a start claims tokens
        if received.size >= NEAR_RECEIVED or received.kept >= self._notifier.limits.near_waiting:
            self._notifier.limits.received(received.run_id or record.id, received)
        return KeptPayload(_in_run(hook, received.run_id), [received.event, *(received.then or ())])

    async def _write(
        self,
        run_id: str,
        run: CachedRun | None,
        fact: NewEvent | None,
        lease: Lease | None,
        now: datetime,
        write: Callable[[Append | None], Awaitable[Written | Full | TokenTaken | None]],
    ) -> Written | Full | TokenTaken | None:
        """Write a fact, claim its run, and append the decisions it leads to: one transaction, one commit.

        `run` belongs to this call; None if this process can't work on it now. `write` is the store's call. The order:

        1. The caller got the lease from the scheduler first. If the store's answer is lost, this process may hold a
           claim that it doesn't know of. The scheduler then looks for work again when that lease ends.
        2. The plan is made before anything is written, from a log that may be out of date. So the store appends it only
           if the log has the length and the epoch that were planned for. Otherwise it writes the fact alone, with the
           claim, and an activation decides again. A wrong guess costs a replay, never a wrong decision.
        3. Nothing has had an effect so far. Steps start after the commit, in the activation.
        4. Subscribers are notified last, so they find in the store what they are notified of.
        """
        scheduler = self._scheduler
        try:
            batch = None if run is None else self._plan(run, fact, now)
            try:
                written = await write(None if batch is None else batch.append)
            except (LimitExceededError, SerializationError):
                if batch is None:
                    raise
                written = await write(None)  # the activation gets the same error and ends the run with it
        except BaseException:
            if run is not None:
                run.close()
            raise
        scheduler.lease_settled(lease)
        if written is None or isinstance(written, Full | TokenTaken):
            if run is not None:
                run.close()
            return written
        events = [written.event] if isinstance(written, Received) else []
        if written.then is not None and run is not None and batch is not None:
            events += written.then
            scheduler.adopt(run, batch, events)
        else:
            if run is not None:
                run.close()
            if written.claimed is not None:
                scheduler.activate(written.claimed)
            else:
                scheduler.wake(written.run_id or run_id)
        self._notifier.notify(run_id, events, None if batch is None else batch.append.own)
        return written

    def _plan(self, run: CachedRun, fact: NewEvent | None, now: datetime) -> Batch | None:
        """Decide what the run would do next if `fact` were appended, without writing anything.

        Returns None when that can't be decided inline: the code isn't here, has drifted or takes too long. An
        activation then decides, and reports what is wrong.
        """
        if run.index.cancellation is not None and run.index.has_no_time(now):
            return None
        try:
            log = run.log if fact is None else plan(run.log, [fact], now)
            outcome = self._scheduler.replay_of(run).at_once(log)
            until, resources = now + self._scheduler.cancel_grace, self._scheduler.resources
            append = Append(run.row.id, run.epoch + 1, len(log), [], now, cancel_until=until)
            if outcome is None or outcome.continued:
                return None
            return decide_with_lookups(run, append, log, outcome, resources)
        except Exception:  # noqa: BLE001  # the activation gets the same error and records it
            return None

    async def _finish(self, writing: Coroutine[Any, Any, T]) -> T:
        """Finish a write even if its caller is cancelled.

        The write may have claimed a run, and nobody would work on that until its lease ends.
        """
        task = asyncio.get_running_loop().create_task(writing)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._scheduler.keep_task(task)
            task.add_done_callback(_ignore_outcome)
            raise

    # ── which hook a payload is for ──

    async def open_hook(self, token: str, resume_id: str | None, *, is_webhook: bool) -> HookTarget:
        """Return the open hook with this token, or the closed one that had it and took this `resume_id`.

        Raises HookNotFoundError unless there is one of this kind.
        """
        if not resume_id:
            cached = self._scheduler.cache.by_token(token)
            if cached is not None and cached[1].is_webhook == is_webhook:
                run, hook = cached
                return HookTarget(hook, run.row, None, run)
        return await self._read_target(token, resume_id, is_webhook=is_webhook)

    async def _read_target(self, token: str, resume_id: str | None, *, is_webhook: bool) -> HookTarget:
        """Read the hook from the store: only that knows which runs had the token before."""
        cached = self._scheduler.cache.by_token(token)
        most = INLINE_EVENTS if cached is None else 0
        found = await self._scheduler.store.look(most, token=token, resume_id=resume_id)
        if found is None or found[0].is_webhook != is_webhook:
            raise HookNotFoundError(token)
        hook, record, log = found
        return HookTarget(hook, record, log, cached[0] if cached is not None and cached[1].id == hook.id else None)

    async def _encoded(self, target: HookTarget, payload: Any) -> Any:
        """Return the payload as the log keeps it, validated against the hook's schema."""
        if target.hook.number < 0 and not target.hook.has_schema:
            return encode_unchecked(payload)
        schema = (await self._schema(target) or type(payload)) if target.hook.has_schema else Any
        encoded = encode(payload, schema, "payload")
        to_json(encoded, "payload")
        return encoded

    async def _schema(self, target: HookTarget) -> Any:
        """Return the hook's schema, as the workflow's code has it now.

        Returns None if that code isn't here or has drifted. The payload is then validated when it is delivered.
        """
        record, log = target.record, target.log
        try:
            workflow = self._scheduler.registry.get(record.code, record.version)
        except WorkflowNotFoundError:
            return None
        replayed = None if target.cached is None else target.cached.replayed
        if replayed is not None and replayed.workflow is workflow and replayed.schemas is not None:
            return replayed.schemas.get(target.hook.number)
        if log is None:
            found = await self._scheduler.store.read(record.id)
            log = [] if found is None else found[1]
        try:
            outcome = await self._scheduler.replayer.replay(workflow, log, b"")
        except WorkflowBugError as bug:
            return bug.schemas.get(target.hook.number)
        except ApprovalsBotError:
            return None
        return outcome.schemas.get(target.hook.number)

    # ── answers of manual webhooks ──

    async def answer_to(self, kept: KeptPayload, seconds: float) -> dict[str, Any] | None:
        """Wait for the workflow's answer to this request, for at most `seconds`.

        If the run continues as a new one before it has read the request, that one may answer. Returns None when the
        time is up, when the run has ended without an answer or has stalled, or when the store is unavailable.
        """
        run_id, seq, log = kept.hook.run_id, kept.events[0].seq, kept.events
        row: RunRecord | None = None
        subscription = Subscription(self._notifier, run_id, None, self._scheduler.poll, ENDINGS | {"hook_responded"})
        with suppress(TimeoutError, StoreUnavailableError), subscription:
            async with asyncio.timeout(seconds):
                while True:
                    for event in log:
                        if event.type == "hook_responded" and event.data["to"] == seq:
                            answer: dict[str, Any] = event.data["answer"]
                            return answer
                    if row is not None:
                        if row.status in REPLACED and row.next_run is not None:
                            moved = await self._moved_payload(row.next_run, kept)
                            return None if moved is None else await self.answer_to(moved, seconds)
                        is_due = row.wake_at is not None and row.wake_at <= self._scheduler.clock.now()
                        if row.has_ended or (row.status == "stalled" and not is_due):
                            return None  # a stalled run that is due is about to be tried with this payload
                        await subscription.changed()
                    found = await self._scheduler.store.read(run_id, after=seq)
                    if found is None:
                        return None
                    row, log = found
        return None

    async def _moved_payload(self, run_id: str, kept: KeptPayload) -> KeptPayload | None:
        """Return a payload as it is in the log of the run in the place of its own. None if it was read before."""
        found = await self._scheduler.store.read(run_id)
        log = [] if found is None else found[1]
        numbers = {hook.number for hook in hooks_of(log) if hook.id == kept.hook.id} if log else set()
        resume_id = kept.events[0].data["resume_id"]
        for event in log:
            if event.type == "hook_received" and event.data["id"] in numbers and event.data["resume_id"] == resume_id:
                return KeptPayload(kept.hook._replace(run_id=run_id), log[event.seq - 1 :])
        return None


def _in_run(hook: HookRow, run_id: str | None) -> HookRow:
    """Return a hook as that of the run whose log has its payload: another one than was read, if it has moved."""
    return hook if run_id is None else hook._replace(run_id=run_id)


def _ignore_outcome(task: asyncio.Task[Any]) -> None:
    """Mark the task's error as retrieved: its caller was cancelled."""
    if not task.cancelled():
        task.exception()


def _also(target: HookTarget, resume_id: str | None, payload: Any, encoded: Any) -> dict[str, Any]:
    """Return what a `hook_received` has beside the payload.

    `raw` says that nobody knows the hook's schema yet. For comparing a repeat, `sent` is what was sent, where that
    isn't the payload.
    """
    hook = target.hook
    raw = {"raw": True} if hook.number < 0 and not (hook.has_schema or hook.is_webhook) else {}
    if not resume_id or (hook.is_webhook and not isinstance(resume_id, SentKey)):
        return raw
    sent = resume_id.sent if isinstance(resume_id, SentKey) else as_sent(payload, encoded)
    return raw if difference(encoded, sent, "") is None else raw | {"sent": abridged(sent)}


def _compare_start(created: Created, workflow: Workflow[Any, Any], sent: dict[str, Any], key: str | None) -> None:
    """Raise IdempotencyConflictError if the run that has this key was started otherwise."""
    differs = find_difference(created.data, workflow.name, sent)
    if differs is not None:
        raise IdempotencyConflictError(key or "", created.run_id, differs)


def _compare(target: HookTarget, resume_id: str, first: Event, payload: Any, encoded: Any) -> None:
    """Raise IdempotencyConflictError if a payload isn't the one that came first with this `resume_id`."""
    sent = resume_id.sent if isinstance(resume_id, SentKey) else as_sent(payload, encoded)
    differs = find_difference_of_payload(first.data, sent)
    if differs is not None:
        raise IdempotencyConflictError(resume_id, target.record.id, differs)
