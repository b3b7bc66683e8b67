"""Each journey gets a service of its own, in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from journey import Service

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the samples, as a fresh clone has them."""
    shutil.copy(ROOT / "config.example.toml", tmp_path)
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


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
