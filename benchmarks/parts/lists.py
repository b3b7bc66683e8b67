"""Lists in a store of 400,000 ended runs, clicks behind them, and payloads for a run with a long log.

Few and many ended runs take turns, so that their ratio doesn't depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

from approvals_bot import Engine, create_hook, step, workflow
from benchmarks.parts.part import Figures, Scale, main, say

ANN = "ann@acme.eu"
OPEN = 60  # runs that wait for Ann: more than a page
AT_ONCE = 20  # lists that a click arrives behind
CHUNK = 10_000  # runs in one transaction
VIEW = json.dumps({"title": "Buy things", "waiting_for": [], "fields": {"text": "x" * 300}})
LENGTHS = (1_500, 7_500)  # events


@workflow
async def waits(token: str) -> None:
    async for _ in create_hook(token=token):
        pass


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def counts_and_waits(steps: int, token: str) -> None:
    for number in range(steps):
        await add(number, 1)
    async for _ in create_hook(token=token):
        pass


def measure(scale: Scale) -> Figures:
    many = scale(400_000, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        files = {size: Path(folder) / f"{size}.db" for size in (many // 1000, many)}
        for size, file in files.items():
            asyncio.run(begin(file))
            fill(file, size)
            say(f"{size:,} ended runs, {file.stat().st_size / 1e6:,.0f} MB")
        inbox, clicks = asyncio.run(lists(list(files.values()), scale(40, 5)))
        payloads = asyncio.run(long_runs(Path(folder) / "long.db", [scale(each, 30) for each in LENGTHS]))
    (few_inbox, many_inbox), (few_clicks, many_clicks) = inbox, clicks
    short, long = payloads
    say(
        f"inbox {many_inbox:.1f} ms, click {many_clicks:.1f} ms ({few_clicks:.1f}), payload {long:.1f} ms ({short:.1f})"
    )
    return {
        "lists.ended": many,
        "lists.inbox_ms": many_inbox,
        "lists.inbox_few_ms": few_inbox,
        "lists.click_ms": many_clicks,
        "lists.click_few_ms": few_clicks,
        "lists.click_ratio": many_clicks / few_clicks,
        "lists.payload_1500_ms": short,
        "lists.payload_7500_ms": long,
    }


async def begin(file: Path) -> None:
    """Start the open runs."""
    async with Engine.open(f"sqlite:///{file}") as engine:
        for number in range(OPEN):
            await engine.start(waits, f"token-{number}", attributes={"waiting_for": ANN, "requested_by": ANN})
        await engine.settle()


def fill(file: Path, size: int) -> None:
    """Write runs that ended: all requested by Ann, most of them completed."""
    first = int((time.time() - 1e8) * 1e6)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -400000")
        for start in range(0, size, CHUNK):
            rows = [
                (f"run_{n:011x}00000000", "failed" if n % 1000 == 7 else "completed", first + n)
                for n in range(start, min(size, start + CHUNK))
            ]
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                "INSERT INTO runs (id, workflow, code, status, created_at, ended_at, attributes, seq, view) "
                "VALUES (?1, 'waits', 'waits', ?2, ?3, ?3, '{}', 1, ?4)",
                [(*row, VIEW) for row in rows],
            )
            db.executemany(
                "INSERT INTO attributes (run_id, name, value, workflow, status, created_at) "
                "VALUES (?1, 'requested_by', ?4, 'waits', ?2, ?3)",
                [(*row, ANN) for row in rows],
            )
            db.executemany(
                "INSERT INTO events VALUES (?1, 1, 'run_created', ?3, 'run_created', '{}')",
                rows,
            )
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def lists(files: list[Path], times: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of an inbox, and of a click behind twenty lists, for each of the files."""
    inbox: list[list[float]] = [[] for _ in files]
    clicks: list[list[float]] = [[] for _ in files]
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine.open(f"sqlite:///{file}")) for file in files]
        for turn in range(times):
            for engine, inboxes, behind in zip(engines, inbox, clicks, strict=True):
                inboxes.append(await timed(waiting(engine)))
                busy = [asyncio.create_task(each) for each in asked(engine)]
                await asyncio.sleep(0)
                behind.append(await timed(engine.resume_hook(f"token-{turn % OPEN}", turn)))
                await asyncio.gather(*busy)
                await engine.settle()
    return [median(each) for each in inbox], [median(each) for each in clicks]


async def waiting(engine: Engine) -> None:
    page = await engine.records(attributes={"waiting_for": ANN}, is_open=True, oldest_first=True)
    assert len(page.records) == 50


def asked(engine: Engine) -> list[Coroutine[Any, Any, Any]]:
    """Return twenty lists, as people and programs ask for them."""
    kinds: list[dict[str, Any]] = [
        {},
        {"status": "completed"},
        {"workflow": "waits", "status": "failed"},
        {"attributes": {"requested_by": ANN}},
        {"attributes": {"requested_by": ANN}, "status": "failed"},
    ]
    return [engine.records(**kinds[number % len(kinds)]) for number in range(AT_ONCE)]


async def long_runs(file: Path, lengths: list[int]) -> list[float]:
    """Return the milliseconds until a payload has been taken by a run of each length."""
    async with Engine.open(f"sqlite:///{file}") as engine:
        found = []
        for length in lengths:
            await engine.start(counts_and_waits, length // 3, f"long-{length}")
            await engine.settle()

            async def pay(token: str = f"long-{length}") -> None:
                await engine.resume_hook(token, "more")
                await engine.settle()

            found.append(median([await timed(pay()) for _ in range(9)]))
    return found


async def timed(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main(measure)
