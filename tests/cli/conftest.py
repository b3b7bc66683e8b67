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
from house import HELLO, House, furnish


@pytest.fixture
def house(tmp_path: Path) -> House:
    return furnish(tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def either_house(house: House, request: pytest.FixtureRequest) -> House:
    """The house on SQLite, and on PostgreSQL."""
    if request.param == "postgres":
        settings = house.config.read_text().replace("sqlite:///approvals.db", request.getfixturevalue("postgres_url"))
        house.write("config.toml", settings)
    return house


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose service runs in its own process."""
    house = furnish(tmp_path_factory.mktemp("served"))
    house.write("workflows/hello.py", HELLO)
    command = [sys.executable, "-m", "approvals_bot", "serve", "--port", "0", "--config", str(house.config)]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            assert waiting.select(60), "the service never got ready"
        assert "ready on http://127.0.0.1:" in process.stdout.readline()
        yield house
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Polls until a callable returns something true, which another process writes."""

    def until(look: Callable[[], Any]) -> Any:
        end = time.monotonic() + 20
        while not (found := look()):
            assert time.monotonic() < end, "it hasn't happened"
            time.sleep(0.1)
        return found

    return until
