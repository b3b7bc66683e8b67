"""What `doctor` says about a service as it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from approvals_bot.approvals.port import Diagnosis
from approvals_bot.cli import doctor_service
from approvals_bot.cli.doctor_service import check_service
from approvals_bot.config.load import load_service
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.durable.store.protocol import NewRun, RunRecord
from approvals_bot.durable.store.replicas import ReplicaRow
from approvals_bot.service.replicas import shown_installation
from tests.support.browsing import a_port, serving

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
CONFIG = """
[server]
base_url = "{url}"
database = "sqlite:///runs.db"
signing_keys = ["env:KEY"]
"""


def settings(folder: Path, url: str) -> ServiceSettings:
    file = folder / "config.toml"
    file.write_text(CONFIG.format(url=url))
    return load_service(file, {"KEY": "a signing key of the tests: 0123456789abcdef"})


async def found(service: ServiceSettings) -> dict[str, Diagnosis]:
    return {each.about: each for each in await check_service(service, NOW)}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Any]:
    store = await connect(f"sqlite:///{tmp_path / 'runs.db'}")
    yield store
    await store.close()


async def announce(store: Any, id: str, keys: tuple[str, ...]) -> None:
    await store.announce(ReplicaRow(id, "0.1.0", NOW, NOW, 1, keys, keys[0], "digest"))


async def test_a_service_that_is_well_has_no_warning(store: Any, tmp_path: Path) -> None:
    said = await found(settings(tmp_path, "http://127.0.0.1:1"))
    assert {name: each.state for name, each in said.items()} == {
        "open files": "OK",
        "address": "OK",
        "stalled runs": "OK",
        "deliveries": "OK",
    }
    assert "no process serves" in said["address"].what


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        ({"installation": "ours"}, "OK", "leads to this installation"),
        ({"installation": "another"}, "FAIL", "another installation"),
        ([], "FAIL", "another service"),
    ],
)
async def test_base_url_leads_to_this_installation(
    store: Any, tmp_path: Path, answer: Any, state: str, words: str
) -> None:
    await announce(store, "one", ("k1",))
    if answer and answer["installation"] == "ours":
        answer = {"installation": shown_installation(store.installation), "scheme": "http"}
    routes = [Route("/healthz", lambda _: JSONResponse(answer))]
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with serving(Starlette(routes=routes), bound):
            said = (await found(settings(tmp_path, url)))["address"]
    assert (said.state, words in said.what) == (state, True), said
    gone = (await found(settings(tmp_path, url)))["address"]
    assert (gone.state, "can't be reached from here" in gone.what) == ("WARN", True)


async def test_a_replica_without_a_key_in_use_is_named(store: Any, tmp_path: Path) -> None:
    await announce(store, "one", ("k1",))
    await announce(store, "two", ("k2", "k1"))
    said = (await found(settings(tmp_path, "http://127.0.0.1:1")))["keys of replicas"]
    assert (said.state, said.what.startswith("the replica one lacks k2")) == ("WARN", True)


async def test_little_room_and_no_retention_are_warned_of(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = RunRecord.new("run_1", "deploy", "deploy", None, NOW - timedelta(days=1))
    await store.create(NewRun(row, {}), NOW - timedelta(days=1))
    monkeypatch.setattr(doctor_service, "_free", lambda path: 1_000)
    monkeypatch.setattr(doctor_service, "file_limit", lambda: 256)
    monkeypatch.setattr(doctor_service, "MANY_RUNS", 1)
    said = await found(settings(tmp_path, "http://127.0.0.1:1"))
    assert (said["disk"].state, "room for 0 days more" in said["disk"].what) == ("WARN", True)
    assert said["open files"].state == "WARN"
    assert (said["retention"].state, said["retention"].what.startswith("1 runs and 0.0 GB")) == ("WARN", True)


async def test_a_run_that_keeps_the_audit_from_being_cut_is_named(store: Any, tmp_path: Path) -> None:
    long_ago = NOW - timedelta(days=41)
    await store.create(NewRun(RunRecord.new("run_1", "deploy", "deploy", None, long_ago), {}), long_ago)
    await store.audit(AuditEntry("signed_in"), long_ago)
    for audit, state in ((timedelta(days=39), "WARN"), (timedelta(days=40), "")):
        service = settings(tmp_path, "http://127.0.0.1:1")
        table = service.retention.model_copy(update={"audit": audit})
        said = (await found(service.model_copy(update={"retention": table}))).get("retention")
        assert (said.state if said is not None else "") == state
    assert said is None or "run_1" in said.what
