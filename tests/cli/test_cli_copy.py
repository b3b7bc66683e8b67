"""`copy`, and `serve --workers`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from approvals_bot.cli.commands import app
from approvals_bot.durable.store import connect
from tests.support.new_runs import new_run


def test_copy_works_once_and_refuses_a_filled_target(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        store = await connect(f"sqlite:///{tmp_path}/old.db")
        await store.create(new_run("r", "w", "w", None, {}), datetime(2026, 1, 1, tzinfo=UTC))
        await store.close()

    asyncio.run(fill())
    monkeypatch.setenv("NEW_DATABASE", postgres_url)
    line = ["copy", "--from", f"sqlite:///{tmp_path}/old.db", "--to", "env:NEW_DATABASE"]
    done = CliRunner().invoke(app, line)
    assert (done.exit_code, done.stdout) == (0, "Copied and verified 1 runs, 1 events and the audit log.\n")
    again = CliRunner().invoke(app, line)
    assert again.exit_code == 1
    unset = CliRunner().invoke(app, ["copy", "--from", "env:NOWHERE_SET", "--to", "env:NEW_DATABASE"])
    assert "NOWHERE_SET is not set" in unset.stderr


def test_copy_refuses_a_missing_or_empty_source(tmp_path: Path) -> None:
    def refused(source: str, target: str, status: int = 1) -> str:
        done = CliRunner().invoke(app, ["copy", "--from", source, "--to", target])
        assert done.exit_code == status
        assert "Please report" not in done.stderr
        return done.stderr

    old, new = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
    assert "There is no file" in refused(old, new)
    assert list(tmp_path.iterdir()) == [], "neither database was created"
    asyncio.run(_create(old))
    assert "The source is empty" in refused(old, new)
    assert "--from: write a database URL that starts with" in refused("old.db", new, 2)
    assert "--to: write a database URL that starts with" in refused(old, "mysql://somebody:secret@host/x", 2)


async def _create(url: str) -> None:
    await (await connect(url)).close()


def test_several_workers_are_refused_with_the_reason() -> None:
    refused = CliRunner().invoke(app, ["serve", "--workers", "2"])
    assert refused.exit_code == 2
    assert "one writer at a time" in refused.stderr
