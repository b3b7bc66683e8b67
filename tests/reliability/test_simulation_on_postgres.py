"""P4: no interleaving, crash or lost response breaks the rules on PostgreSQL either.

`POSTGRES_SEEDS=1000` or `make simulate STORE=postgres` plays more seeds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.simulation.planted_postgres import SLIPS, seeds_to_find
from tests.support.simulation.play import play
from tests.support.simulation.postgres_store import PostgresDatabase
from tests.support.thorough import THOROUGH

SEEDS = int(os.environ.get("POSTGRES_SEEDS", "50" if THOROUGH else "25"))

FLOORS = {
    "writes": 500,
    "acked": 150,
    "crashes": 8,
    "lost replies": 8,
    "refused": 40,
    "stalls": 5,
    "takeovers": 40,
    "doubled": 30,
}
"""For 50 seeds, about half of what happened when this was written: a simulation in which nothing happens proves
nothing."""

SLOW = {"forgets_to_wake", "lets_zombies_write", "takes_payloads_after_the_end"}
"""Slips that take too many seeds for CI; `python -m simulation --planted --store postgres` finds them all."""


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(postgres.empty_database())
    yield made
    made.close()


@pytest.mark.promise(4)
@pytest.mark.timeout(120 + 5 * SEEDS)
def test_no_seed_breaks_a_rule_on_postgres(database: PostgresDatabase) -> None:
    happened: Counter[str] = Counter()
    for played in play(range(SEEDS), database):
        happened.update(played.counts)
        if played.found is not None:
            pytest.fail(
                f"{played.timeline(last=60)}\nAgain: make simulate SEED={played.seed} STORE=postgres", pytrace=False
            )
    missing = {what: happened[what] for what, floor in FLOORS.items() if happened[what] < floor * SEEDS // 50}
    assert not missing


@pytest.mark.promise(4)
@pytest.mark.parametrize("name", sorted(set(SLIPS) - SLOW))
def test_a_bug_planted_into_postgres_is_found(database: PostgresDatabase, name: str) -> None:
    seeds, found = seeds_to_find(name, 400, database)
    assert found is not None, f"{seeds} seeds did not show it"


@pytest.mark.promise(4)
def test_a_seed_plays_the_same_on_another_database(postgres: PostgresServer, database: PostgresDatabase) -> None:
    here = [played.timeline() for played in play(range(6, 10), database)]
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import sys; from tests.support.simulation.play import play; "
        "from tests.support.simulation.postgres_store import PostgresDatabase; "
        "there = PostgresDatabase(sys.argv[1]); "
        "print('\\x1e'.join(p.timeline() for p in play(range(7, 10), there)), end=''); there.close()"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, postgres.empty_database()],
        env=environment, capture_output=True, text=True, check=True, cwd=Path.cwd(),
    )  # fmt: skip
    assert there.stdout.split("\x1e") == here[1:]
