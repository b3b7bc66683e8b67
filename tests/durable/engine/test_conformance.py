"""docs/conformance.md and the tests agree."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.numbered import all_tests, numbered_tests

TESTS = Path(__file__).parents[2]
TABLE = TESTS.parent / "docs" / "conformance.md"
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (.+) \|$", re.MULTILINE)
OWN = {10, 15, 24, 25, 32, 37, 39, 60, 86, 87, 88, 93, 101, *range(112, 119), 121, 154, 157, 161}


def rows() -> dict[int, str]:
    return {int(number): shown for number, shown in ROW.findall(TABLE.read_text())}


def test_every_scenario_has_tests_or_a_reason() -> None:
    assert list(rows()) == list(range(1, 163))
    for number, shown in rows().items():
        assert "`tests/" in shown or shown.startswith("doesn't apply: "), number


def test_the_tests_of_the_table_exist() -> None:
    known = all_tests()
    for number, shown in rows().items():
        for name in re.findall(r"`(tests/[^`]+)`", shown):
            assert name in known, (number, name)


def test_every_marked_test_is_in_its_rows() -> None:
    table = rows()
    for number, names in numbered_tests("conformance").items():
        for name in names:
            assert f"`{name}`" in table.get(number, ""), (number, name)


def test_the_easily_missed_scenarios_have_marked_tests() -> None:
    assert set(numbered_tests("conformance")) >= OWN
