"""`python -m simulation --seed 17` prints one seed's timeline. `--seeds 10000` plays many, on all processors.

`--planted` counts the seeds it takes to find each planted bug. `--store postgres` uses PostgreSQL instead of SQLite.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager

from tests.support.postgres_server import PostgresServer, postgres_server
from tests.support.simulation import planted, planted_postgres
from tests.support.simulation.play import GROUPS, Played, play
from tests.support.simulation.postgres_store import PostgresDatabase
from tests.support.simulation.store import Database

CHUNK = 50  # seeds that one process plays before it reports


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one and print its timeline")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--planted", action="store_true", help="plant one bug after another, and find it")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--group", choices=GROUPS, help="play only runs of this kind")
    given = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(postgres_server()).url if given.store == "postgres" else None
        if given.planted:
            return _planted(given.seeds, url)
        if given.seed is None:
            return _many(range(given.first, given.first + given.seeds), given.processes, url, given.group)
        with _database(url) as database:
            (played,) = play([given.seed], database, given.group)
        print(played.timeline())
        return 1 if played.found else 0


@contextmanager
def _database(url: str | None) -> Iterator[Database | None]:
    """One of our own on the server of this URL, gone afterwards; None: on SQLite."""
    if url is None:
        yield None
        return
    server = PostgresServer(url)
    try:
        with closing(PostgresDatabase(server.empty_database())) as database:
            yield database
    finally:
        server.drop_all()


def _many(seeds: range, processes: int, url: str | None, group: str | None) -> int:
    counts: Counter[str] = Counter()
    began, findings = time.monotonic(), 0
    again = "" if url is None else " STORE=postgres"
    for played in _everywhere(seeds, processes, url, group):
        counts.update(played.counts)
        counts["seeds"] += 1
        if played.found:
            findings += 1
            print(f"{played.timeline(last=30)}\nAgain: make simulate SEED={played.seed}{again}\n")
        if counts["seeds"] % 1000 == 0:
            print(f"{counts['seeds']} seeds, {findings} findings, {time.monotonic() - began:.0f} s", flush=True)
    happened = ", ".join(f"{what} {times:,}" for what, times in sorted(counts.items()))
    print(f"{findings} findings in {time.monotonic() - began:.0f} s: {happened}")
    return 1 if findings else 0


def _everywhere(seeds: range, processes: int, url: str | None, group: str | None) -> Iterator[Played]:
    chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        for done in as_completed([pool.submit(_chunk, chunk, url, group) for chunk in chunks]):
            yield from done.result()


def _chunk(seeds: range, url: str | None, group: str | None) -> list[Played]:
    with _database(url) as database:
        return [played.to_be_sent() for played in play(seeds, database, group)]


def _planted(most: int, url: str | None) -> int:
    missed = 0
    for name in planted.BUGS if url is None else planted_postgres.SLIPS:
        with _database(url) as database:
            if isinstance(database, PostgresDatabase):
                seeds, found = planted_postgres.seeds_to_find(name, most, database)
            else:
                seeds, found = planted.seeds_to_find(name, most)
        missed += found is None
        print(f"{name}: {'NOT FOUND' if found is None else f'after {seeds} seeds: {str(found)[:150]}'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
