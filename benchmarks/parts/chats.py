"""A thousand paused chats in the process that has served them: what each costs while it waits for people.

Each chat has asked about two bookings, so two requests of it are open. The figures of no chats are measured in the same
process, after one chat that is decided: its imports and caches would otherwise count as the first chat's.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from approvals_bot import Engine
from approvals_bot.agents.chats import ChatForm, Chats
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import Channels
from approvals_bot.people import People, Person
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.service.python_workflows import import_programs
from benchmarks.measures import own_cpu, resident
from benchmarks.parts.part import ROOT, Figures, Scale, main, say

ANN = "ann@acme.eu"
ASK = "Book LH 441 for Ann Ode and LH 442 for Bo Lund"


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[tuple[Engine, Chats]]:
    programs = import_programs(ROOT / "workflows")[0]
    workflow = next(each.workflow for each in programs if each.workflow.name == "book_flight_chat")
    resources = {
        People: People([Person(ANN, "Ann Ode")], {}),
        Calendars: Calendars({}),
        Channels: Channels({}, "https://example.test", None),
    }
    async with Engine.open(f"sqlite:///{file}", resources=resources) as engine:
        yield engine, Chats(engine, Catalog({"book_flight_chat": Listed(workflow)}), ChatForm())


def on_disk(folder: Path) -> int:
    os.sync()
    return sum(file.stat().st_size for file in folder.iterdir())


async def idle(seconds: float) -> float:
    """Return the share of one CPU that this process uses while nothing happens."""
    before = own_cpu()
    await asyncio.sleep(seconds)
    return (own_cpu() - before) / seconds


async def paused(scale: Scale) -> Figures:
    chats_open, seconds = scale(1_000, 20), scale.seconds(20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opened(folder / "runs.db") as (engine, chats):
            await chats.begin([], "first", ANN, "m", ASK)
            await engine.settle()
            gc.collect()
            tasks, memory, disk = len(asyncio.all_tasks()), resident(), on_disk(folder)
            alone = await idle(seconds)
            began = own_cpu()
            for number in range(chats_open):
                await chats.begin([], f"chat-{number}", ANN, "m", ASK)
                if number % 50 == 49:
                    await engine.settle()
            await engine.settle()
            cpu = own_cpu() - began
            say(f"{chats_open:,} chats wait")
            gc.collect()
            with_chats = await idle(seconds)
            return {
                "chats.open": chats_open,
                "chats.cpu_ms": cpu / chats_open * 1000,
                "chats.tasks": len(asyncio.all_tasks()) - tasks,
                "chats.memory_kb": (resident() - memory) * 1000 / chats_open,
                "chats.disk_kb": (on_disk(folder) - disk) / 1000 / chats_open,
                "chats.idle_cpu_percent": with_chats * 100,
                "chats.idle_cpu_alone_percent": alone * 100,
            }


def measure(scale: Scale) -> Figures:
    return uvloop.run(paused(scale))


if __name__ == "__main__":
    main(measure)
