"""Counts of the whole store for monitors: runs, open requests, deliveries in trouble. Equal on all replicas.

Each count reads an index. They are made when somebody asks, at most every COUNT_EVERY seconds, and nobody waits long
for them: a slow store gives the counts of before.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, get_args

from approvals_bot.approvals.card_model import State
from approvals_bot.approvals.published import FURTHER, IN_TROUBLE, STATE, Undelivered, undelivered_word
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.audit import AuditFilter, last_backup
from approvals_bot.durable.store.protocol import Filter, Status
from approvals_bot.errors import StoreUnavailableError
from approvals_bot.service.audit_keeper import ANCHORED
from approvals_bot.service.grants import count_grants
from approvals_bot.service.read import requests_of

COUNT_EVERY = 15.0  # seconds
PATIENCE = 0.03  # seconds that a caller waits for counts, once there are any
MOST_COUNTED = 100_000  # of each kind; more than that are as alarming
OLDEST = 20  # open runs of a workflow that are looked through for one that nobody has decided
MOST_ENDED = 2_000  # runs that are remembered until their decisions are read
MOST_READ = 200  # of those that go on after a decision, at a time
LATEST_MARK = timedelta(seconds=90)  # after a decision, until its run closes its webhook or has called a target

OPEN: tuple[Status, ...] = ("pending", "running", "stalled")
DECIDED = [state for state in get_args(State) if state not in ("waiting", "changes_requested")]

DeliveryWord = Literal["waiting", "trying", "held", "uncertain", "refused"]
DELIVERIES: Mapping[Undelivered, DeliveryWord] = {
    "waiting": "waiting",
    "retrying": "trying",
    "held": "held",
    "uncertain": "uncertain",
    "not_delivered": "refused",
}
"""What monitors call the reasons why deliveries have not arrived."""


class DecidedRequest(NamedTuple):
    """A decision that was taken in this process, and the seconds since the request was opened."""

    workflow: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The counts. `requests`, `oldest_request`: by workflow; `deliveries`: by channel and state."""

    runs: Mapping[Status, int] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    oldest_request: Mapping[str, datetime] = field(default_factory=dict)
    deliveries: Mapping[tuple[str, DeliveryWord], int] = field(default_factory=dict)
    oldest_delivery: Mapping[str, datetime] = field(default_factory=dict)
    size: int = 0
    anchored_at: datetime | None = None
    grants: Mapping[str, int] = field(default_factory=dict)
    overdue_grants: int = 0
    backed_up_at: datetime | None = None  # the last backup


class FigureReader:
    """Reads the figures of one store, for all who ask in this process."""

    def __init__(self, engine: Engine, workflows: Callable[[], Sequence[str]], channels: Sequence[str]) -> None:
        """`workflows`: those whose runs are requests."""
        self._engine = engine
        self._workflows = workflows
        self._channels = channels
        self._ended: dict[str, datetime] = {}
        self._decided: dict[str, datetime] = {}  # runs that go on after a decision
        self._counted: dict[str, None] = {}  # requests whose decision was read
        self._found: list[DecidedRequest] = []
        self._figures: StoreFigures | None = None
        self._counted_at = -math.inf  # of the monotonic clock
        self._counting: asyncio.Task[None] | None = None

    def saw(self, run_id: str, events: Sequence[Event]) -> None:
        """Take note of a run that has ended in this process, or takes no votes any more."""
        if events[-1].type in ENDINGS:
            _remember(self._ended, run_id, self._decided.pop(run_id, events[-1].at))
        else:
            self.decided(run_id, events[0].at)

    def decided(self, run_id: str, at: datetime) -> None:
        """Take note of a run that goes on, although it was decided shortly before this time at the latest."""
        _remember(self._decided, run_id, at)

    async def read(self) -> StoreFigures | None:
        """Return the figures, those of before if it takes long; None if the store has never given any."""
        if self._counting is None and self._counted_at + COUNT_EVERY < time.monotonic():
            self._counting = asyncio.create_task(self._count(), name="count for monitors")
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=None if self._figures is None else PATIENCE)
        return self._figures

    def take_decisions(self) -> list[DecidedRequest]:
        """Return the decisions that were found since the last call."""
        found, self._found = self._found, []
        return found

    def forget(self) -> None:
        """Count again at the next call."""
        self._counted_at = -math.inf

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _count(self) -> None:
        try:
            self._figures = await self._figures_now()
            self._found += await self._decisions()
            self._counted_at = time.monotonic()
        except StoreUnavailableError:  # what this process counts itself is wanted all the more
            pass
        finally:
            self._counting = None

    async def _figures_now(self) -> StoreFigures:
        engine = self._engine
        requests, oldest = dict[str, int](), dict[str, datetime]()
        for workflow in self._workflows():
            if count := await self._open_requests(workflow):
                requests[workflow] = count
                oldest |= await self._oldest(workflow)
        deliveries, late = await self._deliveries()
        anchors = await engine.audit_lines(AuditFilter(what=ANCHORED, newest_first=True, limit=1))
        return StoreFigures(
            {status: await engine.count_runs(Filter(status=status), MOST_COUNTED) for status in OPEN},
            requests,
            oldest,
            deliveries,
            late,
            (await engine.store.load()).size,
            anchors[0].at if anchors else None,
            *await count_grants(engine, self._workflows()),
            await last_backup(engine.store),
        )

    async def _open_requests(self, workflow: str) -> int:
        """Count the requests that nobody has decided: not the runs that only follow up a decision."""
        runs = await self._engine.count_runs(Filter(workflow, is_open=True), MOST_COUNTED)
        if not runs:
            return 0
        for state in DECIDED:
            decided = Filter(workflow, is_open=True, attributes={projected(STATE): state})
            runs -= await self._engine.count_runs(decided, MOST_COUNTED)
        return max(0, runs)

    async def _oldest(self, workflow: str) -> dict[str, datetime]:
        page = await self._engine.list_runs(Filter(workflow, is_open=True, oldest_first=True, limit=OLDEST))
        asked = [request.asked_at for run in page.records for request in requests_of(run) if request.is_open]
        return {workflow: min(asked)} if asked else {}

    async def _deliveries(self) -> tuple[dict[tuple[str, DeliveryWord], int], dict[str, datetime]]:
        counts, oldest = dict[tuple[str, DeliveryWord], int](), dict[str, datetime]()
        for channel in self._channels:
            for why, word in DELIVERIES.items():
                which = _undelivered(why, channel)
                if count := await self._engine.count_runs(which, MOST_COUNTED):
                    counts[channel, word] = count + await self._further(why, channel)
                    first = await self._engine.list_runs(replace(which, oldest_first=True, limit=1))
                    begun = [run.created_at for run in first.records]
                    oldest[channel] = min([*begun, oldest.get(channel, *begun)])
        return counts, oldest

    async def _further(self, why: Undelivered, channel: str) -> int:
        """Count the deliveries of runs that have more than one that has not arrived, but for the first of each."""
        runs = [await self._engine.count_runs(_undelivered(why, channel, also), MOST_COUNTED) for also in FURTHER]
        return sum(count * also for count, also in zip(runs, FURTHER, strict=True))

    async def _decisions(self) -> list[DecidedRequest]:
        """Return the decisions of this process since the last time."""
        found = list[DecidedRequest]()
        for run_id in [*self._decided][:MOST_READ]:
            run = await self._engine.record(run_id)
            found += self._of(run, self._decided.pop(run_id)) if run is not None else ()
        own, self._ended = self._ended, {}
        cursor, since = None, min(own.values(), default=None)
        while own:
            page = await self._engine.list_runs(Filter(ended_since=since, oldest_first=True, cursor=cursor, limit=200))
            for run in page.records:
                if (ended := own.pop(run.id, None)) is not None:
                    found += self._of(run, ended)
            cursor = page.cursor
            if cursor is None:
                break
        return found

    def _of(self, run: RunRecord, at: datetime) -> Iterator[DecidedRequest]:
        """Yield the run's decisions of about this time that weren't counted before."""
        for request in requests_of(run):
            outcome = request.outcome
            if outcome is None or request.id in self._counted or outcome.at < at - LATEST_MARK:
                continue
            self._counted[request.id] = None
            if len(self._counted) > 2 * MOST_ENDED:
                del self._counted[next(iter(self._counted))]
            yield DecidedRequest(run.workflow, outcome.state, (outcome.at - request.asked_at).total_seconds())


def _remember(runs: dict[str, datetime], run_id: str, at: datetime) -> None:
    runs.setdefault(run_id, at)
    if len(runs) > MOST_ENDED:
        del runs[next(iter(runs))]


def _undelivered(why: Undelivered, channel: str, also: int = 0) -> Filter:
    return Filter(attributes={projected(IN_TROUBLE): undelivered_word(why, channel, also)}, is_open=True)
