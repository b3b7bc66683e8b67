"""Which closed hook took a `resume_id`: found by two indexes on both stores."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from approvals_bot.durable.store import connect, sqlite_reading
from approvals_bot.durable.store.bearers import Bearers
from tests.support.postgres_server import PostgresServer

HOOK_THAT_TOOK = """
    SELECT id FROM (
      SELECT id, run_id, number, created_at FROM hooks
      WHERE token = 't7' AND NOT is_live ORDER BY created_at DESC LIMIT 1000) AS ended
    WHERE EXISTS (
      SELECT FROM events WHERE run_id = ended.run_id AND key = number || '.received.' || '2' OFFSET 0)
    LIMIT 1"""
"""As in the function `hook_that_took`, whose plan PostgreSQL doesn't show."""

INDEXES = ("hooks_ended", "events_once")


def test_sqlite_finds_a_resume_id_by_two_indexes(tmp_path: Path) -> None:
    async def make() -> None:
        await (await connect(f"sqlite:///{tmp_path}/runs.db")).close()

    asyncio.run(make())
    asked: list[str] = []
    with closing(sqlite3.connect(tmp_path / "runs.db")) as db:
        Bearers().register(db)
        db.set_trace_callback(asked.append)
        assert sqlite_reading.hook_that_took(db, "t", "r") is None
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()]
    assert not any(step.startswith("SCAN") and step != "SCAN ended" for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
    assert all(any(index in step for step in plan) for index in INDEXES), plan


def test_postgresql_finds_a_resume_id_by_two_indexes(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    for sql in (
        """INSERT INTO hooks (id, run_id, number, token, is_webhook, has_schema, metadata, created_at, is_live)
            SELECT 'h' || n, 'run_' || n, 1, 't' || n % 5000, false, false, 'null', n, false
            FROM generate_series(1, 20000) AS n""",
        """INSERT INTO events (run_id, seq, type, at, key, data)
            SELECT 'run_' || n, seq, 'hook_received', 1, '1.received.' || seq, '{}'
            FROM generate_series(1, 20000) AS n, generate_series(1, 3) AS seq""",
        "ANALYZE",
    ):
        postgres.execute(sql, url)
    nodes, more = list[dict[str, Any]](), list[dict[str, Any]]()
    more = [json.loads(postgres.execute(f"EXPLAIN (FORMAT JSON) {HOOK_THAT_TOOK}", url)[0][0])[0]["Plan"]]
    while more:
        node = more.pop()
        nodes.append(node)
        more += node.get("Plans", [])
    assert not any(node["Node Type"] == "Seq Scan" for node in nodes), nodes
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == set(INDEXES), nodes
