"""docs/conformance.md and the tests agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
TABLE = TESTS.parent / "docs" / "conformance.md"
ROW = re.compile(r"^\| (\d+) \| [^|]+ \| (.+) \|$", re.MULTILINE)
OWN = {10, 15, 24, 25, 32, 37, 39, 60, 86, 87, 88, 93, 101, *range(112, 119), 121, 154, 157, 161}


def rows() -> dict[int, str]:
    return {int(number): shown for number, shown in ROW.findall(TABLE.read_text())}


def known_tests() -> dict[str, set[int]]:
    """Every test, and the scenarios that its name begins with."""
    found: dict[str, set[int]] = {}
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                numbers = re.match(r"test_((?:\d+_)*)", node.name)
                assert numbers is not None
                name = f"{path.relative_to(TESTS.parent).as_posix()}::{node.name}"
                found[name] = {int(number) for number in numbers[1].split("_") if number}
    return found


def test_every_scenario_has_tests_or_a_reason() -> None:
    assert list(rows()) == list(range(1, 163))
    for number, shown in rows().items():
        assert "`tests/" in shown or shown.startswith("doesn't apply: "), number


def test_the_tests_of_the_table_exist() -> None:
    known = known_tests()
    for number, shown in rows().items():
        for name in re.findall(r"`(tests/[^`]+)`", shown):
            assert name in known, (number, name)


def test_every_numbered_test_is_in_its_rows() -> None:
    table = rows()
    for name, numbers in known_tests().items():
        for number in numbers:
            assert f"`{name}`" in table.get(number, ""), (number, name)


def test_the_scenarios_that_are_easily_missed_have_a_test_by_their_number() -> None:
    assert {number for numbers in known_tests().values() for number in numbers} >= OWN
