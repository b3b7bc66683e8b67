"""One cycle: start a run → a trivial step → wait on a hook → resume it from outside → a trivial step → completed.

    python benchmarks/cycle.py [--cycles 2000] [--at-once 50]

Prints cycles per second, CPU milliseconds per cycle (of the whole process), the time from resume to completion, and
commits per cycle, for cycles at once and for a lone one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from approvals_bot import Engine, HookNotFoundError, create_hook, step, workflow
from approvals_bot.store import group_commit


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def cycle(token: str) -> dict[str, Any]:
    first = await add(1, 1)
    answer = await create_hook(token=token)
    return {"sum": await add(first, 1), "approved": answer["approved"], "comment": answer["comment"]}


@dataclass
class Measured:
    commits: int = 0
    to_completion: list[float] = field(default_factory=list)


async def hook_is_open(engine: Engine, run_id: str, token: str) -> None:
    with engine._news.of(run_id, None, None, {"hook_created"}) as news:
        while True:
            try:
                await engine.get_hook_by_token(token)
            except HookNotFoundError:
                await news.next()
            else:
                return


async def one(engine: Engine, name: str, measured: Measured) -> None:
    run = await engine.start(cycle, name)
    await hook_is_open(engine, run.id, name)
    resumed = time.perf_counter()
    await engine.resume_hook(name, {"approved": True, "comment": "fine"})
    result = await run.return_value()
    measured.to_completion.append(time.perf_counter() - resumed)
    assert result["sum"] == 3, result


async def measure(cycles: int, at_once: int) -> None:
    measured = Measured()
    commit = group_commit.Writer._do

    async def counted(self: Any, shared: Any) -> Any:
        measured.commits += 1
        return await commit(self, shared)

    group_commit.Writer._do = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        async with Engine.open(f"sqlite:///{folder}/runs.db") as engine:
            await one(engine, "warm", Measured())
            measured.commits = 0
            room = asyncio.Semaphore(at_once)

            async def limited(n: int) -> None:
                async with room:
                    await one(engine, f"c{n}", measured)

            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(limited(n) for n in range(cycles)))
            took, used = time.perf_counter() - began, time.process_time() - cpu
    group_commit.Writer._do = commit  # type: ignore[method-assign]
    times = sorted(measured.to_completion)
    print(
        f"{at_once:3} at once: {cycles / took:7,.0f} cycles/s  {used / cycles * 1000:6.2f} CPU ms/cycle  "
        f"resume → completed p50 {statistics.median(times) * 1000:6.2f} ms  "
        f"p99 {times[int(len(times) * 0.99)] * 1000:6.2f} ms  "
        f"{measured.commits / cycles:5.2f} commits/cycle"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="measure cycles")
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=50)
    given = parser.parse_args()
    asyncio.run(measure(given.cycles, given.at_once))
    asyncio.run(measure(max(100, given.cycles // 10), 1))
