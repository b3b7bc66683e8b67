"""Fixtures for the tests of every room: `clock`, `open_engine`, and PostgreSQL's `postgres` and `postgres_url`.

Always-replay mode and the recording of histories are loaded here, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from approvals_bot.durable.core.registry import registry
from approvals_bot.service.python_workflows import PACKAGE
from tests.support.postgres_server import PostgresServer, missing_server, postgres_server
from tests.support.thorough import THOROUGH

pytest_plugins = [
    "approvals_bot.testing.fixtures",
    "tests.support.always_replay",
    "tests.support.histories",
    "tests.support.no_scans",
    "tests.support.whole_service",
]
# How long an example takes, the machine says, and whatever else it has to do.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

SLOW = (
    "tests/reliability/",
    "tests/journeys/",
    "tests/durable/store/",
    "tests/test_site.py",
    "tests/web/",
    "tests/channels/",
)
"""Where slow tests are. They begin first, so that at the end no process waits for the last long file of another."""

TABLES = ("promise", "scenario", "check", "conformance", "agents")
"""The tables whose row numbers are markers."""


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors, which computes while others wait for a kill or a lease."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the slow rooms. Leave tests marked `long` to `make test-all` (EVERY_BUG=1)."""
    rank = {place: number for number, place in enumerate(SLOW)}
    items.sort(key=lambda item: next((rank[place] for place in SLOW if item.nodeid.startswith(place)), len(SLOW)))
    if THOROUGH:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests."""
    missing = missing_server()
    if missing is not None:
        pytest.skip(missing)
    with postgres_server() as server:
        yield server


@pytest.fixture
def store_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a store for this test alone: SQLite, or PostgreSQL with APPROVALS_TEST_STORE=postgres."""
    if os.environ.get("APPROVALS_TEST_STORE", "sqlite") == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of a PostgreSQL database for this test alone."""
    return postgres.new_database()


@pytest.fixture(autouse=True)
def forget_loaded_workflows() -> Iterator[None]:
    """Forget the workflow files that a test loads: their names are process-wide, and tests share processes."""
    before = dict(registry._kept)
    yield
    for key, workflow in list(registry._kept.items()):
        if key not in before and workflow.origin.startswith(f"{PACKAGE}."):
            del registry._kept[key]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let `-m "promise(n=8)"` select what `@pytest.mark.promise(8)` marks; `-m` compares keyword arguments only."""
    for table in TABLES:
        for mark in list(item.iter_markers(table)):
            for number in mark.args:
                item.add_marker(getattr(pytest.mark, table)(n=number))
