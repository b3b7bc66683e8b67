"""Schedules: workflows that start at the times of a cron expression, once per time over all processes.

The state of each schedule is a row in the store. A process that finds a time due first writes down what becomes of it,
from the version that it has read, so of any number of processes one decides. Only then is the run started, under an
idempotency key that names the schedule and the time. If the process dies in between, the row says that a start is owed,
and the process that reads it next starts that run: the same one, if it had been created.

A schedule that waits is a number in memory: the scheduler's loop wakes when the next time of any has come. One that
waits for its last run to end subscribes to that run's events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.durable.engine.clock import TimeSource
from approvals_bot.durable.engine.limits import RETRY_STORE
from approvals_bot.durable.engine.notifier import Notifier, Subscription
from approvals_bot.durable.engine.runs import NO_EVENTS
from approvals_bot.durable.engine.troubles import StoreLines
from approvals_bot.durable.store.protocol import OpenStore, StateRow
from approvals_bot.errors import StoreUnavailableError

AGAIN = timedelta(seconds=30)
"""How long a start waits that can't be made right now, for example because a group's source is down."""

SET_BACK = timedelta(minutes=10)
"""The clock must be this far behind what was decided before a schedule starts over from its time. Replicas' clocks
differ by seconds. No time starts twice even then: the key of its run is known."""

Overlap = Literal["skip", "queue", "allow"]
Outcome = Literal["started", "skipped", "queued", "missed", "refused"]

logger = logging.getLogger("approvals_bot.durable.engine")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a workflow starts, what becomes of a time at which its last run is open, and how late a start may be."""

    workflow: str
    name: str  # the workflow's, a slash and the schedule's own
    cron: Cron
    overlap: Overlap = "skip"
    catch_up: timedelta = timedelta(hours=1)

    @property
    def rule(self) -> str:
        """What its times depend on. With another rule, the times before the change don't count."""
        return f"{self.cron.text} {self.cron.zone}"


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """The run that was started for a time."""

    run_id: str


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Why no run was started for a time. `again`: it may go better in a moment."""

    why: str
    again: bool = False


Start = Callable[[Schedule, datetime], Awaitable[ScheduledRun | NotStarted]]
"""Starts the run of a schedule's time, or finds the one that was started for it before."""

Counted = Callable[[str, Outcome], None]
"""Takes the workflow of a time that this process decided on, and what became of it."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a time: `run_id` is the run that was started, or the open one because of which none was."""

    at: datetime
    outcome: Outcome
    run_id: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What has become of a schedule's times.

    Times up to `since` are none of its: it had another rule then, or wasn't there. `until` is the newest time that was
    decided. A start is owed for `starting`, and for `queued` once the last run has ended. `missed` has the first and
    the last of the times that were missed most recently.
    """

    since: datetime
    rule: str | None = None  # None: no configuration has the schedule now
    until: datetime | None = None
    last: Decided | None = None
    started: Decided | None = None
    starting: datetime | None = None
    queued: datetime | None = None
    missed: tuple[datetime, datetime] | None = None


_STATES = TypeAdapter(ScheduleState)


def dump_state(state: ScheduleState) -> dict[str, Any]:
    return cast(dict[str, Any], _STATES.dump_python(state, mode="json", exclude_none=True))


def read_state(row: StateRow) -> ScheduleState | None:
    """Return the state that a row has. None if it is damaged."""
    try:
        return _STATES.validate_python(row.state)
    except ValidationError:
        return None


def decide_time(
    schedule: Schedule, state: ScheduleState, after: datetime, now: datetime, open_run: str | None
) -> ScheduleState | None:
    """Decide what becomes of the times after `after`, up to now. Returns None if there are none.

    However many there are, at most the last one starts: the others would only repeat it.
    """
    at = schedule.cron.last(after, now)
    if at is None:
        return None
    before = schedule.cron.last(after, at - timedelta(microseconds=1))
    first = schedule.cron.after(after)
    assert first is not None, "there is one that is due"
    state = replace(state, until=at)
    if now - at > schedule.catch_up:
        return replace(state, last=Decided(at, "missed"), missed=(first, at))
    if before is not None:
        state = replace(state, missed=(first, before))
    if open_run is None or schedule.overlap == "allow":
        return replace(state, starting=at)
    if schedule.overlap == "skip" or state.queued is not None:
        return replace(state, last=Decided(at, "skipped", open_run))
    return replace(state, last=Decided(at, "queued", open_run), queued=at)


class _Ended(Subscription):
    """A subscription that calls `look` when the run ends, or may have ended in another process."""

    def __init__(self, to: Notifier, run_id: str, look: Callable[[], None]) -> None:
        super().__init__(to, run_id, None, None, ENDINGS)
        self._look = look

    def wake(self) -> None:
        self._look()

    def deliver(self, events: list[Event]) -> None:
        if any(event.type in ENDINGS for event in events):
            self._look()


@dataclass(slots=True)
class _Watched:
    """A schedule in this process, with its row as it was read or written last."""

    schedule: Schedule
    row: StateRow
    state: ScheduleState
    since: datetime  # since when this process has its rule; a replica with another rule may write another one
    next: datetime | None = None  # its next time; None: not known
    again: datetime | None = None  # when a start that couldn't be made is tried again; no time is decided before
    failing: datetime | None = None  # since when that start can't be made
    awaited: ExitStack = field(default_factory=ExitStack)  # the subscription to the run that a queued start waits for

    @property
    def after(self) -> datetime:
        """The time up to which all is decided."""
        return max(self.since, self.state.until or self.since)


class Schedules:
    """The schedules of one process. `due` is when it next has something to do for them."""

    def __init__(
        self, store: OpenStore, clock: TimeSource, notifier: Notifier, wake: Callable[[], None], lines: StoreLines
    ) -> None:
        """`wake` is called when there is something to do before `due`, and when that is done."""
        self.due: datetime | None = None
        self._store = store
        self._clock = clock
        self._notifier = notifier
        self._wake = wake
        self._lines = lines
        self._planned: Sequence[Schedule] = ()
        self._announced: Sequence[Schedule] = self._planned  # those whose rows this process has brought up to date
        self._start: Start = _start_nothing
        self._counted: Counted | None = None
        self._watched: dict[str, _Watched] = {}
        self.is_busy = False  # whether it is doing what is due
        self._looks_again = False

    def use(self, planned: Sequence[Schedule], start: Start, counted: Counted | None = None) -> None:
        """Keep these schedules from now on, in place of those given before.

        Times of a schedule before the store first saw it with its cron expression and zone are none of its. The times
        of those that are no longer among them end.
        """
        self._planned, self._start, self._counted = list(planned), start, counted
        self.look_again()

    def look_again(self) -> None:
        """Look at all schedules soon: one may have something to do before its next time."""
        if self.is_busy:
            self._looks_again = True
        elif self._planned is not self._announced or self._watched:
            self.due = self._clock.now()
            self._wake()

    def begin(self) -> asyncio.Task[None]:
        """Start doing what is due, beside the scheduler's loop: a start may wait for other services."""
        self.due, self.is_busy, self._looks_again = None, True, False
        return asyncio.get_running_loop().create_task(self._work(), name="engine: schedules")

    async def _work(self) -> None:
        due: datetime | None = self._clock.now() + AGAIN  # unless what is due gets done
        try:
            await self._read()
            if self._planned is not self._announced:
                await self._announce(self._planned)
            for watched in list(self._watched.values()):
                await self._look_at(watched)
            times = (each.again or each.next for each in self._watched.values())
            due = min((time for time in times if time is not None), default=None)
        except StoreUnavailableError as error:
            self._lines.is_away(error)
            due = self._clock.now() + timedelta(seconds=RETRY_STORE)
        except Exception:  # if this ended, the process would look alive but start nothing
            logger.exception("looking at the schedules failed, trying again")
        finally:
            self.is_busy = False
            self.due = self._clock.now() if self._looks_again else due
            self._wake()

    # ── rows ──

    async def _read(self) -> dict[str, StateRow]:
        rows = {row.name: row for row in await self._store.schedules()}
        for name, watched in self._watched.items():
            row = rows.get(name)
            state = None if row is None else read_state(row)
            if row is not None and state is not None:
                watched.row, watched.state = row, state
        return rows

    async def _write(self, watched: _Watched, state: ScheduleState) -> bool:
        """Write this state if nobody has written another since it was read. If somebody has, read it again."""
        row = StateRow(watched.row.name, watched.row.version + 1, dump_state(state))
        if await self._store.set_schedule(row):
            watched.row, watched.state = row, state
            return True
        await self._read()
        return False

    async def _announce(self, planned: Sequence[Schedule]) -> None:
        """Write down which schedules there are now, so that the times before a change don't count."""
        rows = await self._read()
        watched = {}
        for schedule in planned:
            watched[schedule.name] = await self._adopt(schedule, rows.get(schedule.name))
        for name, row in rows.items():
            state = read_state(row)
            if name not in watched and state is not None and state.rule is not None:
                # Another process may have written since; it then has that schedule, and needs the row.
                gone = dump_state(replace(state, rule=None))
                await self._store.set_schedule(StateRow(name, row.version + 1, gone))
        for earlier in self._watched.values():
            earlier.awaited.close()
        self._watched, self._announced = watched, planned

    async def _adopt(self, schedule: Schedule, row: StateRow | None) -> _Watched:
        while True:
            now = self._clock.now()
            state = None if row is None else read_state(row)
            if row is not None and state is not None and state.rule == schedule.rule:
                return _Watched(schedule, row, state, state.since)
            if row is not None and state is None:
                logger.error("schedule %s: its state is damaged and can't be read; it begins again", schedule.name)
            if state is None or state.rule is None:  # what was owed when it ended isn't owed any more
                state = replace(state or ScheduleState(now), starting=None, queued=None)
            state = replace(state, rule=schedule.rule, since=now)
            first = StateRow(schedule.name, 1 if row is None else row.version + 1, dump_state(state))
            if await self._store.set_schedule(first):
                return _Watched(schedule, first, state, now)
            row = {each.name: each for each in await self._store.schedules()}.get(schedule.name)

    # ── times ──

    async def _look_at(self, watched: _Watched) -> None:
        """Do what a schedule's state and its time ask for, until there is nothing left to do."""
        while True:
            state, now = watched.state, self._clock.now()
            if state.starting is not None:
                if watched.again is not None and watched.again > now:
                    return
                await self._make_start(watched, state.starting)
                continue
            watched.again = watched.failing = None  # another process may have made the start that couldn't be made here
            if watched.after > now + SET_BACK:
                logger.warning("schedule %s: the clock was set back; it goes on from now", watched.schedule.name)
                watched.since, watched.next = min(watched.since, now), None
                await self._write(watched, replace(state, since=min(state.since, now), until=now))
                continue
            is_due = watched.next is None or watched.next <= now
            open_run = None
            if state.queued is not None or (is_due and watched.schedule.overlap != "allow"):
                open_run = await self._find_open_run(watched)
            if state.queued is not None and open_run is None:
                await self._write(watched, replace(state, starting=state.queued, queued=None))
                continue
            decided = decide_time(watched.schedule, state, watched.after, now, open_run) if is_due else None
            if decided is not None:
                if await self._write(watched, decided):
                    self._report(watched.schedule, state, decided)
                continue
            if is_due:
                watched.next = watched.schedule.cron.after(max(watched.after, now))
            if state.queued is None:
                watched.awaited.close()
            return

    async def _find_open_run(self, watched: _Watched) -> str | None:
        """Return the open run of the last start, or the one that goes on in its place. None if it has ended."""
        run_id = None if watched.state.started is None else watched.state.started.run_id
        while run_id is not None:
            # Subscribe before reading, so that no end between the two is missed.
            watched.awaited.close()
            watched.awaited.enter_context(_Ended(self._notifier, run_id, self.look_again))
            found = await self._store.read(run_id, after=NO_EVENTS)
            if found is None:
                return None
            if not found[0].has_ended:
                return run_id
            run_id = found[0].next_run
        return None

    async def _make_start(self, watched: _Watched, at: datetime) -> None:
        """Start the run of a time that was decided, and write down that it is done.

        Other processes may do the same right now. They get the same run, and one of them writes.
        """
        schedule, state = watched.schedule, watched.state
        try:
            result = await self._start(schedule, at)
        except StoreUnavailableError:
            raise
        except Exception as error:
            logger.exception("schedule %s: starting its run failed", schedule.name)
            result = NotStarted(f"{type(error).__name__}: {error}", again=True)
        now = self._clock.now()
        watched.failing = max(at, watched.failing or now)  # a queued start may be owed long after its time
        if isinstance(result, NotStarted) and result.again and now - watched.failing <= schedule.catch_up:
            if watched.again is None:
                logger.warning("schedule %s: no run can be started now, trying again: %s", schedule.name, result.why)
            watched.again = now + AGAIN
            return
        watched.again = watched.failing = None
        if isinstance(result, NotStarted):
            decided = replace(state, starting=None, last=Decided(at, "refused", why=result.why))
        else:
            last = Decided(at, "started", result.run_id)
            decided = replace(state, starting=None, last=last, started=last)
        if await self._write(watched, decided):
            self._report(schedule, state, decided)

    def _report(self, schedule: Schedule, before: ScheduleState, after: ScheduleState) -> None:
        """Log and count what this process has decided or done. No other process does so for the same time."""
        if after.missed is not None and after.missed != before.missed:
            begin, end = (time.isoformat() for time in after.missed)
            logger.warning("schedule %s: the times from %s to %s were missed", schedule.name, begin, end)
            self._count(schedule, "missed")
        last = after.last
        if last is None or last == before.last or last.outcome == "missed":
            return
        if last.outcome == "refused":
            logger.error("schedule %s: no run was started for %s: %s", schedule.name, last.at.isoformat(), last.why)
        else:
            logger.info(
                "schedule %s: %s, for %s: run %s", schedule.name, last.outcome, last.at.isoformat(), last.run_id
            )
        self._count(schedule, last.outcome)

    def _count(self, schedule: Schedule, outcome: Outcome) -> None:
        if self._counted is not None:
            self._counted(schedule.workflow, outcome)


async def _start_nothing(schedule: Schedule, at: datetime) -> NotStarted:
    return NotStarted("nothing starts runs here")
