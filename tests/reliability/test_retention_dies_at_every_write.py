"""Kill a process at its writes while it deletes what ended long ago: nothing is lost, and the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.dying_retention import OPEN, RUNS

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here, so no process was killed at a write"),
]


def deaths(folder: Path, step: int, *how: str) -> list[dict[str, Any]]:
    """Return what each death left, in order; the last one is a process that lived to its end."""
    command = [sys.executable, "-m", "tests.support.dying_retention", str(folder), "1", str(step), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["ended"] for each in found] == [-signal.SIGKILL] * (len(found) - 1) + [0]
    return found


def lost(left: dict[str, Any]) -> set[str]:
    """Return the runs that are nowhere any more: deleted, and in no archive."""
    gone: set[str] = set(left["stubs"]) - left["archived"].keys()
    return gone


def test_retention_killed_at_any_write_loses_nothing(tmp_path: Path) -> None:
    found = deaths(tmp_path, 2)
    assert len(found) > 50, "it must really write"
    twice = 0
    for each in found:
        assert (lost(each), len(each["rows"]) + len(each["stubs"])) == (set(), RUNS + OPEN), each
        then = each["then"]
        assert (lost(then), len(then["rows"]), len(then["stubs"])) == (set(), OPEN, RUNS), each
        assert (each["faults"], each["is_sound"]) == ([], True), each
        assert then["archived"].keys() == set(then["stubs"]), each
        assert all(len(set(hashes)) == 1 for hashes in then["archived"].values()), "it is the same in both archives"
        twice += any(len(hashes) > 1 for hashes in then["archived"].values())
    assert 0 < twice < len(found)
    assert {each["deleted"] for each in found} == {0, 2, 3, 5}, "it died before, between and after its transactions"


def test_deleting_before_archiving_is_found(tmp_path: Path) -> None:
    assert any(lost(each) for each in deaths(tmp_path, 5, "early"))
