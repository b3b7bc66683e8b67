"""The time to replay a log, and the cost of a step, by length. Neither may grow faster than the log."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from typing import Any

from approvals_bot import Engine, step, workflow
from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Event, NewEvent
from approvals_bot.durable.core.replay import replay
from benchmarks.measures import own_cpu, per_second
from benchmarks.parts.part import Figures, Scale, main, say

LENGTHS = (10, 100, 1_000, 10_000)
STEPS = (10, 100, 1_000)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def count_to(steps: int) -> int:
    total = 0
    for _ in range(steps):
        total = await add(total, 1)
    return total


def measure(scale: Scale) -> Figures:
    log = log_of(count_to, max(LENGTHS))
    figures: Figures = {}
    for length in LENGTHS:
        some = log[:length]
        rate = per_second(lambda some=some: replay(count_to, some, link=str), scale.seconds(2), at_least=3)  # type: ignore[misc]
        figures[f"replay.{length}_us"] = 1e6 / rate
        say(f"{length:6,} events: {1e6 / rate:,.0f} µs")
    return figures | asyncio.run(runs_of_steps(scale))


async def runs_of_steps(scale: Scale) -> Figures:
    """Measure the CPU time of a step in a run of consecutive steps, each of which adds three events to its log."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        async with Engine.open(f"sqlite:///{folder}/runs.db") as engine:
            await (await engine.start(count_to, 3)).return_value()
            for steps in STEPS:
                runs = scale(max(1, 1_000 // steps))
                began = own_cpu()
                for _ in range(runs):
                    await (await engine.start(count_to, steps)).return_value()
                figures[f"steps.{steps}.cpu_ms"] = took = (own_cpu() - began) * 1e3 / (runs * steps)
                say(f"{steps:6,} steps, one after the other: {took:.2f} ms of CPU each")
    return figures


def log_of(body: Workflow[Any, Any], length: int) -> list[Event]:
    """Return at least this many events of an open run. A replay would fail if the engine wrote different ones."""
    data = {"run_id": "run_1", "workflow": body.name, "input": body.signature.encode_call((length,), {})}
    events = [NewEvent("run_created", data), NewEvent("run_started", {})]
    for number in range(1, length // 3 + 2):
        events.append(NewEvent("step_created", {"id": number, "name": "add", "input": {"a": number - 1, "b": 1}}))
        events.append(NewEvent("step_started", {"id": number, "attempt": 1}))
        events.append(NewEvent("step_completed", {"id": number, "result": number}))
    return [Event(seq, each.type, NOW, each.data) for seq, each in enumerate(events, 1)]


if __name__ == "__main__":
    main(measure)
