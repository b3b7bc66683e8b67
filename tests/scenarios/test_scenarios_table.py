"""docs/scenarios.md and the tests tell of the same forty scenarios."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_and_the_tests_agree() -> None:
    table = (ROOT / "docs" / "scenarios.md").read_text()
    rows = {int(number): test for number, test in re.findall(r"^\| (\d+) \|.*\| (.+) \|$", table, re.MULTILINE)}
    written = "\n".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    tests = {int(number): name for name, number in re.findall(r"^def (test_scenario_(\d\d)_\w+)\(", written, re.M)}
    assert list(rows) == list(range(1, 41))
    for number, said in rows.items():
        assert said == f"`{tests[number]}`" if number in tests else said.startswith("missing: "), number
