"""P4: no interleaving, crash or lost response breaks the rules, over many seeds of the simulation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.simulation.planted import BUGS, seeds_to_find
from tests.support.simulation.play import play

SEEDS = 2000
PARTS = 4

FLOORS = {
    "writes": 10_000,
    "acked": 2_000,
    "crashes": 400,
    "lost replies": 400,
    "refused": 1_000,
    "stalls": 400,
    "outages": 100,
    "stops": 100,
    "takeovers": 800,
    "fenced writes": 50,
    "stale appends": 20,
    "doubled": 300,
    "cancelled": 20,
    "woken": 10,
    "approvals": 80,
    "bugs met": 300,
    "resets": 100,
    "continued": 150,
    "claimed": 20,
    "started or resumed": 150,
    "scheduled": 500,
}
"""The least that must happen over all seeds: a simulation without faults proves nothing."""

happened: dict[int, Counter[str]] = {}
"""What happened in each part that this process has played."""


def play_part(part: int) -> None:
    counts: Counter[str] = Counter()
    for played in play(range(part, SEEDS, PARTS)):
        counts.update(played.counts)
        if played.found is not None:
            pytest.fail(f"{played.timeline(last=60)}\nAgain: make simulate SEED={played.seed}", pytrace=False)
    happened[part] = counts


@pytest.mark.promise(4)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_breaks_a_rule(part: int) -> None:
    play_part(part)


@pytest.mark.promise(4)
@pytest.mark.timeout(600 * PARTS)
def test_the_seeds_contain_enough_faults() -> None:
    """Play the parts that this process hasn't played yet, and count over all seeds."""
    for part in set(range(PARTS)) - happened.keys():
        play_part(part)
    counts = sum(happened.values(), Counter[str]())
    assert {what: counts[what] for what, floor in FLOORS.items() if counts[what] < floor} == {}


@pytest.mark.promise(4)
@pytest.mark.timeout(600)
@pytest.mark.drifts
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    seeds, found = seeds_to_find(name, 1000)
    assert found is not None, f"{seeds} seeds did not show it"


@pytest.mark.promise(4)
def test_a_seed_plays_the_same_in_another_process() -> None:
    here = [played.timeline() for played in play(range(7, 10))]
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "from tests.support.simulation.play import play; "
        "print('\\x1e'.join(p.timeline() for p in play(range(7, 10))), end='')"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert there.stdout.split("\x1e") == here
