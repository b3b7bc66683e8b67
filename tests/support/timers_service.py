"""A service of nothing but timers, to be killed: `python timers_service.py DATABASE RUNS SPREAD`.

It starts so many runs of two timers each, all of which are due within SPREAD seconds; started
again on the same database, it starts no more. It prints when it was ready, in seconds since 1970, and works until it is
killed. Each run's log records when its steps really continued.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from random import Random

from approvals_bot import sleep, step, workflow
from approvals_bot.durable.engine import Engine

BEFORE = 2.0  # seconds before the first is due
STARTED = 400.0  # runs that a busy machine starts in a second
AT_A_TIME = 100


@step
async def what_time_is_it() -> float:
    return time.time()


async def _at(due: datetime) -> float:
    await sleep(due)
    return await what_time_is_it()


@workflow(name="two timers")
async def two_timers(first: datetime, second: datetime) -> list[float]:
    """When the run went on after each."""
    return list(await asyncio.gather(_at(first), _at(second)))


async def start(engine: Engine, runs: int, spread: float) -> None:
    chance = Random(runs)  # noqa: S311  # when something is due
    base = datetime.now(UTC) + timedelta(seconds=BEFORE + runs / STARTED)

    def due() -> datetime:
        return base + timedelta(seconds=chance.uniform(0, spread))

    for done in range(0, runs, AT_A_TIME):
        await asyncio.gather(*(engine.start(two_timers, due(), due()) for _ in range(min(AT_A_TIME, runs - done))))


async def serve(database: str, runs: int, spread: float) -> None:
    async with Engine.open(f"sqlite:///{database}") as engine:
        if not (await engine.records(limit=1)).records:
            await start(engine, runs, spread)
        sys.stdout.write(f"{time.time()}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
