"""docs/scenarios.md and the tests have the same forty scenarios."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.numbered import numbered_tests

ROOT = Path(__file__).parents[2]


def test_the_table_and_the_tests_agree() -> None:
    table = (ROOT / "docs" / "scenarios.md").read_text()
    rows = {int(number): test for number, test in re.findall(r"^\| (\d+) \|.*\| (.+) \|$", table, re.MULTILINE)}
    tests = {number: names for number, names in numbered_tests("scenario").items() if number in rows}
    assert list(rows) == list(range(1, 41))
    for number, said in rows.items():
        assert (
            {f"`{name.partition('::')[2]}`" for name in tests[number]} == {said}
            if number in tests
            else said.startswith("missing: ")
        ), number
