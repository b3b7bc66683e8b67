"""The cost of one approval: opened over the API, card posted to a fake Slack, decided, card updated."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

from benchmarks.acme import PEOPLE
from benchmarks.loader import request
from benchmarks.measures import cpu_of, percentile
from benchmarks.parts.part import Figures, Scale, main, say
from benchmarks.parts.served import JSON, Served, served

FEW = 3  # approvers, as for most requests
MANY = PEOPLE
AT_ONCE = 20


def measure(scale: Scale) -> Figures:
    figures = {f"approval.{name}": value for name, value in asking(FEW, scale(300, 10)).items()}
    many = asking(MANY, scale(200, 5))
    figures |= {f"approval.many_{name}": many[name] for name in ("cpu_ms", "per_second", "bytes")}
    return figures | {"approval.commits": commits(scale(50, 5))}


def asking(people: int, count: int) -> Figures:
    """Measure requests that any one of this many people may decide."""
    with served(asked=people) as service:
        warm = one(service, 0)
        before = cpu_of(service.process.pid)
        times = [one(service, number)[1] for number in range(count)]
        settled(service, one(service, 1)[0])
        cpu = (cpu_of(service.process.pid) - before) / (count + 1)
        events = len(json.loads(get(service, f"/api/runs/{warm[0]}/events"))["events"])
        began = time.perf_counter()
        runs = service.open(count, AT_ONCE)
        service.ask(f"hooks {' '.join(runs)}")
        service.load([service.vote(run, number) for number, run in enumerate(runs)], AT_ONCE, 201)
        rate = count / (time.perf_counter() - began)
        settled(service, runs[-1])
        disk = on_disk(service)
    say(f"{people} people: {cpu * 1000:.1f} CPU ms, {events} events")
    return {
        "cpu_ms": cpu * 1000,
        "per_second": rate,
        "decide_p50_ms": percentile(times, 0.5) * 1000,
        "events": events,
        "bytes": disk / (2 * count + 2),
    }


def commits(count: int) -> float:
    """Count the commits per approval, one after the other, in a separate service, because counting takes time."""
    with served("--commits", asked=FEW) as service:
        one(service, 0)
        settled(service, one(service, 0)[0])
        before = service.ask("commits")
        for number in range(count):
            settled(service, one(service, number)[0])
        return float((service.ask("commits") - before) / count)


def on_disk(service: Served) -> int:
    """Return the database's bytes, after a checkpoint of the write-ahead log."""
    file = service.folder / "runs.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


def one(service: Served, number: int) -> tuple[str, float]:
    """Decide one request. Returns its run and the seconds from the vote to the response."""
    (run,) = service.open(1, first=number)
    service.ask(f"posted {run}")
    found = service.load([service.vote(run, number)], 1, 201)
    return run, found.answers[0].seconds


def settled(service: Served, run: str) -> None:
    """Wait until the run has ended and its last card is updated."""
    while json.loads(get(service, f"/api/runs/{run}?wait=10"))["status"] != "completed":
        pass


def get(service: Served, path: str) -> bytes:
    return service.load([request("GET", f"{service.url}{path}", b"", JSON)], 1, 200).answers[0].body


if __name__ == "__main__":
    main(measure)
