"""The lock files name what is installed, by the hash of each file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = re.compile(r"(?m)^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^ \\;]+)(?P<rest>(?:.*\\\n)*.*)$")


def packages(name: str) -> dict[str, tuple[str, int]]:
    """Return each package's version, and how many hashes it has."""
    text = (ROOT / name).read_text("utf-8")
    return {one["name"]: (one["version"], one["rest"].count("--hash=sha256:")) for one in PACKAGE.finditer(text)}


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_hashes(name: str) -> None:
    found = packages(name)
    assert len(found) > 40
    assert [package for package, (_, hashes) in found.items() if not hashes] == []


def test_development_runs_on_the_versions_of_an_installation() -> None:
    installed, development = packages("requirements.lock"), packages("requirements-dev.lock")
    assert {name: development[name] for name in installed} == installed
