"""Each list reads a page from an index on both stores, whatever is in the store and in the database's statistics."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.core.events import from_micros
from approvals_bot.durable.store import connect, sqlite_reading
from approvals_bot.durable.store.bearers import Bearers
from approvals_bot.durable.store.encoding import cursor_after
from approvals_bot.durable.store.lists import POSTGRES, STATUSES, STATUSES_PRESENT, count_of, page_of
from approvals_bot.durable.store.postgres_connection import LIST_SETTINGS, connect_to
from approvals_bot.durable.store.protocol import ENDED, Filter
from tests.support.postgres_server import PostgresServer, blocking

FIRST = 1_700_000_000_000_000


@dataclass(frozen=True)
class Shape:
    """What a store is full of: SQL expressions of a run's number `n`."""

    runs: int
    workflow: str = "CASE WHEN n % 1000 = 7 THEN 'rare' ELSE 'w' END"
    status: str = "'completed'"
    created_at: str = f"{FIRST} + n"
    requester: str = "CASE WHEN n % 5000 = 3 THEN 'bo' ELSE 'ann' END"
    waits_for: str = "'ann'"
    analyzed: int = 0  # after so many runs: the statistics know nothing of the others
    then: str = "SELECT 1"


SHAPES = {
    "years of completed runs": Shape(
        100_000, status="CASE WHEN n % 5000 = 1 THEN 'failed' WHEN n % 500 = 2 THEN 'running' ELSE 'completed' END"
    ),
    "nearly all failed": Shape(20_000, status="CASE WHEN n < 9 THEN 'completed' ELSE 'failed' END"),
    "nearly all open": Shape(20_000, status="CASE WHEN n % 4000 = 9 THEN 'stalled' ELSE 'running' END"),
    "one workflow": Shape(20_000, "'w'", "CASE WHEN n % 2 = 0 THEN 'failed' ELSE 'completed' END"),
    "a new workflow among old ones": Shape(
        20_000, "CASE WHEN n < 9 THEN 'rare' ELSE 'w' END", "CASE WHEN n < 5 THEN 'running' ELSE 'cancelled' END"
    ),
    "a new workflow that statistics don't know": Shape(
        20_000, "CASE WHEN n % 7 = 0 AND n > 19900 THEN 'rare' ELSE 'w' END", "'failed'", analyzed=19_500
    ),
    "5,000 open runs wait for one person": Shape(
        20_000, status="CASE WHEN n <= 5000 THEN 'running' ELSE 'completed' END"
    ),
    "all of one instant": Shape(20_000, created_at=f"{FIRST} + 25000"),
    "half deleted": Shape(
        20_000,
        status="CASE WHEN n % 5000 = 1 THEN 'failed' WHEN n > 19800 THEN 'running' ELSE 'completed' END",
        then="DELETE FROM {table} WHERE created_at % 2 = 0",
    ),
}

STATES: list[dict[str, Any]] = [
    {},
    *({"status": status} for status in ("running", "stalled", "completed", "failed")),
    {"is_open": True},
    {"is_open": False},
]
PAGES: list[dict[str, Any]] = [{}, {"oldest_first": True, "cursor": f"{FIRST + 25_000}.run_10000"}]
ASKED = [
    {"workflow": workflow, **state, "attributes": attributes, **page}
    for workflow, state, attributes, page in itertools.product(
        (None, "w", "rare"),
        STATES,
        ({}, {"$requested_by": "ann"}, {"$requested_by": "bo"}, {"$waiting_for": "ann"}),
        PAGES,
    )
]
LISTS = [Filter(**asked) for asked in ASKED]
RANGES: list[dict[str, Any]] = [
    {"due": {"gte": "0000000"}},
    {"due": {"gt": "0007000", "lt": "0007100"}},
    {"due": {"lte": "0000009"}},
]
AFTER = {
    "oldest_first": True,
    "cursor": cursor_after("run_7050", "s0007050"),
}
BY_VALUE = [
    Filter(**{"workflow": workflow, **state, "attributes": range, **page})
    for workflow, state, range, page in itertools.product((None, "w", "rare"), STATES, RANGES, ({}, AFTER))
]
BETWEEN = [
    Filter(**asked, opened_after=from_micros(FIRST + 9_000), opened_before=from_micros(FIRST + 19_000))
    for asked in ({}, {"workflow": "w"}, {"attributes": {"$requested_by": "ann"}, "is_open": True})
]
BY_END = Filter(ended_since=datetime(2027, 1, 15, tzinfo=UTC))


DUE = "'s' || substr(CAST(10000000 + n AS TEXT), 2)"
"""The key of a text: the run's number, in seven digits."""


def filling(shape: Shape, numbers: str) -> list[str]:
    """Return the statements that fill a store. `numbers` is SQL for numbers `n` from {first} to {last}."""
    ended = ", ".join(f"'{status}'" for status in ENDED)
    statements = []
    for first, last in ((1, shape.analyzed), (shape.analyzed + 1, shape.runs)):
        statements.append(
            f"""INSERT INTO runs (id, workflow, code, status, created_at, ended_at, indexed, seq)
                SELECT 'run_' || n, {shape.workflow}, 'w', {shape.status}, {shape.created_at},
                  CASE WHEN {shape.status} IN ({ended}) THEN 1800000000000000 END, 'x', n
                FROM {numbers.format(first=first, last=last)}"""  # noqa: S608  # our own texts
        )
        statements += [
            f"""INSERT INTO attributes (run_id, name, value, workflow, status, created_at)
                SELECT id, '{name}', {value}, workflow, status, created_at
                FROM (SELECT *, seq AS n FROM runs WHERE seq >= {first}) AS runs"""  # noqa: S608
            for name, value in (("$requested_by", shape.requester), ("$waiting_for", shape.waits_for), ("due", DUE))
        ]
        if last == shape.analyzed > 0:
            statements.append("ANALYZE")
    return [*statements, *(shape.then.format(table=table) for table in ("runs", "attributes"))]


# ── SQLite ──

STEPS = 12_000
"""Steps of SQLite's virtual machine that a page of 50 runs may take, and a count up to 50: about twice what they take
now. Reading the index of 20,000 runs takes more than 60,000."""


@pytest.fixture(scope="module", params=SHAPES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    made = tmp_path_factory.mktemp("plans") / "runs.db"
    asyncio.run(_make(made))
    shape = SHAPES[request.param]
    numbers = (
        "(WITH RECURSIVE n (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {last}) "
        "SELECT n FROM n WHERE n <= {last})"
    )
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        Bearers().register(db)
        db.execute("PRAGMA synchronous = OFF")
        for sql in filling(shape, numbers):
            db.execute(sql)
        yield db


async def _make(file: Path) -> None:
    await (await connect(f"sqlite:///{file}")).close()


def test_a_list_on_sqlite_reads_no_more_than_its_page(full: sqlite3.Connection) -> None:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for statistics in ("absent or old", "present"):
        if statistics == "present":
            full.execute("ANALYZE")
        full.set_progress_handler(count, 1)
        for which in (*LISTS, *BY_VALUE, *BETWEEN, BY_END):
            steps = 0
            sqlite_reading.runs(full, Bearers(), which)
            assert steps <= STEPS, (statistics, which)
            steps = 0
            sqlite_reading.count(full, Bearers(), which, 50)
            assert steps <= STEPS, (statistics, which)
        full.set_progress_handler(None, 0)


def test_every_list_on_sqlite_is_the_page_that_a_filter_gives(full: sqlite3.Connection) -> None:
    everything = full.execute("SELECT id, workflow, status, ended_at IS NULL, created_at FROM runs").fetchall()
    pairs = set(full.execute("SELECT run_id, name, value FROM attributes").fetchall())
    for asked, which in zip(ASKED[::5], LISTS[::5], strict=True):
        found = [
            (created_at, id)
            for id, workflow, status, is_open, created_at in everything
            if asked["workflow"] in (None, workflow)
            and asked.get("status", status) == status
            and asked.get("is_open", is_open) == is_open
            and all((id, name, value) in pairs for name, value in asked["attributes"].items())
            and ("cursor" not in asked or (created_at, id) > (FIRST + 25_000, "run_10000"))
        ]
        page, cursor = sqlite_reading.runs(full, Bearers(), which)
        expected = [id for _, id in sorted(found, reverse="cursor" not in asked)]
        assert [run.id for run in page] == expected[:50], which
        assert (cursor is None) == (len(expected) <= 50)
        assert sqlite_reading.count(full, Bearers(), Filter(**{**asked, "cursor": None}), 50) <= 50


# ── PostgreSQL ──

BUFFERS = 1_000
"""Pages of 8 kB that a list of 50 runs may touch: about twice as many as now."""


@pytest.fixture(scope="module", params=SHAPES)
def full_database(request: pytest.FixtureRequest, postgres: PostgresServer) -> str:
    url = postgres.new_database()
    for table in ("runs", "attributes"):
        postgres.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)", url)
    shape = SHAPES[request.param]
    for sql in filling(shape, "generate_series({first}, least({last}, 30000)) AS n"):
        postgres.execute(sql, url)
    return url


def test_a_list_on_postgresql_reads_no_more_than_its_page(postgres: PostgresServer, full_database: str) -> None:
    for statistics in ("absent or old", "present"):
        if statistics == "present":
            postgres.execute("ANALYZE", full_database)
        for plans in ("force_custom_plan", "force_generic_plan"):
            for which, nodes in blocking(_plans(full_database, [*LISTS[::3], *BY_VALUE[::2], *BETWEEN, BY_END], plans)):
                touched = nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"]
                rows = sum(_read(node) for node in nodes if "Index Name" in node or "Relation Name" in node)
                assert rows <= (which.limit + 1) * (len(STATUSES) + 1), (statistics, plans, which, nodes)
                assert touched <= BUFFERS, (statistics, plans, which, nodes)


async def _plans(url: str, lists: list[Filter], plans: str) -> list[tuple[Filter, list[dict[str, Any]]]]:
    """Explain, on a connection like the one for lists, what reading each list has done."""
    found = []
    connection = await connect_to(url, settings={**LIST_SETTINGS, "plan_cache_mode": plans})
    try:
        for which in lists:
            page, count = page_of(which, [], "run_json(runs)", POSTGRES), count_of(which, [], 50, POSTGRES)
            for sql, given in (page, count, (STATUSES_PRESENT, [])):
                await connection.execute(f"PREPARE list AS {sql}")
                values = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in given)
                explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE list{f'({values})' if values else ''}"
                nodes, more = list[dict[str, Any]](), [json.loads(await connection.fetchval(explain))[0]["Plan"]]
                while more:
                    node = more.pop()
                    nodes.append(node)
                    more += node.get("Plans", [])
                found.append((which, nodes))
                await connection.execute("DEALLOCATE list")
    finally:
        await connection.close()
    return found


def _read(node: dict[str, Any]) -> float:
    """Return how many rows a node of a plan has read, those that it dropped among them."""
    return float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
