"""Schedules of workflows: what a configuration plans, how the run of a time is opened, and what became of it.

A schedule opens its run as every entry point does, so an approval that it opens is like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from approvals_bot.approvals.opening_policy import WorkflowSchedule
from approvals_bot.approvals.policy import Definition
from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.engine import Engine, SentKey
from approvals_bot.durable.engine.schedules import NotStarted, Schedule, ScheduledRun, ScheduleState, read_state
from approvals_bot.errors import ApprovalsBotError, StoreUnavailableError
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.host import ChannelHost
from approvals_bot.service.open import open_run
from approvals_bot.service.refusals import OpeningRefused


def planned(workflows: Catalog) -> list[Schedule]:
    """Return the schedules of all listed workflows."""
    return [
        Schedule(name, name_of(name, entry), Cron(entry.cron, entry.zone), entry.overlap, entry.catch_up)
        for name, listed in workflows.listed.items()
        if listed.definition is not None
        for entry in listed.definition.schedule
    ]


def name_of(workflow: str, entry: WorkflowSchedule) -> str:
    """Return the name of a schedule among those of all workflows."""
    return f"{workflow}/{entry.id}"


@dataclass(frozen=True, slots=True)
class ScheduleReport:
    """A schedule with its next times, and its state. No state: no service has seen it yet."""

    workflow: str
    entry: WorkflowSchedule
    next: tuple[datetime, ...]
    state: ScheduleState | None

    @property
    def what_happened(self) -> str:
        """Say what became of its last time: `started run_1`, `skipped: run_1 is open`; "" if there was none."""
        last = None if self.state is None else self.state.last
        if self.state is None or last is None:
            return ""
        match last.outcome:
            case "skipped" if self.state.queued is not None:
                return f"skipped: {last.run_id} is open, and a start waits for its end"
            case "skipped":
                return f"skipped: {last.run_id} is open"
            case "queued":
                return f"waits for the end of {last.run_id}"
            case "missed":
                return "missed: nothing was running, and catch_up was over"
            case "refused":
                return f"not started: {last.why}"
            case "started":
                return f"started {last.run_id}"


async def read_schedules(engine: Engine, definitions: Iterable[Definition], most: int) -> list[ScheduleReport]:
    """Return the schedules of these workflows, each with its next `most` times."""
    rows, now = {row.name: row for row in await engine.store.schedules()}, engine.now()
    reports = []
    for definition in definitions:
        for entry in definition.schedule:
            row = rows.get(name_of(definition.id, entry))
            state = None if row is None else read_state(row)
            decided = now if state is None or state.until is None else state.until
            times = Cron(entry.cron, entry.zone).times(max(now, decided))
            reports.append(ScheduleReport(definition.id, entry, tuple(islice(times, most)), state))
    return reports


def _entries(workflows: Catalog, schedule: Schedule) -> Iterator[WorkflowSchedule]:
    listed = workflows.find(schedule.workflow)
    for entry in listed.definition.schedule if listed is not None and listed.definition is not None else ():
        if name_of(schedule.workflow, entry) == schedule.name:
            yield entry


async def start_scheduled(host: ChannelHost, schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
    """Start the run of a schedule's time, or find the one that was started for it."""
    entry = next(_entries(host.workflows, schedule), None)
    if entry is None:
        return NotStarted("the schedule was removed")
    key = SentKey(f"schedule:{schedule.name} {at.isoformat()}", {"schedule": entry.id, "at": at.isoformat()})
    try:
        run = await open_run(
            engine=host.engine,
            workflows=host.workflows,
            people=host.people,
            name=schedule.workflow,
            input=entry.input,
            opener=host.people.identity(entry.requester),
            idempotency_key=key,
        )
    except StoreUnavailableError:
        raise
    except OpeningRefused as refused:
        return NotStarted(str(refused), again=refused.code == "group_unknown")
    except ApprovalsBotError as error:
        return NotStarted(str(error))
    return ScheduledRun(run.id)
