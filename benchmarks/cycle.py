"""One cycle: start a run → a trivial step → wait on a hook → resume it from outside → a trivial step → completed.

    python benchmarks/cycle.py [--cycles 2000] [--at-once 50] [--url sqlite:///…] [--loop asyncio|uvloop]
                               [--commits] [--hold] [--json]

Client and service share this process, so its CPU time is that of both. `--commits` counts SQLite's commits, which takes
time, so don't use the other figures of such a run. `--hold` prints "ready" and waits for a line on standard input, so
several processes can begin together. The default is fifty cycles at once, then one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from approvals_bot import Engine, HookNotFoundError, create_hook, step, workflow
from approvals_bot.durable.engine.notifier import Subscription
from benchmarks.measures import SqliteCommits, own_cpu, percentile


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
    """The seconds of each cycle from resume to completed, and from start to completed, as the client sees them."""

    to_completion: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


@dataclass
class Figures:
    cycles: int
    at_once: int
    seconds: float
    cpu: float  # seconds
    resumed_p50: float  # seconds from resume to completed
    resumed_p99: float
    whole_p50: float  # seconds from start to completed
    commits: int  # 0 if not counted


async def hook_is_open(engine: Engine, run_id: str, token: str) -> None:
    """Wait until the hook is open: look once, then wait for this process's notification."""
    with Subscription(engine.notifier, run_id, None, None, {"hook_created"}) as subscription:
        try:
            await engine.get_hook_by_token(token)
        except HookNotFoundError:
            while subscription.latest is None:
                await subscription.changed()


async def one(engine: Engine, name: str, measured: Measured) -> None:
    began = time.perf_counter()
    run = await engine.start(cycle, name)
    await hook_is_open(engine, run.id, name)
    resumed = time.perf_counter()
    await engine.resume_hook(name, {"approved": True, "comment": "fine"})
    result = await run.return_value()
    ended = time.perf_counter()
    measured.to_completion.append(ended - resumed)
    measured.whole.append(ended - began)
    assert result["sum"] == 3, result


async def measure(engine: Engine, cycles: int, at_once: int, commits: SqliteCommits | None = None) -> Figures:
    """Run `cycles` cycles, `at_once` at a time."""
    measured, room, prefix = Measured(), asyncio.Semaphore(at_once), secrets.token_hex(4)

    async def limited(n: int) -> None:
        async with room:
            await one(engine, f"{prefix}-{n}", measured)

    counted = 0 if commits is None else commits.count
    began, cpu = time.perf_counter(), own_cpu()
    await asyncio.gather(*(limited(n) for n in range(cycles)))
    took, used = time.perf_counter() - began, own_cpu() - cpu
    return Figures(
        cycles,
        at_once,
        took,
        used,
        percentile(measured.to_completion, 0.5),
        percentile(measured.to_completion, 0.99),
        percentile(measured.whole, 0.5),
        0 if commits is None else commits.count - counted,
    )


async def measured(url: str, cycles: int, at_once: int, count_commits: bool, hold: bool) -> Figures:
    commits = SqliteCommits() if count_commits else None
    if commits is not None:
        commits.watch()
    async with Engine.open(url) as engine:
        warm = Measured()
        for n in range(min(20, cycles)):
            await one(engine, f"warm-{secrets.token_hex(4)}-{n}", warm)
        # As `approvals-bot serve` does once it is ready. Imported here, because the measurement of an engine's startup
        # also imports this module, and mustn't load a web server.
        from approvals_bot.cli.serving import tune_garbage_collector

        tune_garbage_collector()
        if hold:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)
        return await measure(engine, cycles, at_once, commits)


def figures_text(found: Figures) -> str:
    commits = f"{found.commits / found.cycles:5.2f} commits/cycle" if found.commits else ""
    return (
        f"{found.at_once:3} at once: {found.cycles / found.seconds:7,.0f} cycles/s  "
        f"{found.cpu / found.cycles * 1000:6.2f} CPU ms/cycle  "
        f"resume → completed p50 {found.resumed_p50 * 1000:6.2f} ms  p99 {found.resumed_p99 * 1000:6.2f} ms  {commits}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="measure cycles")
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--at-once", type=int)
    parser.add_argument("--url", help="the store; by default a new SQLite file")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--commits", action="store_true")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sizes = [(given.cycles, given.at_once)]
    if given.at_once is None:
        sizes = [(given.cycles, 50), (max(20, given.cycles // 10), 1)]
    for cycles, at_once in sizes:
        with ExitStack() as stack:
            url = given.url or f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/runs.db"
            running = measured(url, cycles, at_once, given.commits, given.hold)
            if given.loop == "uvloop":
                import uvloop

                found = uvloop.run(running)
            else:
                found = asyncio.run(running)
        print(json.dumps(asdict(found)) if given.json else figures_text(found), flush=True)


if __name__ == "__main__":
    main()
