"""Schedules in the simulation: processes whose clocks differ decide on the same times, and die meanwhile."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from approvals_bot.durable.core.api import sleep, workflow
from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.core.idempotency import SentKey
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.schedules import NotStarted, Overlap, Schedule, ScheduledRun
from tests.support.simulation.auditor import Line, RunHistory, Violation
from tests.support.simulation.scenes import Scene
from tests.support.simulation.shapes import toil
from tests.support.simulation.world import BEGIN, World

SLACK = timedelta(seconds=4)
"""The clocks differ by at most 3 seconds."""

LATE = timedelta(seconds=30)
"""By then, all processes are back, and the leases of those that have died have ended."""

LONG = 75.0
"""Virtual seconds that a schedule is watched: faults are over by then, and a few times come after that."""


@workflow(name="simulated: scheduled")
async def scheduled(name: str, time: str, seconds: float) -> str:
    """Takes a while, perhaps longer than until the schedule's next time."""
    await toil(f"{name} at {time}")
    await sleep(seconds)
    return time


class Scheduled(Scene):
    """Each time starts one run, or none for a reason that the runs show."""

    shape = scheduled

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        random = world.random
        overlap: Overlap = random.choice(("skip", "queue", "allow"))
        every = random.choice((6, 10, 15))
        self.seconds = random.choice((0.5, 3.0, every + 4.0))
        self.schedule = Schedule("simulated: scheduled", f"plan {number}", Cron(f"*/{every} * * * * *", "UTC"), overlap)
        world.plan(self.schedule, self.starter)

    async def starter(self, engine: Engine, at: datetime) -> ScheduledRun | NotStarted:
        """Start a time's run as the service does."""
        if not self.world.is_calm and self.world.random.random() < 0.05:
            await self.world.pause(3)
        key = SentKey(f"schedule {self.schedule.name} {at.isoformat()}", {})
        run = await engine.start(scheduled, self.schedule.name, at.isoformat(), self.seconds, idempotency_key=key)
        return ScheduledRun(run.id)

    @property
    def runs(self) -> dict[datetime, RunHistory]:
        found: dict[datetime, RunHistory] = {}
        for run_id, history in self.world.auditor.runs.items():
            given = history.lines[0].data["input"] if history.lines else {}
            if given.get("name") == self.schedule.name:
                at = datetime.fromisoformat(given["time"])
                if at in found:
                    raise Violation(f"{self.name}: {at} has started another run, {run_id}")
                found[at] = history
        return found

    async def play(self) -> None:
        world = self.world
        while world.loop.time() < LONG:
            await world.pause(8)
        world.unplan()
        await asyncio.sleep(12)  # a start may be on its way
        while not all(history.end for history in self.runs.values()):
            await world.more_is_written()
        await world.pause(1)
        self.judge()

    async def see_the_end(self) -> None:
        raise AssertionError("it has no single run")

    def expected(self, lines: list[Line]) -> Any:
        return lines[0].data["input"]["time"]

    def judge(self) -> None:
        runs = self.runs
        self.world.count("scheduled", len(runs))
        for at, history in runs.items():
            if from_micros(history.lines[0].at) < at - SLACK:
                raise Violation(f"{self.name}: the run of {at} was started at {from_micros(history.lines[0].at)}")
            if self.schedule.cron.after(at - timedelta(seconds=1)) != at:
                raise Violation(f"{self.name}: {at} is none of its times")
        if self.schedule.overlap != "allow":
            _one_after_another(self.name, runs)
        calm_since = self.world.calm_since or self.world.now()
        time, until = self.schedule.cron.after(calm_since + LATE), BEGIN + timedelta(seconds=LONG - 5)
        while time is not None and time < until:
            if time not in runs and (self.schedule.overlap == "allow" or not self.has_reason(time, runs)):
                raise Violation(f"{self.name}: nothing was started for {time}, and all was calm: {sorted(runs)}")
            time = self.schedule.cron.after(time)

    def has_reason(self, time: datetime, runs: dict[datetime, RunHistory]) -> bool:
        """Whether a run was open when this time came, by clocks that may differ."""
        spans = [(from_micros(each.lines[0].at), from_micros(each.end.at)) for each in runs.values() if each.end]
        return any(begin < time + SLACK and end > time - SLACK for begin, end in spans)


def _one_after_another(name: str, runs: dict[datetime, RunHistory]) -> None:
    """No run was started while one of an earlier time was open."""
    ends = {at: history.end.batch for at, history in runs.items() if history.end is not None}
    for at, history in runs.items():
        still_open = [each for each in runs if each < at and ends[each] > history.lines[0].batch]
        if still_open:
            raise Violation(f"{name}: {at} was started while the run of {still_open} was open")
