"""Each list is a page over an index on both stores, so its cost doesn't grow with the number of runs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.store import connect, sqlite_reading
from approvals_bot.durable.store.postgres import count_of, page_of
from approvals_bot.durable.store.protocol import Filter
from tests.support.postgres_server import PostgresServer

CURSOR = "1700000000025000.run_25000"

LISTS = {
    "all": (Filter(), "runs_listed"),
    "of a workflow": (Filter(workflow="rare"), "runs_of_workflow"),
    "failed": (Filter(status="failed"), "runs_of_status"),
    "stalled": (Filter(status="stalled"), "runs_of_status"),
    "running": (Filter(status="running"), "runs_of_status"),
    "completed": (Filter(status="completed"), "runs_listed"),
    "waiting for me, the oldest first": (
        Filter(attributes={"$waiting_for": "ann"}, is_open=True, oldest_first=True),
        "attributes_open",
    ),
    "asked by me": (Filter(attributes={"$requested_by": "ann"}), "attributes_pkey"),
    "voted on by me": (Filter(attributes={"$voted_by": "ann"}), "attributes_pkey"),
    "of a team": (Filter(attributes={"team": "red"}), "attributes_pkey"),
    "waiting for me, of a team": (
        Filter(attributes={"$waiting_for": "ann", "team": "red"}, is_open=True),
        "attributes_open",
    ),
}
"""Lists, and the index that each reads."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("plans") / "runs.db"

    async def make() -> None:
        await (await connect(f"sqlite:///{made}")).close()

    asyncio.run(make())
    return made


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """Insert 50,000 runs. Nearly all have ended, all were once Ann's, and a few wait for Ann now."""
    url = postgres.new_database()
    for sql in (
        """INSERT INTO runs (id, workflow, code, kind, status, created_at, ended_at, seq)
            SELECT 'run_' || n, CASE WHEN n % 1000 = 7 THEN 'rare' ELSE 'w' END, 'w', 'request',
              CASE WHEN n % 5000 = 1 THEN 'failed' WHEN n > 49800 THEN 'running' ELSE 'completed' END,
              1700000000000000 + n, CASE WHEN n <= 49800 THEN 1800000000000000 END, 1
            FROM generate_series(1, 50000) AS n""",
        """INSERT INTO attributes (name, value, created_at, run_id, is_open)
            SELECT name, 'ann', created_at, id, ended_at IS NULL
            FROM runs, unnest(ARRAY['$waiting_for', '$requested_by', '$voted_by']) AS name""",
        """INSERT INTO attributes (name, value, created_at, run_id, is_open)
            SELECT 'team', 'red', created_at, id, ended_at IS NULL FROM runs""",
        "ANALYZE",
    ):
        postgres.execute(sql, url)
    return url


@pytest.fixture
def db(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file)) as connection:
        yield connection


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("cursor", [None, CURSOR], ids=["first page", "a later page"])
def test_sqlite_reads_a_page_in_the_order_of_an_index(db: sqlite3.Connection, name: str, cursor: str | None) -> None:
    which, index = LISTS[name]
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    sqlite_reading.runs(db, _at(which, cursor))
    page = asked[-1]
    sqlite_reading.count(db, which, 100)
    for sql in (page, asked[-1]):
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
        leading = next(step for step in plan if step.startswith(("SEARCH", "SCAN")) and "CO-ROUTINE" not in step)
        as_sqlite_says = "PRIMARY KEY" if index == "attributes_pkey" else index
        # Counting needs no order, and nearly every run is one of the completed.
        fits_a_count = "COVERING INDEX" in leading or which.status == "completed"
        assert as_sqlite_says in leading or (sql is not page and fits_a_count), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("cursor", [None, CURSOR], ids=["first page", "a later page"])
def test_postgresql_reads_a_page_in_the_order_of_an_index(
    postgres: PostgresServer, database: str, name: str, cursor: str | None
) -> None:
    which, index = LISTS[name]
    plan = _plan(postgres, database, *page_of(_at(which, cursor)))
    assert index in [node.get("Index Name") for node in plan], plan
    assert not any(node["Node Type"] == "Seq Scan" for node in plan), plan
    # Where a sample of the table lets PostgreSQL expect hardly a row, it may sort those few: no more than a page.
    sorted_rows = [below["Actual Rows"] for node in plan if "Sort" in node["Node Type"] for below in node["Plans"]]
    assert sum(sorted_rows) <= which.limit + 1, plan
    rows = sum(node["Actual Rows"] * node["Actual Loops"] for node in plan if "Index Name" in node)
    assert rows <= 4 * (which.limit + 1), "it reads what is on the page, and hardly more"


def test_postgresql_counts_along_an_index(postgres: PostgresServer, database: str) -> None:
    plan = _plan(postgres, database, *count_of(LISTS["waiting for me, the oldest first"][0], 100))
    assert not any(node["Node Type"] == "Seq Scan" for node in plan), plan
    assert max(node["Actual Rows"] for node in plan) <= 200, plan


def _at(which: Filter, cursor: str | None) -> Filter:
    return Filter(which.workflow, which.status, which.attributes, which.is_open, which.oldest_first, cursor)


def _plan(postgres: PostgresServer, database: str, sql: str, given: list[Any]) -> list[dict[str, Any]]:
    """Return the nodes of the plan, as it was executed."""
    for place in range(len(given), 0, -1):
        value = given[place - 1]
        sql = sql.replace(f"${place}", str(value) if isinstance(value, int) else f"'{value}'")
    found = postgres.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", database)[0][0]
    nodes, more = list[dict[str, Any]](), [json.loads(found)[0]["Plan"]]
    while more:
        node = more.pop()
        nodes.append(node)
        more += node.get("Plans", [])
    return nodes
