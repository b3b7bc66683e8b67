"""Secrets on this machine: who may read the files that we make, and what `doctor` says about weak ones."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from approvals_bot.cli.dev import Origin
from approvals_bot.cli.serve import DEFAULTS, write_beginning
from approvals_bot.config.load import load_service
from approvals_bot.config.messages import ConfigErrors
from tests.support.small_site import Site


@pytest.fixture
def without_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def said(site: Site, about: str) -> list[str]:
    found = site.json("doctor")["findings"]
    return [each["what"] for each in found if (each["about"], each["state"]) == (about, "WARN")]


@pytest.mark.usefixtures("without_umask")
def test_database_and_export_are_for_their_owner_alone(site: Site, tmp_path: Path) -> None:
    site.type("migrate")
    site.type("audit", "export", "--output", str(tmp_path / "audit.jsonl"))
    with closing(sqlite3.connect(tmp_path / "approvals.db")) as db:
        db.execute("UPDATE runs SET seq = seq")  # makes the files beside it
        modes = {path.name: mode(path) for path in (*tmp_path.glob("approvals.db*"), tmp_path / "audit.jsonl")}
    assert modes.keys() >= {"approvals.db", "approvals.db-wal", "approvals.db-shm", "audit.jsonl"}
    assert set(modes.values()) == {0o600}
    site.type("backup", str(tmp_path / "backups" / "today.db"))
    assert mode(tmp_path / "backups") == 0o700


@pytest.mark.usefixtures("without_umask")
def test_secrets_of_init_and_dev_are_for_their_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(write_beginning(tmp_path, DEFAULTS))
    assert {mode(path) for path in (tmp_path / "secrets").iterdir()} == {0o600}
    monkeypatch.chdir(tmp_path)
    Origin(tmp_path / "config.toml", "http://127.0.0.1:8000").read()
    made = [*(tmp_path / ".approvals" / "secrets").iterdir(), tmp_path / ".approvals" / "config.toml"]
    assert {mode(path) for path in made} == {0o600}
    assert mode(tmp_path / ".approvals") == 0o700


def test_dev_signs_with_keys_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(write_beginning(tmp_path, DEFAULTS))
    monkeypatch.chdir(tmp_path)
    origin = Origin(tmp_path / "config.toml", "http://127.0.0.1:8000")
    own = origin.read().service.server.signing_keys
    assert not set(own) & set(load_service(tmp_path / "config.toml", {}).server.signing_keys)
    assert origin.read().service.server.signing_keys == own  # so that its links outlast a restart


def test_doctor_finds_files_that_others_can_read(site: Site, tmp_path: Path) -> None:
    site.type("migrate")
    assert said(site, "files") == [f"other users of this machine can read {tmp_path / 'signing.key'}"]
    (tmp_path / "signing.key").chmod(0o640)
    assert said(site, "files") == []
    (tmp_path / "approvals.db").chmod(0o644)
    assert said(site, "files") == [f"other users of this machine can read {tmp_path / 'approvals.db'}"]


def test_doctor_finds_shared_secrets_that_could_be_guessed(site: Site) -> None:
    site.type("migrate")
    site.write("short.key", "easy")
    site.write(
        "config.toml",
        site.config.read_text().replace(
            "[people.", '[http.deploy]\nurl = "https://d.acme.eu"\nsecret = "file:short.key"\n[people.', 1
        ),
    )
    expected = "that of [http.deploy] has 4 bytes, so somebody could guess it and call the target as we do"
    assert said(site, "secrets") == [expected]


@pytest.mark.parametrize("key", ["changeme" * 6, "CHANGE-ME-" * 5, "your-signing-key-goes-here-and-is-long-enough"])
def test_a_placeholder_is_no_signing_key(site: Site, key: str) -> None:
    site.write("signing.key", key)
    with pytest.raises(ConfigErrors, match="placeholder"):
        load_service(site.config, {})
