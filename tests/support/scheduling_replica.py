"""A process that keeps schedules of every second on a store, for tests that kill it: `… URL SECONDS`.

SECONDS is how far its clock is ahead. Its schedules are `skip/a`, `queue/a` and `allow/a`, by what they do while a run
is open, which is for more than a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from approvals_bot import sleep, workflow
from approvals_bot.durable.core.cron import Cron
from approvals_bot.durable.core.idempotency import SentKey
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.schedules import NotStarted, Overlap, Schedule, ScheduledRun

OVERLAPS: tuple[Overlap, ...] = ("skip", "queue", "allow")


@workflow
async def scheduled_each_second(schedule: str, time: str) -> None:
    await sleep("1.3 seconds")


class SkewedClock:
    """The system's clock, or one that is ahead of it."""

    def __init__(self, ahead: float) -> None:
        self._ahead = timedelta(seconds=ahead)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


async def keep_schedules(url: str, ahead: float) -> None:
    """Keep the schedules until the process is killed."""
    async with Engine.open(url, clock=SkewedClock(ahead)) as engine:

        async def start(schedule: Schedule, at: datetime) -> ScheduledRun | NotStarted:
            key = SentKey(f"schedule {schedule.name} {at.isoformat()}", {})
            run = await engine.start(scheduled_each_second, schedule.name, at.isoformat(), idempotency_key=key)
            return ScheduledRun(run.id)

        every_second = Cron("* * * * * *", "Europe/Berlin")
        engine.schedules.use([Schedule(each, f"{each}/a", every_second, each) for each in OVERLAPS], start)
        os.write(1, f"ready {os.getpid()}\n".encode())  # in one piece, beside other replicas in the same file
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(keep_schedules(sys.argv[1], float(sys.argv[2])))
