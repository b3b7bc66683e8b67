"""Logs of real runs, kept in tests/histories: they must replay for ever.

`pytest TESTS --record-histories` writes one file for each run of the tests that ran: those of the approval workflow, of
the sample workflows and of `kept_workflows.py`. A file that is there is never written again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import approvals_bot
from approvals_bot.approvals.workflow import approval
from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.events import Event, Log, from_micros, to_micros
from approvals_bot.durable.engine import Engine
from approvals_bot.service.python_workflows import import_programs
from tests.support import kept_workflows
from tests.support.prefixes import without_tracebacks

FOLDER = Path(__file__).parents[1] / "histories"
SAMPLES = Path(__file__).parents[2] / "workflows"


@dataclass(frozen=True)
class History:
    """One recorded run. `links`: its webhooks' URLs, by hook id."""

    name: str
    recorded_with: Mapping[str, str]
    code: str
    version: str | None
    links: Mapping[str, str]
    log: Log

    def link(self, hook_id: str) -> str:
        return self.links[hook_id]


def known_workflows() -> dict[tuple[str, str | None], Workflow[Any, Any]]:
    """Those whose runs are kept."""
    kept = [each for each in vars(kept_workflows).values() if isinstance(each, Workflow)]
    samples, problems = import_programs(SAMPLES)
    assert not problems
    return {(each.code, each.version): each for each in [approval, *kept, *(one.workflow for one in samples)]}


def read(path: Path) -> History:
    found = json.loads(path.read_text())
    log = [Event(e["seq"], e["type"], from_micros(e["at"]), e["data"]) for e in found.pop("events")]
    return History(path.stem, log=log, **found)


def write(history: History) -> None:
    """One event a line, so that a change in a file could be read."""
    head = {
        "recorded_with": history.recorded_with,
        "code": history.code,
        "version": history.version,
        "links": history.links,
    }
    lines = [f'  "{key}": {json.dumps(value, ensure_ascii=False)},' for key, value in head.items()]
    events = [
        {"seq": e.seq, "type": e.type, "at": to_micros(e.at), "data": without_tracebacks(e.data)} for e in history.log
    ]
    shown = ",\n".join(f"    {json.dumps(event, ensure_ascii=False)}" for event in events)
    text = "\n".join(["{", *lines, '  "events": [', shown, "  ]", "}"])
    (FOLDER / f"{history.name}.json").write_text(text + "\n")


def edited(pinned: Path) -> list[str]:
    """Return the histories that are gone, or not as they were when a release pinned them (by `sha256sum`)."""
    lines = [line.split(maxsplit=1) for line in pinned.read_text().splitlines()]
    files = {pinned.parent / name: digest for digest, name in lines}
    return [
        path.name
        for path, digest in files.items()
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-histories", action="store_true", help="Write the logs of these tests' runs.")


@pytest.fixture(autouse=True)
def record_histories(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not request.config.getoption("--record-histories"):
        yield
        return
    known, recorded, running = known_workflows(), dict[str, History](), Engine.running

    @asynccontextmanager
    async def running_and_recorded(self: Engine, **options: Any) -> AsyncIterator[Engine]:
        async with running(self, **options) as engine:
            try:
                yield engine
            finally:
                for record in (await engine.records(limit=500)).records:
                    found = await engine.store.read(record.id)
                    assert found is not None
                    row, log = found
                    if (row.code, row.version) in known:
                        webhooks = [e.data["hook_id"] for e in log if e.type == "hook_created" and "answer" in e.data]
                        links = {hook_id: engine.link(hook_id) for hook_id in webhooks}
                        recorded[record.id] = History("", _here(), row.code, row.version, links, log)

    monkeypatch.setattr(Engine, "running", running_and_recorded)
    yield
    FOLDER.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    minor = f"py{sys.version_info.major}.{sys.version_info.minor}"
    for number, run_id in enumerate(sorted(recorded), 1):
        of_many = f"-{number}" if len(recorded) > 1 else ""
        whole = f"{name}{of_many}.{minor}"
        if not (FOLDER / f"{whole}.json").exists():
            write(History(whole, **{k: v for k, v in vars(recorded[run_id]).items() if k != "name"}))


def _here() -> dict[str, str]:
    git = ["git", "-C", str(FOLDER.parent), "describe", "--always", "--tags"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {"approvals_bot": approvals_bot.__version__, "commit": commit, "python": platform.python_version()}
