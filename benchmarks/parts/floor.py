"""The floor of a cycle, fifty at a time and one after the other (see `benchmarks.floor`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.floor import floor
from benchmarks.parts.part import Figures, Scale, main, say


def measure(scale: Scale) -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for key, at_once, cycles in (("floor", 50, scale(20_000, 100)), ("floor_alone", 1, scale(2_000, 20))):
            found = floor(Path(folder) / f"{key}.db", cycles, at_once)
            figures[f"raw.{key}.per_second"] = cycles / found.seconds
            figures[f"raw.{key}.cpu_ms"] = found.cpu / cycles * 1000
            figures[f"raw.{key}.commits"] = found.commits / cycles
    say(f"floor: {figures['raw.floor.per_second']:,.0f} cycles/s")
    return figures


if __name__ == "__main__":
    main(measure)
