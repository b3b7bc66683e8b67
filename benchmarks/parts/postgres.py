"""The common cycle on our own engine with PostgreSQL: one replica, two replicas, and the server's CPU time."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.parts.cycle import of_runs, once
from benchmarks.parts.part import ROOT, Figures, Scale, main, say
from benchmarks.postgres import Server, server

WARMING = 20  # cycles that `benchmarks.cycle` runs first, one after the other


def measure(scale: Scale) -> Figures:
    figures: Figures = {}
    with server() as there:
        for loop in ("asyncio", "uvloop"):
            name = f"cycle.postgres.{loop}"
            tries = [with_server(there, loop, scale(2000, 20), 50) for _ in range(3)]
            many, served = sorted(tries, key=lambda found: found[0]["seconds"])[1]
            alone, _ = with_server(there, loop, scale(300, 20), 1)
            figures |= of_runs(name, many, alone)
            figures[f"{name}.server_cpu_ms"] = served
            say(f"{loop}: {figures[f'{name}.per_second']:,.0f} cycles/s")
        for key, at_once, cycles in (("commits", 50, scale(500, 20)), ("commits_alone", 1, scale(50, 10))):
            counted = commits(there, cycles, at_once)  # they don't depend on the loop
            for loop in ("asyncio", "uvloop"):
                figures[f"cycle.postgres.{loop}.{key}"] = counted
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):  # alternating, so that other load on the machine affects both
            for count, rates in found.items():
                rates.append(replicas(there, count, scale(2000, 20)))
        for count, rates in found.items():
            figures[f"replicas.{count}.per_second"] = median(rates)
            say(f"{count} replica(s): {median(rates):,.0f} cycles/s")
    figures["replicas.gain"] = figures["replicas.2.per_second"] / figures["replicas.1.per_second"]
    return figures


def with_server(there: Server, loop: str, cycles: int, at_once: int) -> tuple[dict[str, Any], float]:
    """Measure in a new database. Also returns the server's CPU ms per cycle, including opening the database."""
    url = there.database()
    cpu = there.cpu()
    found = once(loop, cycles, at_once, "--url", url)
    return found, (there.cpu() - cpu) / (cycles + WARMING) * 1000


def commits(there: Server, cycles: int, at_once: int) -> float:
    """Count the writing transactions per cycle, without those of the warm-up cycles."""
    url = there.database()
    once("asyncio", 1, 1, "--url", url)
    before = there.writes(url)
    once("asyncio", WARMING, 1, "--url", url)
    between = there.writes(url)
    once("asyncio", cycles, at_once, "--url", url)
    after = there.writes(url)
    alone = (between - before) / (2 * WARMING)
    return ((after - between) - alone * min(WARMING, cycles)) / cycles


def replicas(there: Server, count: int, cycles: int) -> float:
    """Return the cycles per second of several processes on one database, which begin together.

    Each runs its share of the cycles; time is counted from the first one's beginning to the last one's end.
    """
    url = there.database()
    once("uvloop", 1, 1, "--url", url)
    each = cycles // count
    line = [sys.executable, "-m", "benchmarks.cycle", "--json", "--hold", "--loop", "uvloop"]
    line += ["--url", url, "--cycles", str(each), "--at-once", str(50 // count)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(count)
        ]
        try:
            for replica in running:
                assert replica.stdout is not None
                if replica.stdout.readline().strip() != "ready":
                    raise RuntimeError("a replica didn't start")
            for replica in running:
                assert replica.stdin is not None
                replica.stdin.write("go\n")
                replica.stdin.flush()
            found = [json.loads(replica.communicate(timeout=120)[0].splitlines()[-1]) for replica in running]
        finally:
            for replica in running:
                if replica.poll() is None:
                    replica.kill()
    took: float = max(one["seconds"] for one in found)
    return each * count / took


if __name__ == "__main__":
    main(measure)
