"""Fixtures of the engine's tests. They run on SQLite, and those of the files in BOTH on PostgreSQL, too;
APPROVALS_TEST_STORE=postgres runs all of them there."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.durable.engine import Engine
from approvals_bot.testing import FakeClock
from approvals_bot.testing.fixtures import OpenEngine

BOTH = {
    "test_near_limits",
    "test_attributes",
    "test_cancelling",
    "test_children",
    "test_fsck",
    "test_full_hooks",
    "test_continuing",
    "test_hook_tokens",
    "test_hooks",
    "test_idempotency",
    "test_lines",
    "test_lookups",
    "test_parents_and_children",
    "test_resets",
    "test_run_cache",
    "test_schedules",
    "test_stalls",
    "test_starts_later",
    "test_webhooks_of_runs",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "open_engine" in metafunc.fixturenames:
        one = os.environ.get("APPROVALS_TEST_STORE", "sqlite")
        both = metafunc.module.__name__.rpartition(".")[2] in BOTH
        metafunc.parametrize("database", ["sqlite", "postgres"] if both else [one])


@pytest.fixture
def database_url(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> str:
    """The URL of the database that `open_engine` opens."""
    return f"sqlite:///{tmp_path}/runs.db" if database == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def open_engine(clock: FakeClock, database_url: str) -> OpenEngine:
    """Return the product's fixture of this name, on either store."""

    def open(**options: Any) -> AbstractAsyncContextManager[Engine]:
        given = {"signing_keys": ["a test's key, 32 bytes and longer"], "base_url": "https://example.test"}
        return Engine.open(database_url, **{"clock": clock, **given, **options})

    return open
