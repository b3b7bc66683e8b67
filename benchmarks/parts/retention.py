"""Fifty clicks a second beside retention, which deletes 100,000 runs that ended long ago.

A click's time counts from when it was due, so a click that waits behind another counts as slow. The clicks before
retention and those beside it are as many; the rest is deleted without clicks. Open runs must go on afterwards, and old
links answer 410.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvloop

from benchmarks.loader import Connection, request
from benchmarks.measures import percentile
from benchmarks.parts.part import Figures, Scale, main, say
from benchmarks.parts.served import Served, served

CLICKS = 50  # a second
OPEN = 40  # runs that nothing may touch
CONNECTIONS = 10
BODY = b'{"approved": true}'


def measure(scale: Scale) -> Figures:
    ended, seconds = scale(100_000, 300), scale(60, 4)
    with served() as service:
        [first, *waiting] = service.open(OPEN + 1)
        service.ask(f"hooks {first} {' '.join(waiting)}")
        service.load([service.vote(first, 1)], 1, 201)
        links = service.ask(f"ended {first} {ended}")
        say(f"{ended:,} ended runs, {(service.folder / 'runs.db').stat().st_size / 1e6:,.0f} MB")
        calls = [
            request("POST", url, BODY, {"Content-Type": "application/json"})
            for url in service.ask(f"webhooks {2 * seconds * CLICKS}")
        ]
        before = clicks(service, calls[: len(calls) // 2])
        say(f"before: p99 {percentile(before, 0.99) * 1e3:.1f} ms")
        service.ask("retain")
        beside = clicks(service, calls[len(calls) // 2 :])
        say(f"beside retention: p99 {percentile(beside, 0.99) * 1e3:.1f} ms")
        began = time.perf_counter()
        deleted = service.ask("retained")
        rest = time.perf_counter() - began
        service.load([request("GET", f"{service.url}/decisions/{link}", b"", {}) for link in links], 4, 410)
        service.load([service.vote(run, number) for number, run in enumerate(waiting)], 4, 201)
        if deleted != ended:
            raise RuntimeError(f"{deleted:,} of {ended:,} runs were deleted")
    before_p99, beside_p99 = percentile(before, 0.99), percentile(beside, 0.99)
    return {
        "retention.ended": ended,
        "retention.click_p99_ms": before_p99 * 1e3,
        "retention.click_beside_p99_ms": beside_p99 * 1e3,
        "retention.click_ratio": beside_p99 / before_p99,
        "retention.rest_s": rest,
    }


def clicks(service: Served, calls: Sequence[bytes]) -> list[float]:
    """Send a click fifty times a second, whatever became of those before. Returns the seconds that each took."""
    return uvloop.run(_clicks(urlsplit(service.url).port or 80, calls))


async def _clicks(port: int, calls: Sequence[bytes]) -> list[float]:
    began, took, due = time.perf_counter(), list[float](), iter(enumerate(calls))

    async def connection() -> None:
        async with Connection(port) as each:
            for number, raw in due:
                at = began + number / CLICKS
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                await each.send(raw, 202)
                took.append(time.perf_counter() - at)

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return took


if __name__ == "__main__":
    main(measure)
