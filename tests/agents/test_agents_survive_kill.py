"""Agents of OpenAI's SDK and of LangGraph in a real process that is killed with SIGKILL, in a model and in a tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = ("held", "durable", "batched", "per_call")


def process(folder: Path, block: str = "") -> str:
    """Run the program until it is stuck at `block`, and kill it there; without one, to its end. Returns its output."""
    environment = os.environ | {"EFFECTS": str(folder), "BLOCK": block}
    command = [sys.executable, "-m", "tests.agents.killed_agents", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if block:
            child.kill()
    return line


@pytest.mark.agents(17)
@pytest.mark.long
@pytest.mark.timeout(300)  # three processes, which import both frameworks
def test_nothing_after_a_recorded_result_runs_twice(tmp_path: Path) -> None:
    assert process(tmp_path, "model") == "ready\n"
    assert process(tmp_path, "book LH2") == "ready\n"
    results, requests = json.loads(process(tmp_path))
    booked = [f"booked {flight} for {price}" for flight, price in (("LH1", 640), ("LH2", 120), ("LH3", 30))]
    assert results == dict.fromkeys(KINDS, booked)
    assert requests == [3, 3, 3, 3]
    times = Counter((tmp_path / "effects").read_text().splitlines())
    for kind in KINDS:
        assert times.pop(f"{kind}: model") == 2, "killed in the middle of it"
        assert times.pop(f"{kind}: book LH2") == 2, "likewise"
    again = {"held: book LH1", "held: book LH3"}  # its segment is one step
    assert {what for what, count in times.items() if count == 2} == again
    assert set(times) == {f"{kind}: {what}" for kind in KINDS for what in ("book LH1", "book LH3", "model again")}
    assert sum(times.values()) == 3 * len(KINDS) + len(again)
