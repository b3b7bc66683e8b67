"""Figures of one workflow: its open requests by version, and how long decisions took, day by day.

They come from pages over an index, of the newest runs only, so they cost the same whatever else is in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from statistics import median
from typing import Any

from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Filter, Status

DAYS = 30  # that charts have
BEFORE = timedelta(days=60)  # how long before the first of them a request may have been opened, to be counted there
MOST_RUNS = 300  # of each status that are read; before the oldest of these, nothing is drawn
PAGE = 100  # runs read at once
MOST_OPEN = 500  # open runs that are counted
ENDED: tuple[Status, ...] = ("completed", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Day:
    """One day. `open`: requests open at its end; `seconds`: the median time to a decision, None without decisions."""

    day: date
    open: int
    decided: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class WorkflowFigures:
    """The last days, of which the first may be missing; open requests by version, and whether there are more."""

    days: tuple[Day, ...]
    versions: Mapping[str, int]
    is_whole: bool

    @property
    def open(self) -> int:
        return sum(self.versions.values())

    @property
    def seconds(self) -> float | None:
        """The median time to a decision, over the days' medians weighed by their decisions."""
        found = [day.seconds for day in self.days if day.seconds is not None for _ in range(day.decided)]
        return median(found) if found else None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a request was opened, and when it was decided or ended otherwise; None: it is open."""

    opened: datetime
    ended: datetime | None
    is_decided: bool = False


async def count_open(engine: Engine, workflow: str) -> int:
    """Return the number of a workflow's open runs, up to MOST_OPEN."""
    return await engine.count_runs(Filter(workflow=workflow, is_open=True), MOST_OPEN)


async def read_figures(engine: Engine, workflow: str) -> WorkflowFigures:
    """Return the figures of a workflow."""
    now = engine.now()
    since = now - timedelta(days=DAYS) - BEFORE
    open_runs, is_whole = await _newest(engine, Filter(workflow, is_open=True, limit=PAGE), None, MOST_OPEN)
    first, lifetimes = since, [each for run in open_runs for each in _lifetimes(run)]
    for status in ENDED:
        runs, is_all = await _newest(engine, Filter(workflow, status, limit=PAGE), since, MOST_RUNS)
        lifetimes += [each for run in runs for each in _lifetimes(run)]
        if not is_all:
            first = max(first, runs[-1].created_at)
    versions = Counter(version for run in open_runs for version in _versions(run))
    return WorkflowFigures(days_of(lifetimes, first, now), dict(versions.most_common()), is_whole)


async def _newest(engine: Engine, which: Filter, since: datetime | None, most: int) -> tuple[list[RunRecord], bool]:
    """Return the newest runs, those opened since then, and whether these are all."""
    found, cursor = list[RunRecord](), None
    while len(found) < most:
        page = await engine.list_runs(replace(which, cursor=cursor))
        found += page.records
        cursor = page.cursor
        if cursor is None or (since is not None and found[-1].created_at < since):
            return found, True
    return found[:most], False


def _lifetimes(run: RunRecord) -> Iterable[Lifetime]:
    """Yield the lifetimes of a run's requests; its own, if it has none that can be read.

    The parts are read as they are stored: making requests of hundreds of them would take seconds.
    """
    found = [each for part in run.parts if (each := _lifetime(part)) is not None]
    if not found:
        yield Lifetime(run.created_at, run.ended_at)
    for each in found:
        yield Lifetime(each.opened, each.ended or run.ended_at, each.is_decided)


def _lifetime(part: Any) -> Lifetime | None:
    try:
        opened, outcome = datetime.fromisoformat(part["asked_at"]), part.get("outcome")
        if outcome is None:
            return Lifetime(opened, None)
        return Lifetime(opened, datetime.fromisoformat(outcome["at"]), outcome["via"] not in ("rule", "clock"))
    except (TypeError, KeyError, ValueError, AttributeError):
        return None  # a damaged row


def _versions(run: RunRecord) -> list[str]:
    """Return the version that each of a run's open requests follows; the run's own, if it has none."""
    parts: Sequence[Any] = [part for part in run.parts if isinstance(part, dict)]
    found = [str(part.get("definition") or "") for part in parts if not part.get("outcome")]
    return found if parts else [run.version or ""]


def days_of(lifetimes: Sequence[Lifetime], first: datetime, now: datetime) -> tuple[Day, ...]:
    """Return the last days, in UTC, that begin at `first` or later; today is the last."""
    found = []
    for back in reversed(range(DAYS)):
        day = (now - timedelta(days=back)).date()
        begin = datetime.combine(day, time(), now.tzinfo)
        end = min(begin + timedelta(days=1), now)
        if begin < first:
            continue
        is_open = sum(each.opened < end and (each.ended is None or each.ended >= end) for each in lifetimes)
        took = [
            (each.ended - each.opened).total_seconds()
            for each in lifetimes
            if each.is_decided and each.ended is not None and begin <= each.ended < end + timedelta(microseconds=1)
        ]
        found.append(Day(day, is_open, len(took), median(took) if took else None))
    return tuple(found)
