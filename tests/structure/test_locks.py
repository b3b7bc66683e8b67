"""The lock files name what is installed, by the hash of each file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCKS = ["requirements.lock", "requirements-dev.lock", "deploy/requirements.lock"]
SERVERS = {"asyncpg", "cryptography", "flufl-bounce", "joserfc", "opentelemetry-sdk", "scim2-server", "uvloop"}

ROOT = Path(__file__).parents[2]
PACKAGE = re.compile(
    r"(?m)^(?P<name>[a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==(?P<version>[^ \\;]+)(?P<rest>(?:.*\\\n)*.*)$"
)


def packages(name: str) -> dict[str, tuple[str, int]]:
    """Return each package's version, and how many hashes it has."""
    text = (ROOT / name).read_text("utf-8")
    return {one["name"]: (one["version"], one["rest"].count("--hash=sha256:")) for one in PACKAGE.finditer(text)}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes(name: str) -> None:
    found = packages(name)
    assert len(found) > 40
    assert [package for package, (_, hashes) in found.items() if not hashes] == []


def test_development_runs_on_the_versions_of_an_installation() -> None:
    development = packages("requirements-dev.lock")
    for name in LOCKS:
        installed = packages(name)
        assert {package: development[package] for package in installed} == installed, name


def test_a_server_has_the_extras_that_its_configuration_may_need() -> None:
    assert SERVERS - packages("deploy/requirements.lock").keys() == set()
