"""A folder with a configuration, and the same with its service running."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_site import HELLO, Site, install


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return install(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def site_on_each_store(site: Site, request: pytest.FixtureRequest) -> Site:
    """The site on SQLite, and on PostgreSQL."""
    if request.param == "postgres":
        settings = site.config.read_text().replace("sqlite:///approvals.db", request.getfixturevalue("postgres_url"))
        site.write("config.toml", settings)
    return site


@pytest.fixture(scope="module")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose service runs in its own process."""
    site = install(tmp_path_factory.mktemp("site"))
    site.write("workflows/hello.py", HELLO)
    command = [sys.executable, "-m", "approvals_bot", "serve", "--port", "0", "--config", str(site.config)]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            assert waiting.select(60), "the service never got ready"
        assert "ready on http://127.0.0.1:" in process.stdout.readline()
        yield site
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Polls until a callable returns something true, which another process writes."""

    def until(look: Callable[[], Any]) -> Any:
        end = time.monotonic() + 60
        while not (found := look()):
            assert time.monotonic() < end, "it hasn't happened"
            time.sleep(0.1)
        return found

    return until
