"""The engine's reads: runs and their logs, hooks, lists, and waiting for a run's end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from approvals_bot.durable.core.attributes import Wanted, projected
from approvals_bot.durable.core.context import in_workflow
from approvals_bot.durable.core.events import ENDINGS, EVENT_TYPES, Event
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.core.serialization import decode
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.intake import HookTarget
from approvals_bot.durable.engine.lines import InLine, steps_in_line
from approvals_bot.durable.engine.notifier import Notifier, Subscription
from approvals_bot.durable.engine.replayer import INLINE_EVENTS
from approvals_bot.durable.engine.runs import NO_EVENTS, Ending, HookInfo, Page
from approvals_bot.durable.engine.scheduler import Scheduler
from approvals_bot.durable.store.audit import ALL_LINES, AuditFilter, AuditLine
from approvals_bot.durable.store.protocol import ENDED, REPLACED, Filter, OpenStore, RunRecord, Status
from approvals_bot.errors import (
    HookNotFoundError,
    InvalidArgumentError,
    NotInWorkflowError,
    OtherLoopError,
    RunNotFoundError,
    WorkflowNotFoundError,
)


class Reader:
    """The part of the engine that changes nothing: runs, logs, hooks, lists, and waiting."""

    def __init__(self, store: OpenStore, scheduler: Scheduler, notifier: Notifier) -> None:
        self.store = store
        self.registry = registry
        self.scheduler = scheduler
        self.notifier = notifier
        self.clock: TimeSource = scheduler.clock
        self.is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop that the engine is open on

    @property
    def installation(self) -> str:
        """The ID of the installation, made with the database and held in it. Signed tokens are bound to it."""
        return self.store.installation

    def now(self) -> datetime:
        return self.clock.now()

    # ── hooks ──

    async def get_hook_by_token(self, token: str) -> HookInfo:
        """Return the live hook with this token. Raises HookNotFoundError if there is none."""
        self._here("get_hook_by_token()")
        hook = await self.store.hook(token=token)
        if hook is None:
            raise HookNotFoundError(token)
        return HookInfo(hook)

    async def find_hook(self, hook_id: str) -> HookInfo | None:
        """Return the hook with this id, live or not. None if there is none."""
        self._here("find_hook()")
        hook = await self.store.hook(hook_id=hook_id)
        return None if hook is None else HookInfo(hook)

    async def find(self, hook_id: str) -> HookTarget | None:
        """Find a hook by its id, live or not, and its run, in one read.

        Pass the target to `resume_webhook`, which then needn't read them again. None if there is no such hook.
        """
        self._here("find()")
        cached = self.scheduler.cache.by_hook.get(hook_id)
        found = await self.store.look(0 if cached else INLINE_EVENTS, hook_id=hook_id)
        return None if found is None else HookTarget(*found, cached)

    # ── runs ──

    async def record(self, run_id: str) -> RunRecord | None:
        """Return a run as it is now. None if there is no such run."""
        self._here("status()")
        found = await self.store.read(run_id, after=NO_EVENTS)
        return None if found is None else found[0]

    async def runs(
        self,
        workflow: str | None = None,
        status: Status | None = None,
        *,
        attributes: Mapping[str, Wanted] | None = None,
        is_open: bool | None = None,
        oldest_first: bool = False,
        cursor: str | None = None,
        limit: int = 50,
        **more: str | None,
    ) -> Page:
        """Return a page of runs, the newest first by default.

            page = await engine.runs("expense", attributes={"amount": {"gte": 100, "lt": 500}, "team": "red"})

        `attributes` are the runs' own, which they got at their start or their bodies have set. Each must be equal to a
        value, be one of a list of values, or be within a range: `eq`, `in`, `gt`, `gte`, `lt`, `lte`. Numbers compare
        as numbers, texts and ISO dates as text. A list by a range has the order of the first attribute with one, the
        greatest value first (with `oldest_first`, the smallest).

        Any other keyword matches an attribute of the runs' projections: `runs(waiting_for="ann@acme.eu")`. Raises
        ValueError for a cursor that came with no page and for a filter that can't be.
        """
        if not isinstance(limit, int) or limit < 1:
            raise InvalidArgumentError(f"limit must be a whole number, 1 or more, not {limit!r}")
        if status is not None and status not in get_args(Status):
            raise InvalidArgumentError(f"{status!r} is no status of a run; one of: {', '.join(get_args(Status))}")
        names: dict[str, Wanted] = {projected(name): value for name, value in more.items() if value is not None}
        found = names | dict(attributes or {})
        return await self.list_runs(Filter(workflow, status, found, is_open, None, oldest_first, cursor, limit))

    records = runs

    async def list_runs(self, which: Filter) -> Page:
        """Return a page of runs, as `runs` does."""
        self._here("list_runs()")
        rows, following = await self.store.runs(which)
        return Page(rows, following)

    async def count_runs(self, which: Filter, most: int) -> int:
        """Return how many runs match, or `most` if there are as many or more."""
        self._here("count_runs()")
        return await self.store.count(which, most)

    async def last(self, run_id: str) -> str:
        """Return the ID of the run that goes on in the place of this one; the same, if none does."""
        self._here("last()")
        return await self.store.last(run_id)

    async def events(self, run_id: str) -> list[Event]:
        """Return a run's log. Raises RunNotFoundError if there is no such run."""
        self._here("events()")
        return (await self.read(run_id))[1]

    async def read(self, run_id: str) -> tuple[RunRecord, list[Event]]:
        """Return a run and its log, from one read. Raises RunNotFoundError if there is no such run."""
        found = await self.store.read(run_id, patient=True)
        if found is None:
            raise RunNotFoundError(run_id)
        return found

    def steps_in_line(self, run: RunRecord, log: Sequence[Event]) -> dict[int, InLine]:
        """Return the steps of a run that wait for a place of a limit, by the numbers that its log gives them."""
        return steps_in_line(run, log, self.now(), self.scheduler.places_in_line(run.id))

    async def wait(
        self, run_id: str, seconds: float | None = None, until: Callable[[RunRecord], bool] | None = None
    ) -> RunRecord:
        """Return the run's record once it has ended, `until` is true of it, or `seconds` are over.

        If another run goes on in its place, this is the record of that one. It also returns when this process is about
        to end. Raises RunNotFoundError if there is no such run.
        """
        self._here("wait()")
        scheduler, clock = self.scheduler, asyncio.get_running_loop()
        over = None if seconds is None else clock.time() + seconds
        types = ENDINGS if until is None else EVENT_TYPES
        with (
            scheduler.slots.given_up(),
            Subscription(self.notifier, run_id, seconds, scheduler.poll, types) as subscription,
        ):
            while (row := await self._row(run_id)).status not in ENDED:
                is_there = until is not None and until(row)
                if is_there or self.is_ending or not await subscription.changed():
                    return row
        if row.status not in REPLACED or row.next_run is None:
            return row
        left = None if over is None else max(0.0, over - clock.time())
        return await self.wait(await self.store.last(run_id), left, until)

    def end_waiting(self) -> None:
        """Make `wait` return at once, with the run as it is: the process is about to end."""
        self.is_ending = True
        self.notifier.wake(None)
        self.scheduler.will_close()

    async def until_ended(self, run_id: str) -> tuple[RunRecord, Ending]:
        """Wait until the run has ended. Returns its record as last read, and its ending. Raises RunNotFoundError."""
        self._here("return_value()")
        scheduler = self.scheduler
        with (
            scheduler.slots.given_up(),
            Subscription(self.notifier, run_id, None, scheduler.poll, ENDINGS) as subscription,
        ):
            while True:
                # An activation in this process notifies us when the run ends or is lost: no need to read the store.
                row = scheduler.row_at_work(run_id) or await self._row(run_id)
                if row.ending is not None:
                    return row, Ending(f"run_{row.status}", row.ending)
                await subscription.changed()
                if subscription.latest is not None:
                    return row, Ending(subscription.latest.type, subscription.latest.data)

    async def _row(self, run_id: str) -> RunRecord:
        found = await self.store.read(run_id, after=NO_EVENTS)
        if found is None:
            raise RunNotFoundError(run_id)
        return found[0]

    def decode_result(self, row: RunRecord, result: Any) -> Any:
        """Decode a result as its workflow's return type; plain data if that isn't registered here."""
        try:
            return self.registry.get(row.code, row.version).signature.result.decode(result)
        except WorkflowNotFoundError:
            return decode(result)

    async def ready(self) -> None:
        """Raise StoreUnavailableError unless the store can be written to right now."""
        await self.store.check()

    async def audit_lines(self, which: AuditFilter = ALL_LINES) -> list[AuditLine]:
        return await self.store.audit_lines(which)

    def _here(self, what: str) -> None:
        """Refuse calls from a workflow's body and from other event loops.

        The store's answers can't reach those, and one such call would break the connection for all others.
        """
        if in_workflow():
            raise NotInWorkflowError(f"{what} can't be called in a workflow's body: do that in a @step.")
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise OtherLoopError(what)
