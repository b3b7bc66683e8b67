"""The engine's public API: open it, start runs and resume hooks.

What it can be asked is in `reading`, what operators do to runs in `interventions`, its work in `scheduler`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar, overload

from approvals_bot.durable.core import sandbox
from approvals_bot.durable.core.annotations import check_annotations
from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.attributes import Settable, checked_attributes, with_changes
from approvals_bot.durable.core.context import open_engines
from approvals_bot.durable.core.durations import Duration
from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.hooks import WebhookRequest
from approvals_bot.durable.core.idempotency import SentKey, sent_under
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.workflows import refuse_options
from approvals_bot.durable.engine.clock import MovableClock, SystemClock, TimeSource
from approvals_bot.durable.engine.executor import Executor
from approvals_bot.durable.engine.http import Request, Response, accepted, as_webhook_request, response_of, unanswered
from approvals_bot.durable.engine.intake import HookTarget, Intake, KeptPayload
from approvals_bot.durable.engine.interventions import Interventions
from approvals_bot.durable.engine.limits import CANCEL_GRACE, MANUAL_ANSWER, STEP_THREADS, check_grace, check_waiting
from approvals_bot.durable.engine.notifier import Notifier
from approvals_bot.durable.engine.replayer import EntropyPool, Replayer
from approvals_bot.durable.engine.runs import HookInfo, Run
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.engine.starting import StartOrResume, first_hook
from approvals_bot.durable.engine.starts import StartOptions, begins_at
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditEntry, AuditLine, NewLine, Owes
from approvals_bot.durable.store.chain import ChainKey
from approvals_bot.durable.store.protocol import MAX_UNREAD, Claimed, OpenStore, RunRecord
from approvals_bot.durable.tokens import WEBHOOK, Tokens, check_keys
from approvals_bot.errors import (
    ApprovalsBotError,
    HookNotFoundError,
    WorkflowNotFoundError,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Engine(Interventions):
    """The engine that executes workflows while it is open.

    async with Engine.open("sqlite:///runs.db") as engine:
        run = await engine.start(expense, 420)
        paid = await run.return_value()
    """

    def __init__(
        self,
        store: OpenStore,
        *,
        tokens: Tokens | None = None,
        base_url: str | None = None,
        clock: TimeSource | None = None,
        resources: Iterable[Any] | Mapping[type, Any] = (),
        executor: Executor | None = None,
        cancel_grace: float = CANCEL_GRACE,
        max_waiting: int = MAX_UNREAD,
        audit_key: ChainKey | None = None,
        watch: Callable[[str, list[Event]], None] | None = None,
        watch_stalls: Callable[[str], None] | None = None,
        watch_cut_off: Callable[[str], None] | None = None,
        watch_limits: Callable[[str, int], None] | None = None,
        watch_claims: Callable[[Claimed], None] | None = None,
    ) -> None:
        """`watch` is called with a run's ID and the events that this process appends to it, for its metrics.

        `watch_stalls` is called with the workflow of each run that stalls here. `watch_cut_off` is called with the ID
        of each run that fails or is cancelled here or is ended from outside, perhaps before its body could end it
        well, and of each that a reset has made. `watch_limits` is called with the limit and the percentage of each
        warning, `watch_claims` with each run that was due and is taken up here.
        """
        if tokens is not None and tokens.installation != store.installation:
            raise ValueError("these tokens are of another installation: Tokens(…, installation=store.installation)")
        given = resources if isinstance(resources, Mapping) else {type(item): item for item in resources}
        notifier = Notifier(watch, watch_limits, check_waiting(max_waiting))
        scheduler = Scheduler(
            store,
            clock=clock or SystemClock(),
            replayer=Replayer(self.link),
            registry=registry,
            resources=dict(given),
            notifier=notifier,
            executor=executor or Executor(),
            entropy=EntropyPool().draw,
            watch_stalls=watch_stalls,
            watch_cut_off=watch_cut_off,
            watch_claims=watch_claims,
        )
        super().__init__(store, scheduler, notifier, Intake(scheduler, notifier))
        self.replayer = scheduler.replayer
        self.resources = scheduler.resources
        self.schedules = scheduler.schedules
        scheduler.cancel_grace = check_grace(cancel_grace)
        self.audit_key = audit_key
        self.audits_peers = True  # whether lines of the audit keep the network addresses of those who act
        self._tokens = tokens
        store.bearers.tokens = tokens
        self._base_url = base_url.rstrip("/") if base_url else None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        signing_keys: Sequence[str | bytes] = (),
        base_url: str | None = None,
        clock: TimeSource | None = None,
        resources: Iterable[Any] | Mapping[type, Any] = (),
        step_threads: int = STEP_THREADS,
        limits: Mapping[str, int] | None = None,
        cancel_grace: float = CANCEL_GRACE,
        max_waiting: int = MAX_UNREAD,
    ) -> AsyncIterator[Self]:
        """Open the store at this URL and do the background work until the block ends.

            async with Engine.open("sqlite:///runs.db") as engine:
                run = await engine.start(expense, 420)

        Only `create_webhook` needs `signing_keys` (≥ 32 bytes each; the first signs, all verify) and `base_url`.
        `resources` go to the steps that ask for them by type (`resource`). Steps written as `def` run in at most
        `step_threads` threads. `limits={"erp": 5}` lets 5 steps with `@step(limit="erp")` run at a time in this
        process. Runs cancelled through this engine have `cancel_grace` seconds to tidy up. A hook keeps
        `max_waiting` payloads that its workflow doesn't take.

        Raises AnnotationError, which has file and line, if a type in the annotations of a workflow, a step or a hook
        can't be resolved, and UnknownLimitError if a step has a limit that isn't among these.
        """
        check_keys(signing_keys)
        executor = Executor(step_threads, limits)
        check_grace(cancel_grace)
        check_waiting(max_waiting)
        store = await connect(url)
        tokens = Tokens(signing_keys, installation=store.installation) if signing_keys else None
        engine = cls(
            store,
            tokens=tokens,
            base_url=base_url,
            clock=clock,
            resources=resources,
            executor=executor,
            cancel_grace=cancel_grace,
            max_waiting=max_waiting,
        )
        async with engine.running():
            yield engine

    @property
    def max_waiting(self) -> int:
        """How many payloads a hook keeps that its workflow doesn't take."""
        return self.notifier.limits.max_waiting

    @asynccontextmanager
    async def running(self, *, work: bool = True) -> AsyncIterator[Self]:
        """Be this process's open engine, and do the background work (`work=False`: only start, resume and read)."""
        self._loop = asyncio.get_running_loop()
        with sandbox.installed():
            open_engines.append(self)
            if isinstance(self.clock, MovableClock):
                self.clock.attach(self)
            try:
                check_annotations()
                if work:
                    self.scheduler.executor.check_limits()
                    await self.scheduler.start()
                yield self
            finally:
                if isinstance(self.clock, MovableClock):
                    self.clock.detach(self)
                open_engines.remove(self)
                try:
                    await self.scheduler.close()
                finally:  # a second Ctrl-C interrupts that, and the store's threads would keep the process alive
                    self.replayer.close()
                    await self.store.close()
                    self.notifier.wake(None)  # callers that still wait read once more, and find the store closed

    # The overload without options checks the workflow's parameters under mypy and pyright. Python's typing can't
    # express "P and an option" (PEP 612), so each option has an overload in which it is required. There, pyright still
    # checks the parameters, and mypy takes them as Any.

    @overload
    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]: ...
    @overload
    async def start(  # type: ignore[valid-type]  # see above
        self,
        workflow: Workflow[P, R],
        /,
        *args: P.args,
        at: datetime | None,
        delay: Duration | None = None,
        hook_token: str | None = None,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(  # type: ignore[valid-type]  # see above
        self,
        workflow: Workflow[P, R],
        /,
        *args: P.args,
        delay: Duration | None,
        at: datetime | None = None,
        hook_token: str | None = None,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(  # type: ignore[valid-type]  # see above
        self,
        workflow: Workflow[P, R],
        /,
        *args: P.args,
        hook_token: str | None,
        at: datetime | None = None,
        delay: Duration | None = None,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(  # type: ignore[valid-type]  # see above
        self,
        workflow: Workflow[P, R],
        /,
        *args: P.args,
        idempotency_key: str | None,
        at: datetime | None = None,
        delay: Duration | None = None,
        hook_token: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(  # type: ignore[valid-type]  # see above
        self,
        workflow: Workflow[P, R],
        /,
        *args: P.args,
        attributes: Mapping[str, Settable] | None,
        at: datetime | None = None,
        delay: Duration | None = None,
        hook_token: str | None = None,
        idempotency_key: str | None = None,
        **kwargs: P.kwargs,
    ) -> Run[R]: ...
    @overload
    async def start(
        self,
        workflow: str,
        /,
        *args: Any,
        at: datetime | None = None,
        delay: Duration | None = None,
        hook_token: str | None = None,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: Any,
    ) -> Run[Any]: ...
    async def start(  # type: ignore[misc]  # a workflow's parameter may not be named like an option
        self,
        workflow: Workflow[..., Any] | str,
        /,
        *args: Any,
        at: datetime | None = None,
        delay: Duration | None = None,
        hook_token: str | None = None,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: Any,
    ) -> Run[Any]:
        """Start a run. Returns once it is durable. The input is validated before anything is written.

            run = await engine.start(expense, 420, idempotency_key="expense-17")
            paid = await run.return_value()

        A second start with the same idempotency key and arguments returns the same run, also after its end. With other
        arguments it raises IdempotencyConflictError. What is compared is what was given here, without defaults, so a
        release may add an optional parameter or field in between. Attributes and times aren't compared.

        With `at` or `delay`, the run is created now and begins then: it is `pending` until that time, is listed and can
        be cancelled, and survives restarts. Its `now()` begins with that time. A time that has passed is at once.

            await engine.start(remind, "ann", at=datetime(2026, 12, 1, 9, tzinfo=UTC))
            await engine.start(remind, "ann", delay="2 hours")

        With `hook_token`, the run has a hook with this token from its start, so no payload can come too soon. The first
        hook that the workflow creates must have this token; otherwise the run stalls. Payloads that come before wait
        for it, and are checked by its schema then. One that doesn't fit isn't delivered; the log has it, with what is
        wrong (`hook_refused`). Raises HookConflictError, with nothing written, if another live hook has the token.
        """
        options = StartOptions(at, delay, hook_token, idempotency_key, attributes)
        return await self._start(workflow, args, kwargs, options, None)

    async def start_by(
        self,
        actor: Mapping[str, Any] | None,
        workflow: Workflow[..., Any],
        /,
        *args: Any,
        idempotency_key: str | None = None,
        attributes: Mapping[str, Settable] | None = None,
        **kwargs: Any,
    ) -> Run[Any]:
        """Start a run as `start` does, and keep in its log who has started it."""
        options = StartOptions(idempotency_key=idempotency_key, attributes=attributes)
        return await self._start(workflow, args, kwargs, options, actor)

    async def start_owing(
        self, owes: Owes | None, actor: Mapping[str, Any], workflow: Workflow[..., Any], input: Any, /, **more: Any
    ) -> Run[Any]:
        """Start a run as `start_by` does. `owes`: the audit's line of it, stored with the run if that is new."""
        return await self._start(workflow, (input,), {}, StartOptions(**more), actor, owes)

    async def _start(
        self,
        workflow: Workflow[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: StartOptions,
        actor: Mapping[str, Any] | None,
        owes: Owes | None = None,
    ) -> Run[Any]:
        at, delay, hook_token, idempotency_key, attributes = options
        self._here("engine.start()")
        found = registry.newest(workflow) if isinstance(workflow, str) else workflow
        if not isinstance(found, Workflow):
            raise WorkflowNotFoundError(getattr(workflow, "__name__", repr(workflow)))
        given = found.signature.encode_call(args, kwargs)
        own = with_changes({}, checked_attributes(attributes)) if attributes else {}
        key = idempotency_key
        later = None if at is None and delay is None else begins_at(at, delay, self.now())
        claimed = {} if hook_token is None else {"hook_token": hook_token}
        sent = None if key is None else sent_under(key, found.signature, args, kwargs, given) | claimed
        more: dict[str, Any] = {} if actor is None else {"actor": dict(actor)}
        if hook_token is not None:
            more["hooks"] = [first_hook(hook_token, self.scheduler.entropy())]
        created = await self._intake.start(found, given, key, own, sent, later, owes, **more)
        return Run(self, created.run_id, is_new=created.is_new)

    async def deleted_start(self, workflow: Workflow[..., Any], key: SentKey) -> Run[Any] | None:
        """Return the run that this key has started, if it was deleted after its end and not too long ago.

        Raises IdempotencyConflictError if it was started with something else.
        """
        run_id = await self._intake.find_deleted(workflow, dict(key.sent), key)
        return Run(self, run_id) if run_id else None

    async def start_or_resume(
        self,
        token: str,
        payload: Any,
        workflow: Workflow[..., Any] | str,
        /,
        *args: Any,
        resume_id: str | None = None,
        **kwargs: Any,
    ) -> HookInfo:
        """Give a payload to the live hook with this token, or start a run with that hook if there is none.

            await engine.start_or_resume(f"pr-{number}", event, review, number, resume_id=delivery)

        The payload is always delivered, to one run, however many callers there are: the first starts the run, as
        `start(hook_token=token)` does, with the payload in the same transaction. Returns once that is durable. A second
        call with the same `resume_id` and payload delivers nothing and returns what the first did. Raises
        InvalidPayloadError, with nothing written, if the payload doesn't fit; IdempotencyConflictError for another
        payload with the same `resume_id`; HookFullError; HookConflictError if the token is a webhook's.
        """
        self._here("start_or_resume()")
        refuse_options("start_or_resume()", kwargs)
        found = registry.newest(workflow) if isinstance(workflow, str) else workflow
        if not isinstance(found, Workflow):
            raise WorkflowNotFoundError(getattr(workflow, "__name__", repr(workflow)))
        given = found.signature.encode_call(args, kwargs)
        call = StartOrResume(self.scheduler, self._intake, found, given, token, payload, resume_id)
        return HookInfo(await call.deliver())

    # ── resuming ──

    async def resume_hook(
        self,
        token: str,
        payload: Any,
        *,
        resume_id: str | None = None,
        actor: Mapping[str, Any] | None = None,
        owes: Owes | None = None,
        allow: Callable[[RunRecord], Awaitable[None]] | None = None,
    ) -> HookInfo:
        """Give a payload to the live hook with this token. Returns once it is durable.

            await engine.resume_hook("order-17", {"text": "yes"}, resume_id="message-4711")

        A second call with the same `resume_id` and payload delivers nothing and returns what the first did, also after
        the hook's end and when another run has its token. With another payload it raises IdempotencyConflictError.
        Raises HookNotFoundError or InvalidPayloadError; nothing was written then.

        `actor`: who resumes it, for the log. `owes`: the audit's line of it, unless it is a repeat. `allow` is asked
        before anything is written, and raises to refuse.
        """
        self._here("resume_hook()")
        target = await self._intake.open_hook(token, resume_id, is_webhook=False)
        if allow is not None:
            await allow(target.record)
        delivered = await self._intake.receive(target, payload, resume_id, actor, owes)
        return HookInfo(delivered.hook)

    async def resume_webhook(
        self,
        hook: str | HookTarget,
        request: WebhookRequest | Request,
        *,
        timeout: float = MANUAL_ANSWER,
        resume_id: str | None = None,
    ) -> Response:
        """Give a request to a webhook, and return the webhook's answer.

        `hook` is its token, or a target from `find`. Returns a 504 if a manual answer hasn't come within `timeout`
        seconds; the request was accepted all the same. A second call with the same `resume_id` delivers nothing and
        gets the same answer, also after the hook's end. Raises IdempotencyConflictError if its method, URL or body
        differs, HookNotFoundError for a plain hook or one that isn't live.
        """
        until = asyncio.get_running_loop().time() + timeout
        kept = await self.send_to_webhook(hook, request, resume_id=resume_id)
        return await self.answer_to(kept, until - asyncio.get_running_loop().time())

    async def send_to_webhook(
        self,
        hook: str | HookTarget,
        request: WebhookRequest | Request,
        *,
        resume_id: str | None = None,
        actor: Mapping[str, Any] | None = None,
        owes: Owes | None = None,
    ) -> KeptPayload:
        """Give a request to a webhook, as `resume_webhook` does, but return once it is durable.

        `answer_to` then waits for the answer. `actor`: who sent it, for the log, unless the message itself says so.
        `owes`: the line that the audit owes from then on, unless it is a repeat.
        """
        self._here("resume_webhook()")
        target = await self._intake.open_hook(hook, resume_id, is_webhook=True) if isinstance(hook, str) else hook
        if not target.hook.is_webhook:
            raise HookNotFoundError(target.hook.token)
        keep_headers = (target.hook.answer or {}).get("keep_headers", ())
        message = (await as_webhook_request(request)).encode(keep_headers)
        return await self._intake.receive(target, message, resume_id, actor, owes)

    async def answer_to(self, kept: KeptPayload, timeout: float = MANUAL_ANSWER) -> Response:
        """Return a webhook's answer to a request that it was sent. A 504 if a manual one hasn't come in time."""
        match kept.hook.answer:
            case {"mode": "manual"}:
                answer = await self._intake.answer_to(kept, timeout)
                return unanswered() if answer is None else response_of(answer)
            case {"mode": "static", "response": response}:
                return response_of(response)
            case _:
                return accepted()

    @property
    def base_url(self) -> str:
        """The beginning of all URLs; "" if there is none."""
        return self._base_url or ""

    def link(self, hook_id: str) -> str:
        """Return the signed URL of a webhook. Raises ApprovalsBotError without signing keys and a base URL."""
        if self._tokens is None or self._base_url is None:
            raise ApprovalsBotError(
                "A webhook's URL needs signing keys and a base URL: Engine.open(…, signing_keys=[…], base_url='https://…')."
            )
        token = self._tokens.sign(WEBHOOK, {"h": hook_id, "g": 1})
        return f"{self._base_url}/webhooks/{token}"

    async def audit(
        self,
        what: str,
        *,
        actor: Mapping[str, Any],
        who: str | None = None,
        run_id: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> AuditLine:
        """Add a line to the audit, and return it. `who` is meant by it; `actor` is who acted."""
        self._here("audit()")
        entry = self._without_peer(AuditEntry(what, who, run_id, data or {}, dict(actor)))
        return await self.store.audit(entry, self.now(), self.audit_key)

    def audit_line(
        self, what: str, *, actor: Mapping[str, Any], who: str | None = None, data: dict[str, Any] | None = None
    ) -> NewLine:
        """Return a line of the audit, for a write of the store that adds it in the same transaction."""
        entry = self._without_peer(AuditEntry(what, who, None, data or {}, dict(actor)))
        return NewLine(entry, self.now(), self.audit_key)

    async def settle_line(self, owed: str, entries: Iterable[AuditEntry]) -> bool:
        """Add the lines of an act that owes one. Returns whether they were added: of several calls, by the first."""
        self._here("settle_line()")
        lines = [self._without_peer(entry) for entry in entries]
        return await self.store.settle(owed, lines, self.now(), self.audit_key)

    def _without_peer(self, entry: AuditEntry) -> AuditEntry:
        if entry.actor is None or self.audits_peers:
            return entry
        return replace(entry, actor={name: value for name, value in entry.actor.items() if name != "peer"})

    # ── for movable clocks ──

    async def next_wake(self) -> datetime | None:
        """Return when this engine next has something to do without a request."""
        return await self.scheduler.next_wake()

    async def settle(self) -> None:
        """Return once all that is due has been done. A long step is not waited for."""
        await self.scheduler.settle()
