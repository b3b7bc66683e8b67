"""A running `approvals-bot dev`, and people who decide what agents ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.client import SyncApprovals
from tests.support.journey import Json, Service, with_samples

AGENT_KEY = "the-key-of-an-agent-in-the-tests"


class Desk:
    """The service with people at it, who vote by another API key than agents ask with.

    Each test uses idempotency keys of its own.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    @property
    def url(self) -> str:
        return str(self.service.http.base_url)

    def client(self, **options: Any) -> SyncApprovals:
        return SyncApprovals(self.url, AGENT_KEY, **options)

    def request(self, session: str) -> Json:
        """The newest open request of the session, once somebody is asked."""

        def look() -> Json | None:
            asked = {"params": {"key": session, "open": "true"}, "headers": {"authorization": f"Bearer {AGENT_KEY}"}}
            runs = self.service.api("GET", "/runs", **asked).json()["runs"]
            return next((run for run in runs if run["request"] and run["request"]["waiting_for"]), None)

        return self.service.eventually(look)  # type: ignore[no-any-return]

    def decide(self, session: str, choice: str, **more: Any) -> Json:
        """Let the first person who is asked decide the session's newest request; return the run."""
        run = self.request(session)
        by = run["request"]["waiting_for"][0]
        answer = self.service.vote(run["id"], by, choice, **more)
        assert answer.status_code == 201, answer.text
        return run

    def advance(self, by: str) -> None:
        self.service.play("POST", "/clock", json={"advance": by})


@contextmanager
def open_desk(folder: Path, *options: str) -> Iterator[Desk]:
    """Start a service in this folder, which has the samples."""
    service = Service(folder)
    service.environment = {"TRAVEL_AGENT_KEY": AGENT_KEY}
    try:
        yield Desk(service.start(*options))
    finally:
        if service.process is not None:
            service.kill()
        service.http.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One service for all tests of a module."""
    with open_desk(with_samples(Path(tmp_path_factory.mktemp("desk")))) as desk:
        yield desk


@pytest.fixture
def aside() -> Iterator[Callable[..., Any]]:
    """Calls a function in a thread; returns its future."""
    with ThreadPoolExecutor(60) as pool:
        yield pool.submit


@pytest.fixture
def environment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the service is, as programs learn it."""
    monkeypatch.setenv("APPROVALS_URL", desk.url)
    monkeypatch.setenv("APPROVALS_KEY", AGENT_KEY)
