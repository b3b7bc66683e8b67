"""Starting, resuming, cancelling and asking about runs; the work itself is in `activation`."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, ParamSpec, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from approvals_bot.core.authoring import Workflow
from approvals_bot.core.current import in_workflow, open_engines
from approvals_bot.core.events import ENDINGS, Event, NewEvent, to_micros
from approvals_bot.core.registry import registry
from approvals_bot.core.requests import WebhookRequest, decode_body
from approvals_bot.core.values import decode, encode, to_json
from approvals_bot.engine.activation import PATIENCE, Activation
from approvals_bot.engine.chance import Random
from approvals_bot.engine.clock import Clock, MovableClock, SystemClock
from approvals_bot.engine.limits import (
    CLOSING,
    LEASE,
    MANUAL_ANSWER,
    MAX_ACTIVE,
    POLL,
    RETRY_STORE,
    check_attributes,
)
from approvals_bot.engine.news import News
from approvals_bot.engine.replaying import Replayer
from approvals_bot.engine.runs import NO_EVENTS, HookInfo, Page, Run, RunRecord
from approvals_bot.errors import (
    ApprovalsBotError,
    HookNotFoundError,
    IdempotencyConflictError,
    NotInWorkflowError,
    RunEndedError,
    RunNotFoundError,
    StoreUnavailableError,
    WorkflowNotFoundError,
)
from approvals_bot.store import (
    ENDED,
    AuditEntry,
    AuditLine,
    Claimed,
    Filter,
    HookRow,
    Lease,
    NewRun,
    OpenStore,
    RunRow,
    Status,
    connect,
)
from approvals_bot.tokens import Tokens

logger = logging.getLogger("approvals_bot.engine")

P = ParamSpec("P")
R = TypeVar("R")

WEBHOOK_PURPOSE = "webhook.v1"


class Engine:
    """Executes workflows while it is open. Make one with `async with Engine.open(url) as engine`."""

    def __init__(
        self,
        store: OpenStore,
        *,
        tokens: Tokens | None = None,
        base_url: str | None = None,
        clock: Clock | None = None,
        resources: Iterable[Any] | Mapping[type, Any] = (),
        watch: Callable[[list[Event]], None] | None = None,
    ) -> None:
        """`watch` sees the events that this process appends, for its metrics."""
        self.store = store
        self.clock: Clock = clock or SystemClock()
        self.registry = registry
        self.resources: dict[type, Any] = (
            dict(resources) if isinstance(resources, Mapping) else {type(item): item for item in resources}
        )
        self.replayer = Replayer(self.link)
        self._tokens = tokens
        self._base_url = base_url.rstrip("/") if base_url else None
        self._owner = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._news = News(watch)
        self._nudge = asyncio.Event()
        self._progress = asyncio.Event()
        self._active: dict[str, tuple[Activation, asyncio.Task[None]]] = {}
        self._leased_until: datetime | None = None
        self._unanswered: list[datetime] = []  # when claims end whose answer has not come, or was lost
        self._known_code = self.registry.additions
        self._kept: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = CLOSING
        self._is_closing = False
        self._is_full = False  # there was no room for a run; when there is, somebody has to look
        self._random = Random()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        *,
        signing_keys: Sequence[str | bytes] = (),
        base_url: str | None = None,
        clock: Clock | None = None,
        resources: Iterable[Any] | Mapping[type, Any] = (),
    ) -> AsyncIterator[Self]:
        """Open the store of this URL and run the background work until the block ends.

        Keys (≥ 32 bytes; the first signs, all verify) and base URL are needed only by `create_webhook`. `resources` are
        given to steps that ask for them by type.
        """
        tokens = Tokens(signing_keys) if signing_keys else None
        store = await connect(url)
        engine = cls(store, tokens=tokens, base_url=base_url, clock=clock, resources=resources)
        async with engine.running():
            yield engine

    @asynccontextmanager
    async def running(self, *, work: bool = True) -> AsyncIterator[Self]:
        """Be the process's open engine, and do the background work (`work=False`: only start, resume and look)."""
        open_engines.append(self)
        if isinstance(self.clock, MovableClock):
            self.clock.attach(self)
        try:
            if work:
                # Before anything is claimed: it frees the leases of the dead.
                await self._until_it_works(self.store.begin_work)
                self._tasks = [
                    asyncio.create_task(self._schedule(), name="engine: schedule"),
                    asyncio.create_task(self._renew(), name="engine: renew leases"),
                ]
            yield self
        finally:
            if isinstance(self.clock, MovableClock):
                self.clock.detach(self)
            open_engines.remove(self)
            await self._close()

    def now(self) -> datetime:
        return self.clock.now()

    # ── starting ──

    async def start(
        self,
        workflow: Workflow[P, R] | str,
        *args: Any,
        idempotency_key: str | None = None,
        attributes: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Run[R]:
        """Start a run; return when it is durable. Input is validated before anything is written.

        The same idempotency key with the same input gives the same run, with other input IdempotencyConflictError.
        """
        _outside("engine.start()")
        found = registry.newest(workflow) if isinstance(workflow, str) else workflow
        if not isinstance(found, Workflow):
            raise WorkflowNotFoundError(getattr(workflow, "__name__", repr(workflow)))
        run_id = f"run_{to_micros(self.now()) // 1000:011x}{self.entropy()[:8].hex()}"
        given = check_attributes(attributes or {})
        data: dict[str, Any] = {
            "run_id": run_id,
            "workflow": found.name,
            "input": found.signature.encode_call(args, kwargs),
            "python": platform.python_version(),
        }
        if given:
            data["attributes"] = given
        if found.version is not None:
            data["version"] = found.version
        if found.signature.takes_bound:
            data["settings"] = found.settings
        to_json(data, "the input")
        new = NewRun(run_id, found.name, found.code, found.version, data, idempotency_key, given)
        with self._asking() as lease:
            created = await self.store.create(new, self.now(), lease)
        self._begin(created.claimed)
        if not created.is_new:
            difference = _difference(created.data, data)
            if difference is not None:
                raise IdempotencyConflictError(idempotency_key or "", created.run_id, difference)
        if created.claimed is None:
            self._nudge.set()
        return Run(self, created.run_id, is_new=created.is_new)

    # ── resuming ──

    async def resume_hook(self, token: str, payload: Any, *, resume_id: str | None = None) -> HookInfo:
        """Give a payload to a hook; return when it is durable. HookNotFoundError, InvalidPayloadError: nothing was
        written.

        The same `resume_id` twice is one payload.
        """
        _outside("resume_hook()")
        hook = await self.store.hook(token=token)
        if hook is None or hook.is_webhook:
            raise HookNotFoundError(token)
        schema = await self._schema(hook) if hook.has_schema else None
        encoded = encode(payload, Any if schema is None else schema, "payload")
        await self._receive(hook, encoded, resume_id)
        return HookInfo.of(hook)

    async def resume_webhook(
        self, token: str, request: WebhookRequest | Request, *, timeout: float = MANUAL_ANSWER
    ) -> Response:
        """Give a request to a webhook, and answer as it was created to.

        A manual answer that doesn't come within `timeout` seconds is a 504; the request was taken all the same.
        HookNotFoundError for the token of a plain hook, too.
        """
        _outside("resume_webhook()")
        hook = await self.store.hook(token=token)
        if hook is None or not hook.is_webhook:
            raise HookNotFoundError(token)
        received = await self._receive(hook, (await _as_webhook_request(request)).encode(), None)
        match hook.answer:
            case {"mode": "manual"}:
                return await self._answer(hook.run_id, received, timeout)
            case {"mode": "static", "response": response}:
                return _response(response)
            case _:
                return Response(status_code=202)

    async def get_hook_by_token(self, token: str) -> HookInfo:
        """The live hook of this token. HookNotFoundError if there is none."""
        hook = await self.store.hook(token=token)
        if hook is None:
            raise HookNotFoundError(token)
        return HookInfo.of(hook)

    async def find_hook(self, hook_id: str) -> HookInfo | None:
        """A hook by its id, live or not."""
        hook = await self.store.hook(hook_id=hook_id)
        return None if hook is None else HookInfo.of(hook)

    def link(self, hook_id: str) -> str:
        """The signed URL of a webhook."""
        if self._tokens is None or self._base_url is None:
            raise ApprovalsBotError(
                "A webhook's URL needs signing keys and a base URL: Engine.open(…, signing_keys=[…], base_url='https://…')."
            )
        token = self._tokens.sign(WEBHOOK_PURPOSE, {"h": hook_id, "g": 1})
        return f"{self._base_url}/webhooks/{token}"

    # ── asking ──

    def get_run(self, run_id: str) -> Run[Any]:
        """A handle on a run; never fails."""
        return Run(self, run_id)

    async def record(self, run_id: str) -> RunRecord | None:
        """A run as it stands. None: no such run."""
        found = await self.store.read(run_id, after=NO_EVENTS)
        return None if found is None else RunRecord.of(found[0])

    async def records(
        self,
        workflow: str | None = None,
        status: Status | None = None,
        waiting_for: str | None = None,
        attributes: Mapping[str, str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """Runs, newest first. ValueError for a cursor that no page gave."""
        which = Filter(workflow, status, waiting_for, dict(attributes or {}), cursor, limit)
        rows, following = await self.store.runs(which)
        return Page([RunRecord.of(row) for row in rows], following)

    async def events(self, run_id: str) -> list[Event]:
        """A run's log. RunNotFoundError if there is no such run."""
        found = await self.store.read(run_id)
        if found is None:
            raise RunNotFoundError(run_id)
        return found[1]

    async def wait(self, run_id: str, seconds: float | None = None) -> RunRecord:
        """The record once the run has ended or the time is up. RunNotFoundError if there is no such run."""
        with self._news.of(run_id, seconds, self._patience, ENDINGS) as news:
            while True:
                record = await self.record(run_id)
                if record is None:
                    raise RunNotFoundError(run_id)
                if record.has_ended or not await news.next():
                    return record

    def decode_result(self, row: RunRow, result: Any) -> Any:
        """A result as its workflow's type; as plain data if that workflow isn't registered here."""
        try:
            return self.registry.get(row.code, row.version).signature.decode_result(result)
        except WorkflowNotFoundError:
            return decode(result)

    async def ready(self) -> None:
        """StoreUnavailableError unless clicks can be taken right now."""
        await self.store.check()

    # ── changing ──

    async def cancel(self, run_id: str, reason: str | None = None) -> None:
        """End a run as cancelled. RunEndedError keeps the status of one that had ended; RunNotFoundError."""
        _outside("cancel()")
        before = await self.record(run_id)
        if before is None:
            raise RunNotFoundError(run_id)
        if before.has_ended:
            raise RunEndedError(run_id, before.status)
        fact = NewEvent("run_cancelled", {"reason": reason})
        recorded = await self.store.record(run_id, [fact], self.now())
        if not any(e.type == "run_cancelled" and e.data == fact.data for e in recorded):
            after = await self.record(run_id)
            raise RunEndedError(run_id, after.status if after else "unknown")
        self._tell(run_id, recorded)

    async def wake_up(self, run_id: str) -> int:
        """End every sleep that the run is in, and give their number. RunNotFoundError."""
        log = await self.events(run_id)
        over = {e.data["id"] for e in log if e.type in ("wait_completed", "wait_cancelled")}
        sleeps = [e.data["id"] for e in log if e.type == "wait_created" and e.data["kind"] == "sleep"]
        facts = [NewEvent("wait_completed", {"id": number}) for number in sleeps if number not in over]
        if not facts:
            return 0
        recorded = await self.store.record(run_id, facts, self.now())
        self._tell(run_id, recorded)
        return sum(e.type == "wait_completed" for e in recorded)

    async def audit(
        self, what: str, *, who: str | None = None, run_id: str | None = None, data: dict[str, Any] | None = None
    ) -> None:
        """Put a line into the audit, for what no run's log shows."""
        await self.store.audit(AuditEntry(what, who, run_id, data or {}), self.now())

    async def audit_lines(self) -> list[AuditLine]:
        return await self.store.audit(None, self.now())

    # ── receiving ──

    async def _receive(self, hook: HookRow, payload: Any, resume_id: str | None) -> Event:
        to_json(payload, "payload")
        resume_id = resume_id or self.entropy()[:12].hex()
        with self._asking() as lease:
            received = await self.store.receive(hook.id, resume_id, payload, self.now(), lease)
        if received is None:
            raise HookNotFoundError(hook.token)
        self._begin(received.claimed)
        if received.event.data["payload"] != payload:
            raise IdempotencyConflictError(resume_id, hook.run_id, "the payload differs from the first one")
        if received.claimed is None:
            self._tell(hook.run_id, [received.event])
        return received.event

    async def _answer(self, run_id: str, received: Event, seconds: float) -> Response:
        """Wait for the workflow's answer to this request; never longer than that."""
        with self._news.of(run_id, seconds, self._patience, ENDINGS | {"hook_responded"}) as news:
            while True:
                found = await self.store.read(run_id, after=received.seq)
                row, later = found if found is not None else (None, [])
                for event in later:
                    if event.type == "hook_responded" and event.data["to"] == received.seq:
                        return _response(event.data["answer"])
                if row is None or row.status in ENDED or not await news.next():
                    return Response("The request was received, but not answered.\n", 504, media_type="text/plain")

    async def _schema(self, hook: HookRow) -> Any:
        """The hook's schema, as the workflow's code has it now. None if that code is not here, or has drifted: then the
        payload is checked when it is delivered."""
        found = await self.store.read(hook.run_id)
        if found is None:
            return None
        row, log = found
        try:
            workflow = self.registry.get(row.code, row.version)
            outcome = await self.replayer.replay(workflow, log, b"")
        except ApprovalsBotError:
            return None
        return outcome.schemas.get(hook.number)

    # ── working ──

    def appended(self, run_id: str, events: list[Event]) -> None:
        self._news.tell(run_id, events)

    def entropy(self) -> bytes:
        return self._random.draw()

    def rests(self, activation: Activation) -> None:
        self._progress.set()

    def keep(self, task: asyncio.Task[None]) -> None:
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    @property
    def _patience(self) -> float | None:
        """How long to wait for news. An engine that doesn't work isn't told what other processes write."""
        return None if self._tasks else POLL

    def _tell(self, run_id: str, events: list[Event]) -> None:
        """Something was written from outside: wake whoever works on the run, or have it claimed."""
        self._news.tell(run_id, events)
        if run_id in self._active:
            self._active[run_id][0].signal()
        self._nudge.set()

    async def _schedule(self) -> None:
        """Claim what is due. Sleeps until the next timer, a nudge, or a write by another process."""
        await self._until_it_works(self._retry_stalled)
        due: datetime | None = self.now()
        while not self._is_closing:
            seconds = POLL if due is None else min(POLL, max(0.0, (due - self.now()).total_seconds()))
            nudged = await self._nudged(seconds)
            try:
                if elsewhere := not nudged and await self.store.changed():
                    self._look_again()
                if self._known_code != self.registry.additions:
                    await self._retry_stalled()
                if nudged or elsewhere or (due is not None and due <= self.now()):
                    due = await self._claim_due()
            except StoreUnavailableError as error:
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._nudged(RETRY_STORE)
                due = self.now()
            except Exception:  # whatever it was: a process that claims nothing any more would look alive and be dead
                logger.exception("looking for work failed, trying again")
                await self._nudged(RETRY_STORE)
                due = self.now()

    async def _nudged(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._nudge.wait()
        except TimeoutError:
            return False
        self._nudge.clear()
        return True

    def _look_again(self) -> None:
        """Another process has written something, to whichever run."""
        self._news.tell_all()
        for activation, _ in list(self._active.values()):
            activation.signal()

    async def _claim_due(self) -> datetime | None:
        """Claim all that is due, as far as there is room, and say when to look again."""
        await self._keep_leases()
        while True:
            due = await self.next_wake()
            room = MAX_ACTIVE - len(self._active)
            if due is None or due > self.now() or self._is_closing or room <= 0:
                return due
            if not await self._claim(limit=room):
                return await self.next_wake()

    async def _claim(self, limit: int = 1, run_id: str | None = None) -> list[Claimed]:
        with self._asking() as lease:
            claimed = [] if lease is None else await self.store.claim(lease, limit, run_id)
        for each in claimed:
            self._begin(each)
        return claimed

    @contextmanager
    def _asking(self) -> Iterator[Lease | None]:
        """The lease to ask for; None if this process takes no more work. If the answer is lost, we may have a claim
        without knowing it: then there is something to do once it is over."""
        self._is_full = len(self._active) >= MAX_ACTIVE
        if self._is_full or self._is_closing or not self._tasks:
            yield None
            return
        lease = Lease(self._owner, self.now(), self.now() + LEASE)
        self._unanswered = [until for until in self._unanswered if until > lease.at] + [lease.until]
        yield lease
        if lease.until in self._unanswered:
            self._unanswered.remove(lease.until)

    def _begin(self, claimed: Claimed | None) -> None:
        if claimed is None:
            return
        self._leased_until = min(self._leased_until or self.now() + LEASE, self.now() + LEASE)
        activation = Activation(self, claimed)
        task = asyncio.create_task(self._work(activation), name=f"run {claimed.claim.run_id}")
        self._active[claimed.claim.run_id] = (activation, task)

    async def _work(self, activation: Activation) -> None:
        run_id = activation.claim.run_id
        try:
            await activation.work()
        except Exception:
            logger.exception("run %s: working on it failed; it will be tried again when its lease ends", run_id)
            activation.due = self.now() + LEASE
        finally:
            if self._active.get(run_id, (None, None))[0] is activation:
                del self._active[run_id]
            if activation.due is not None or self._is_full:
                self._nudge.set()
            self._progress.set()

    async def _renew(self) -> None:
        """The heartbeat."""
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                await self._keep_leases()
            except StoreUnavailableError as error:
                logger.warning("leases could not be renewed: %s", error)

    async def _keep_leases(self) -> None:
        """Renew what this process holds once a third of the lease is over; also when the clock has made a leap, before
        anything is claimed, or the process would take its own runs away from itself."""
        now = self.now()
        if self._leased_until is None or now + LEASE * 2 / 3 < self._leased_until:
            return
        claims = [activation.claim for activation, _ in self._active.values()]
        if claims:
            await self.store.renew(claims, now + LEASE)
        self._leased_until = now + LEASE if claims else None

    async def _retry_stalled(self) -> None:
        """The code of this process may be what stalled runs were waiting for."""
        self._known_code = self.registry.additions
        cursor: str | None = None
        while not self._is_closing:
            rows, cursor = await self.store.runs(Filter(status="stalled", cursor=cursor, limit=200))
            for row in rows:
                await self._room()
                await self._claim(run_id=row.id)
            if cursor is None:
                return

    async def _room(self) -> None:
        while len(self._active) >= MAX_ACTIVE and not self._is_closing:
            self._progress.clear()
            await self._progress.wait()

    async def _until_it_works(self, call: Callable[[], Awaitable[None]]) -> None:
        while not self._is_closing:
            try:
                await call()
                return
            except StoreUnavailableError as error:
                logger.warning("the store is unavailable, trying again: %s", error)
                await self._nudged(RETRY_STORE)

    # ── for clocks that are moved ──

    async def next_wake(self) -> datetime | None:
        """When this engine has something to do by itself."""
        claimable = await self.store.next_wake(self._owner, self.now())
        held = (activation.due for activation, _ in self._active.values())
        return min((due for due in (claimable, *held, *self._unanswered) if due is not None), default=None)

    async def settle(self) -> None:
        """Return when all that is due has been done; a step that takes long is not waited for."""
        while self._tasks:
            self._progress.clear()
            due = await self._claim_due()
            busy = [activation for activation, _ in self._active.values() if activation.is_busy(self.now())]
            if not busy and (due is None or due > self.now() or len(self._active) >= MAX_ACTIVE):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE if busy else 0):
                    await self._progress.wait()

    # ── closing ──

    async def _close(self) -> None:
        """Take no new work, let running steps finish for a while, release every run, close the store."""
        self._is_closing = True
        self._nudge.set()
        self._progress.set()
        if self._tasks:
            schedule, renew = self._tasks
            await asyncio.wait([schedule], timeout=CLOSING)  # it may be claiming: nothing claimed may be forgotten
            schedule.cancel()
            renew.cancel()
            await asyncio.gather(schedule, renew, return_exceptions=True)
        active = list(self._active.values())
        await asyncio.gather(*(activation.close(self.closing) for activation, _ in active))
        if active:
            await asyncio.wait([task for _, task in active], timeout=CLOSING)
        while leftover := [*self._kept, *(task for _, task in self._active.values())]:
            for task in leftover:
                task.cancel()
            await asyncio.gather(*leftover, return_exceptions=True)
        self.replayer.close()
        await self.store.close()


def _outside(what: str) -> None:
    if in_workflow():
        raise NotInWorkflowError(f"{what} can't be called in a workflow's body: do that in a @step.")


async def _as_webhook_request(request: WebhookRequest | Request) -> WebhookRequest:
    if isinstance(request, WebhookRequest):
        return request
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    return WebhookRequest(request.method, str(request.url), headers, await request.body())


def _response(answer: dict[str, Any]) -> Response:
    response = Response(decode_body(answer), answer["status"])
    for name, value in answer["headers"]:
        response.headers[name] = value
    return response


def _difference(before: Any, now: Any) -> str | None:
    """Where two starts with one key differ, by path and value. None: they don't."""
    for part in ("workflow", "input"):
        found = _first_difference(before.get(part), now.get(part), part)
        if found is not None:
            return found
    return None


def _first_difference(before: Any, now: Any, path: str) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            found = _first_difference(before.get(key), now.get(key), f"{path}.{key}")
            if found is not None:
                return found
        return None
    return None if before == now else f"{path} was {_short(before)}, and is now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
