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
from tests.support.thorough import THOROUGH

SEEDS = 10_000 if THOROUGH else 160
PARTS = 4

FLOORS = {
    "writes": 5_000,
    "acked": 1_000,
    "crashes": 200,
    "lost replies": 200,
    "refused": 500,
    "stalls": 200,
    "outages": 50,
    "stops": 50,
    "takeovers": 400,
    "fenced writes": 25,
    "stale appends": 10,
    "doubled": 150,
    "cancelled": 10,
    "woken": 5,
    "approvals": 40,
    "bugs met": 150,
    "resets": 50,
    "continued": 75,
    "claimed": 10,
    "started or resumed": 75,
    "scheduled": 250,
}
"""The least that must happen over 1,000 seeds: a simulation without faults proves nothing."""

NEED_MANY_SEEDS = {
    "believes_what_is_remembered",
    "forgets_to_wake",
    "forgets_what_it_owes",
    "keeps_the_parent_that_it_had",
    "lets_zombies_write",
    "loses_a_stalled_run_with_who_took_it_up",
    "takes_payloads_after_the_end",
}
"""Planted bugs that only a hundred seeds or so find."""

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
    assert {what: counts[what] for what, floor in FLOORS.items() if counts[what] < floor * SEEDS // 1000} == {}


@pytest.mark.promise(4)
@pytest.mark.timeout(600)
@pytest.mark.drifts
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in NEED_MANY_SEEDS)) for name in BUGS]
)
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
