"""P3: kill a real process at every single write; nothing is lost, and the next process finishes the run.

`make test` dies at half of the writes, `make test-all` at each, every other one torn in half; `EVERY_WRITE=1` does
both at each.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.thorough import THOROUGH

HOW = ("whole", "torn") if os.environ.get("EVERY_WRITE") else ("alternately",)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here, so no process was killed at a write")


AT_A_TIME = 3  # deaths mostly wait
STRIDE = AT_A_TIME if THOROUGH or len(HOW) == 2 else 2 * AT_A_TIME
"""From one write at which a process dies to the next at which its successor does."""


def deaths(folder: Path, *how: str, first: int = 1) -> list[dict[str, Any]]:
    """Return what each death left, in order."""
    processes = []
    for number in range(AT_A_TIME):
        own = folder / str(number)
        own.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.support.dying_process",
            str(own),
            str(first + number),
            str(STRIDE),
            *how,
        ]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    found: list[dict[str, Any]] = []
    for process in processes:
        said, complaints = process.communicate(timeout=550)
        assert process.returncode == 0, complaints
        sys.stderr.write(complaints)  # of processes that failed without being killed
        found += [json.loads(line) for line in said.splitlines()]
    return sorted(found, key=lambda each: int(each["k"]))


@pytest.mark.promise(3)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", HOW)
def test_dying_at_any_write_loses_no_acknowledged_click(tmp_path: Path, how: str) -> None:
    found = deaths(tmp_path, how)
    died, survived = ([each for each in found if (each["ended"] == 0) is lived] for lived in (False, True))
    assert {each["ended"] for each in died} == {-signal.SIGKILL}
    assert len(died) >= 80 * AT_A_TIME // STRIDE, "the job must really write"
    assert [len(each["acknowledged"]) for each in survived] == [6] * AT_A_TIME
    for each in found:
        assert each["integrity"] == "ok", each
        assert each["lost"] == [], each
        assert each["finished"] == 0, each
        assert (each["gaps"], each["ends"], each["clicks"], each["steps"]) == (False, 1, 1, 2), each
    assert {what for each in died for what in each["acknowledged"]} >= {"open", "started", "resumed", "audited"}


@pytest.mark.long
@pytest.mark.promise(3)
@pytest.mark.timeout(600)
def test_a_premature_acknowledgement_is_detected(tmp_path: Path) -> None:
    after_the_schema = 45  # writes, about; with fewer, nothing can be acknowledged yet
    assert any(each["lost"] == ["resumed"] for each in deaths(tmp_path, "whole", "early", first=after_the_schema))
