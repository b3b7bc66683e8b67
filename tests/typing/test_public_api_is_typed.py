"""mypy and pyright, both strict, flag what is planted in `planted.py`, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = Path(__file__).with_name("planted.py")


def _planted(checker: str) -> list[int]:
    found = re.compile(r"# E(: (?P<only>\w+))?$")
    lines = enumerate(PLANTED.read_text().splitlines(), 1)
    return [number for number, line in lines if (m := found.search(line)) and m["only"] in (None, checker)]


@pytest.mark.timeout(300)
def test_mypy_flags_exactly_the_planted_mistakes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", str(PLANTED)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    flagged = {int(number) for number in re.findall(rf"{PLANTED.name}:(\d+): error", done.stdout)}
    assert sorted(flagged) == _planted("mypy"), done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(300)
def test_pyright_flags_exactly_the_planted_mistakes(tmp_path: Path) -> None:
    settings = {
        "typeCheckingMode": "strict",
        "reportUnusedExpression": False,  # planted.py names attributes just to have them looked up
        "reportUnknownMemberType": False,  # what has been flagged once need not be flagged again where it is used
        "reportUnknownVariableType": False,
        "reportUnknownArgumentType": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    shutil.copy(PLANTED, tmp_path)  # pyright looks at files in its project's folder only
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    flagged = {each["range"]["start"]["line"] + 1 for each in report["generalDiagnostics"]}
    assert sorted(flagged) == _planted("pyright"), done.stdout
