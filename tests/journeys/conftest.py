"""Each journey gets a service of its own, in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journey import Service, with_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the samples, as a fresh clone has them."""
    return with_samples(tmp_path)


@pytest.fixture
def installed(folder: Path) -> Iterator[Service]:
    """A service that isn't started yet."""
    service = Service(folder)
    yield service
    if service.process is not None:
        service.kill()
    service.http.close()


@pytest.fixture
def service(installed: Service) -> Service:
    """A running service, on a free port."""
    return installed.start()
