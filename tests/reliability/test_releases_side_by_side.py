"""P12: a newer release brings its schema and workflows while older replicas still serve; then these stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from approvals_bot.durable.store.postgres_schema import migrations
from tests.support.postgres_server import PostgresServer
from tests.support.replicas import Fleet, Replica, eventually, fleet, people_click, taken

DRAIN = 10.0  # seconds that a replica has after SIGTERM
BUSY = 10.0  # seconds that a very busy machine may add

NEXT = "9999_next.postgres.sql"
NEXT_SCHEMA = """
ALTER TABLE runs ADD COLUMN note TEXT;
ALTER TABLE events ADD COLUMN note TEXT;
ALTER TABLE hooks ADD COLUMN note TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_noted ON runs (note) WHERE note IS NOT NULL;
"""
"""What a release may do: add columns and indexes. docs/postgresql.md says what it must not do."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.empty_database()


@pytest.fixture
def replicas(database: str, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / NEXT).write_text(NEXT_SCHEMA)
    with fleet(tmp_path, database) as made:
        yield made


def version(postgres: PostgresServer, database: str) -> int:
    return int(postgres.execute("SELECT max(version) FROM schema_versions", database)[0][0])


def start_waiting(replica: Replica, name: str) -> str:
    """Start a run and return its id once it waits for its hook."""
    run_id = replica.start_run("greetings", name=name)
    eventually(lambda: replica.http.get(f"/api/hooks/{name}").status_code == 200)
    return run_id


@pytest.mark.promise(12)
def test_two_releases_serve_side_by_side_until_the_older_stops(
    replicas: Fleet, postgres: PostgresServer, database: str
) -> None:
    older = replicas.start(2)  # at once, on an empty database
    assert version(postgres, database) == len(migrations())
    there = list(older)
    run_id = older[0].start_run("collects", token="p12")
    with people_click(there, "p12") as clicks:
        eventually(lambda: len(clicks.acknowledged) > 20)
        newer = replicas.start(2, NEXT)  # at once: one of them changes the schema under those that work with it
        there += newer
        assert version(postgres, database) == len(migrations()) + 1
        count = len(clicks.acknowledged)
        eventually(lambda: len(clicks.acknowledged) > count + 20)
        assert {replica.http.get("/readyz").status_code for replica in there} == {200}

        one, two = start_waiting(older[0], "one"), start_waiting(newer[0], "two")
        newer[0].http.post("/api/hooks/one", json="day").raise_for_status()
        older[0].http.post("/api/hooks/two", json="day").raise_for_status()  # which has no version 2 of this workflow
        eventually(lambda: newer[1].run(one)["status"] == "completed")
        eventually(lambda: newer[1].run(two)["status"] == "completed")
        assert [newer[1].run(each)["result"] for each in (one, two)] == ["one day", "two day"]

        for replica in older:
            there.remove(replica)
            status, seconds = replica.stop()
            assert status == 0, (replicas.folder / "log.txt").read_text()
            assert seconds < DRAIN + BUSY
            count = len(clicks.acknowledged)
            eventually(lambda count=count: len(clicks.acknowledged) > count + 20)
    assert set(clicks.statuses) <= {"200", "503", "no connection"}, clicks.statuses
    found = taken(newer[0], run_id)
    assert len(found) == len(set(found)), "each click counts once"
    assert set(clicks.acknowledged) <= set(found), "what was acknowledged is there"

    late = Replica(replicas.folder)
    replicas.replicas.append(late)
    assert late.process.wait(60) == 1, "the older program refuses to start, and says why"
    said = (replicas.folder / "log.txt").read_text()
    assert f"has schema {len(migrations()) + 1}, but this program knows only {len(migrations())}" in said
    assert "run the newer program" in said


@pytest.mark.promise(12)
def test_a_failed_migration_leaves_the_schema_unchanged(
    replicas: Fleet, postgres: PostgresServer, database: str
) -> None:
    (older,) = replicas.start(1)
    (replicas.folder / NEXT).write_text(NEXT_SCHEMA + "SELECT 1 / 0;")
    failing = Replica(replicas.folder, NEXT)
    replicas.replicas.append(failing)
    assert failing.process.wait(60) == 1
    assert "can't be brought up to date: division by zero" in (replicas.folder / "log.txt").read_text()
    assert version(postgres, database) == len(migrations())
    run_id = start_waiting(older, "still")
    older.http.post("/api/hooks/still", json="there").raise_for_status()
    assert older.run(run_id, wait=20)["result"] == "one there"
