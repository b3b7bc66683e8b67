"""`python -m simulation --seed 17`: one seed, told. `--seeds 10000`: many, on all processors. `--planted`: how many
seeds it takes to find each planted bug."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from simulation.planted import BUGS, seeds_to_find
from simulation.play import Played, play

PIECE = 50  # seeds that one process plays before it tells


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell what happened")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--planted", action="store_true", help="plant one bug after another, and find it")
    given = parser.parse_args()
    if given.seed is not None:
        (played,) = play([given.seed])
        print(played.told())
        return 1 if played.found else 0
    if given.planted:
        return _planted(given.seeds)
    return _many(range(given.first, given.first + given.seeds), given.processes)


def _many(seeds: range, processes: int) -> int:
    counts: Counter[str] = Counter()
    began, findings = time.monotonic(), 0
    for played in _everywhere(seeds, processes):
        counts.update(played.counts)
        counts["seeds"] += 1
        if played.found:
            findings += 1
            print(f"{played.told(last=30)}\nAgain: make simulate SEED={played.seed}\n")
        if counts["seeds"] % 1000 == 0:
            print(f"{counts['seeds']} seeds, {findings} findings, {time.monotonic() - began:.0f} s", flush=True)
    happened = ", ".join(f"{what} {times:,}" for what, times in sorted(counts.items()))
    print(f"{findings} findings in {time.monotonic() - began:.0f} s: {happened}")
    return 1 if findings else 0


def _everywhere(seeds: range, processes: int) -> Iterator[Played]:
    pieces = [seeds[i : i + PIECE] for i in range(0, len(seeds), PIECE)]
    with ProcessPoolExecutor(processes) as pool:
        for done in as_completed([pool.submit(_piece, piece) for piece in pieces]):
            yield from done.result()


def _piece(seeds: range) -> list[Played]:
    return [played.to_be_sent() for played in play(seeds)]


def _planted(most: int) -> int:
    missed = 0
    for name in BUGS:
        seeds, found = seeds_to_find(name, most)
        missed += found is None
        print(f"{name}: {'NOT FOUND' if found is None else f'after {seeds} seeds: {str(found)[:150]}'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
