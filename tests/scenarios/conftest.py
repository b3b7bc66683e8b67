"""One service serves all scenarios; those that kill it, or change its files, have one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.acme import Acme, furnish


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    acme = Acme(furnish(tmp_path_factory.mktemp("acme")))
    acme.start("--config", "config.toml")
    yield acme
    acme.kill()
    acme.http.close()


@pytest.fixture
def acme(shared: Acme) -> Iterator[Acme]:
    """The shared service, reset after each test."""
    yield shared
    shared.mended()
    shared.live("ann@acme.eu", "bo@acme.eu", "cy@acme.eu")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Acme]:
    """A service that isn't started yet."""
    acme = Acme(furnish(tmp_path))
    yield acme
    if acme.process is not None:
        acme.kill()
    acme.http.close()
