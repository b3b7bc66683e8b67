"""docs/performance.md, its charts, and the figures in docs/scaling.md, all made from benchmarks/results.json.

python -m benchmarks.report
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import chart
from benchmarks.figures import FLOOR_OF_THE_PROMISE, GROWTH, OF_A_CYCLE, OTHERS, PROMISES, SYSTEMS, Promise, System
from benchmarks.parts.part import ROOT as ROOT

PAGE = ROOT / "docs" / "performance.md"
SCALING = ROOT / "docs" / "scaling.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results.json"

Results = dict[str, Any]
Values = dict[str, float]

NOT_YET = "–"


def texts(results: Results) -> dict[str, str]:
    """What the page and the charts are to say, by their file's name in the repository."""
    values = values_of(results)
    return {
        "docs/performance.md": page(results, values),
        "docs/images/cycles.svg": cycles_chart(values),
        "docs/images/growth.svg": growth_chart(values),
        "docs/scaling.md": filled_in(SCALING.read_text(), values),
    }


def write(results: Results) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, text in texts(results).items():
        (ROOT / name).write_text(text)


def values_of(results: Results) -> Values:
    return {key: value for part in results["parts"].values() for key, value in part.get("figures", {}).items()}


# ── numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def number(value: float | None) -> str:
    """Three digits are what such measurements are good for."""
    if value is None:
        return NOT_YET
    if abs(value) >= 1000:
        return f"{round(value):,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if value else "0"


_PLACE = re.compile(r"<!--= *(\S+?)(?: *([*/]) *([\d.]+))? *-->(.*?)<!--/-->", re.DOTALL)


def filled_in(text: str, values: Values) -> str:
    """A page's figures brought up to date: between `<!--= key -->` (or `<!--= key * 2 -->`) and `<!--/-->`."""

    def figure(found: re.Match[str]) -> str:
        key, sign, by, _ = found.groups()
        value = values.get(key)
        if value is not None and sign is not None:
            value = value * float(by) if sign == "*" else value / float(by)
        return f"{found[0].partition('-->')[0]}-->{number(value)}<!--/-->"

    return _PLACE.sub(figure, text)


# ── the page ──────────────────────────────────────────────────────────────────────────────────────────────────────


def page(results: Results, values: Values) -> str:
    parts = [
        "# Performance",
        "*Written by `make bench` from `benchmarks/results.json`; not by hand.*",
        *_warnings(results),
        "## What was promised",
        _promises(values),
        _by_the_floor(values),
        "## The common work, side by side",
        "One cycle: start a run → a trivial step → wait on a hook → resume it from outside with "
        "`{approved, comment}` → a trivial step → completed. "
        "Every system did it on this machine in the same run of `make bench`; how each was "
        "set up stands in `benchmarks/others/`. The floor is what is left without any engine: the same rows in the "
        "same transactions, in a bare SQLite file. A cloud disk takes milliseconds where this one may take tenths of "
        "one to make a commit durable: there, the columns with commits decide.",
        _cycles(values),
        "![Cycles a second](images/cycles.svg)",
        "## A million paused runs",
        _growth(values),
        "![CPU per cycle by runs in the store](images/growth.svg)",
        _list(values, "paused."),
        "## Replays, by the length of the log",
        _replays(values),
        _list(values, "steps."),
        "## Clicks over HTTP, approvals, starting",
        _list(values, "clicks."),
        _list(values, "approval."),
        _list(values, "startup."),
        _list(values, "slack_ack."),
        "## Replicas on PostgreSQL",
        _list(values, "replicas."),
        "## The raw limits of this machine",
        _list(values, "raw."),
        "## What the columns say",
        "\n".join(f"- `{name}`: {says}." for name, says in OF_A_CYCLE.items()),
        "## The machine",
        _machine(results),
        "## When each part was measured",
        _parts(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _warnings(results: Results) -> Iterable[str]:
    parts = results["parts"]
    if not parts:
        yield "> **Not measured yet.** `make bench` fills this page in."
    trials = [name for name, part in parts.items() if part["scale"] < 1]
    if trials:
        yield f"> **Trial figures**, of sizes too small to mean anything: {', '.join(trials)}."
    busy = [name for name, part in parts.items() if part["load"] > 1.5]
    if busy and len(busy) == len(parts):
        yield "> **The machine was busy with other things** when this was measured."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> str:
    lines = [head, ["---" if n < numbers_from else "---:" for n in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _promises(values: Values) -> str:
    return _table(
        ("", "promised", "measured", ""),
        ((each.says, _target(each), _measured(each, values), _kept(each, values)) for each in PROMISES),
    )


def _by_the_floor(values: Values) -> str:
    """What tells a slow engine from a slow machine."""
    told = []
    for key, says in (("per_second", "of the floor's cycles a second"), ("cpu_ms", "× the floor's ms of CPU")):
        ours, here = values.get(f"cycle.sqlite.uvloop.{key}"), values.get(f"raw.floor.{key}")
        promise = next(each for each in PROMISES if each.key == f"cycle.sqlite.uvloop.{key}")
        there = FLOOR_OF_THE_PROMISE[f"raw.floor.{key}"]
        if ours is None or here is None:
            return ""
        told.append(
            f"- {number(promise.target / there)} {says} was promised, where the floor did {number(there)}; "
            f"here it does {number(here)}, and ours {number(ours / here)} of that: {number(ours / here * there)} "
            "there, if all scales alike."
        )
    return "\n".join(["The same promises against the floor below, which no engine goes under:", "", *told])


def _target(promise: Promise) -> str:
    sign = "≥" if promise.at_least is not None else "≤"
    return f"{sign} {number(promise.target)} {promise.unit}".strip()


def _measured(promise: Promise, values: Values) -> str:
    value = values.get(promise.key)
    return NOT_YET if value is None else f"{number(value)} {promise.unit}".strip()


def _kept(promise: Promise, values: Values) -> str:
    value = values.get(promise.key)
    if value is None:
        return "not measured"
    if promise.is_kept(value):
        return "kept"
    worse = max(value, promise.target) / max(min(value, promise.target), 1e-9)
    return f"**missed by {number(worse)} ×**"


def _cycles(values: Values) -> str:
    head = (
        "System", "cycles/s", "of the floor", "CPU ms", "× the floor", "server's CPU ms", "resume → completed p50 ms",
        "p99 ms", "p50 at 50 ms", "p99 at 50 ms", "lone cycle ms", "commits, lone", "commits at 50",
    )  # fmt: skip
    rows = [_cycle(system, values) for system in SYSTEMS]
    floor = [_one(values, f"raw.floor.{name}") for name in ("per_second", "cpu_ms", "commits")]
    alone = values.get("raw.floor_alone.per_second")
    last = number(None if alone is None else 1000 / alone)
    lone = _one(values, "raw.floor_alone.commits")
    rows.append(
        ["*Floor: a bare SQLite event log*", floor[0], "1", floor[1], "1", *[NOT_YET] * 5, last, lone, floor[2]]
    )
    return _table(head, rows)


def _cycle(system: System, values: Values) -> list[str]:
    def of(name: str) -> float | None:
        return values.get(f"cycle.{system.key}.{name}")

    columns = ("p50_ms", "p99_ms", "busy_p50_ms", "busy_p99_ms", "alone_ms", "commits_alone", "commits")
    return [
        f"{system.name} ({system.how})",
        number(of("per_second")),
        _share(of("per_second"), values.get("raw.floor.per_second")),
        number(of("cpu_ms")),
        _share(of("cpu_ms"), values.get("raw.floor.cpu_ms")),
        number(of("server_cpu_ms")),
        *(number(of(name)) for name in columns),
    ]


def _share(value: float | None, of: float | None) -> str:
    return NOT_YET if value is None or not of else number(value / of)


def _one(values: Values, key: str) -> str:
    return number(values.get(key))


def _sizes(values: Values) -> list[int]:
    return sorted({int(key.split(".")[1]) for key in values if key.startswith("growth.")})


def _growth(values: Values) -> str:
    if not _sizes(values):
        return ""
    head = ("paused runs in the store", *(f"{says}" for says in GROWTH.values()))
    return _table(
        head, ([f"{size:,}", *(_one(values, f"growth.{size}.{name}") for name in GROWTH)] for size in _sizes(values))
    )


def _replays(values: Values) -> str:
    def row(length: int) -> list[str]:
        took = values.get(f"replay.{length}_us")
        return [f"{length:,}", number(took), number(None if took is None else took / length)]

    return _table(("events", "µs", "µs per event"), (row(length) for length in (10, 100, 1_000, 10_000)), 0)


def _list(values: Values, beginning: str) -> str:
    return "\n".join(f"- **{_one(values, key)}** {says}." for key, says in OTHERS.items() if key.startswith(beginning))


def _machine(results: Results) -> str:
    machine = results.get("machine", {})
    return "\n".join(f"- {name}: {value}" for name, value in machine.items()) or NOT_YET


def _parts(results: Results) -> str:
    def row(name: str, part: Results) -> list[str]:
        outcome = f"**failed**: {part['failed']}" if "failed" in part else ""
        outcome = f"skipped: {part['skipped']}" if "skipped" in part else outcome
        return [name, part["at"], f"{part['load']:g}", f"{part['seconds']:g} s", outcome or "measured"]

    rows = [row(name, part) for name, part in results["parts"].items()]
    return _table(("part", "began (UTC)", "load before", "took", ""), rows, 5) if rows else NOT_YET


# ── the charts ────────────────────────────────────────────────────────────────────────────────────────────────────


def cycles_chart(values: Values) -> str:
    bars = [
        (f"{s.name} ({s.how})".replace("*", "").replace("`", ""), values.get(f"cycle.{s.key}.per_second"))
        for s in SYSTEMS
    ]
    bars.append(("Floor: a bare SQLite event log", values.get("raw.floor.per_second")))
    return chart.bars("Cycles a second, 50 at a time", [(name, value) for name, value in bars if value is not None])


def growth_chart(values: Values) -> str:
    found = [
        (size, values[f"growth.{size}.cycle_ms"]) for size in _sizes(values) if f"growth.{size}.cycle_ms" in values
    ]
    return chart.line("CPU ms per cycle, by paused runs in the store", found)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
