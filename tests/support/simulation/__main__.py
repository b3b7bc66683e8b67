"""`python -m simulation --seed 17`: one seed, told. `--seeds 10000`: many, on all processors."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from simulation.play import play


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell what happened")
    parser.add_argument("--seeds", type=int, default=1000, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    given = parser.parse_args()
    if given.seed is not None:
        (played,) = play([given.seed])
        print(played.told())
        return 1 if played.found else 0
    return _many(range(given.first, given.first + given.seeds))


def _many(seeds: range) -> int:
    counts: Counter[str] = Counter()
    began, findings = time.monotonic(), 0
    for played in play(seeds):
        counts += played.counts
        if played.found:
            findings += 1
            print(f"seed {played.seed}: {played.found}")
    print(f"{len(seeds)} seeds in {time.monotonic() - began:.1f} s, {findings} findings; {dict(counts)}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
