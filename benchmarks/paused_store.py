"""A process that opens a store of paused runs, started by the part `paused`. Prints JSON.

It measures how soon it can resume a run, what it needs while all runs wait, and how fast it is then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import uvloop

from approvals_bot import Engine
from benchmarks import cycle
from benchmarks.measures import own_cpu, percentile, resident


async def resume(engine: Engine, token: str) -> float:
    """Resume a run and return the seconds until it completed."""
    began = time.perf_counter()
    hook = await engine.resume_hook(token, {"approved": True, "comment": "fine"})
    result = await engine.get_run(hook.run_id).return_value()
    assert result["approved"], result
    return time.perf_counter() - began


async def look(url: str, tokens: Sequence[str], started: float, idle: float, cycles: int) -> dict[str, Any]:
    imported = time.monotonic()
    async with Engine.open(url) as engine:
        await resume(engine, tokens[0])
        found: dict[str, Any] = {"restart": time.monotonic() - started, "imports": imported - started}
        await asyncio.sleep(min(1.0, idle))
        cpu = own_cpu()
        await asyncio.sleep(idle)
        found["idle_cpu"] = (own_cpu() - cpu) / idle if idle else 0.0
        found["memory"] = resident()
        times = [await resume(engine, token) for token in tokens[1:]]
        found["resumed_p50"] = percentile(times, 0.5) if times else 0.0
        found["cycle_cpu"] = 0.0
        if cycles:
            measured = await cycle.measure(engine, cycles, 50)
            found["cycle_cpu"] = measured.cpu / measured.cycles
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--url", required=True)
    options.add_argument(
        "--tokens", required=True, help="tokens of paused runs; the first is resumed at once, the others later"
    )
    options.add_argument(
        "--started", type=float, required=True, help="the monotonic clock when this process was started"
    )
    options.add_argument("--idle", type=float, default=0.0, help="seconds to stay idle")
    options.add_argument("--cycles", type=int, default=0)
    given = options.parse_args()
    running = look(given.url, given.tokens.split(","), given.started, given.idle, given.cycles)
    print(json.dumps(uvloop.run(running)))
