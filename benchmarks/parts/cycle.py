"""The common cycle on our own engine, on SQLite, with asyncio's loop and uvloop."""

from __future__ import annotations

from typing import Any

from benchmarks.parts.part import Figures, Scale, main, run_json, say


def measure(scale: Scale) -> Figures:
    figures: Figures = {}
    for loop in ("asyncio", "uvloop"):
        name = f"cycle.sqlite.{loop}"
        figures |= of_runs(
            name,
            once(loop, scale(4000, 20), 50),
            once(loop, scale(600, 20), 1),
        )
        say(f"{loop}: {figures[f'{name}.per_second']:,.0f} cycles/s")
    for key, at_once, cycles in (("commits", 50, scale(1000, 20)), ("commits_alone", 1, scale(100, 10))):
        counted = once("asyncio", cycles, at_once, "--commits")  # they don't depend on the loop
        for loop in ("asyncio", "uvloop"):
            figures[f"cycle.sqlite.{loop}.{key}"] = counted["commits"] / counted["cycles"]
    return figures


def once(loop: str, cycles: int, at_once: int, *more: str) -> dict[str, Any]:
    line = ["-m", "benchmarks.cycle", "--json", "--loop", loop, "--cycles", str(cycles), "--at-once", str(at_once)]
    return run_json([*line, *more])


def of_runs(name: str, many: dict[str, Any], alone: dict[str, Any]) -> Figures:
    """Return the figures of fifty cycles at a time and of lone ones."""
    return {
        f"{name}.per_second": many["cycles"] / many["seconds"],
        f"{name}.cpu_ms": many["cpu"] / many["cycles"] * 1000,
        f"{name}.busy_p50_ms": many["resumed_p50"] * 1000,
        f"{name}.busy_p99_ms": many["resumed_p99"] * 1000,
        f"{name}.alone_ms": alone["whole_p50"] * 1000,
        f"{name}.p50_ms": alone["resumed_p50"] * 1000,
        f"{name}.p99_ms": alone["resumed_p99"] * 1000,
    }


if __name__ == "__main__":
    main(measure)
