"""docs/slack.md says of every check which test shows it; here it is held to that."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.M)
NAMED = re.compile(r"test_check((?:_\d+)+)_\w+")


def shown() -> dict[int, set[str]]:
    """Map each check to the tests that show it, by their marker `check(n)` or by their names."""
    found: dict[int, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _checks_of(node):
                    found.setdefault(number, set()).add(f"{file.relative_to(TESTS.parent).as_posix()}::{node.name}")
    return found


def _checks_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    if named := NAMED.fullmatch(test.name):
        yield from map(int, named[1].split("_")[1:])
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.check":
            yield from (ast.literal_eval(number) for number in decorator.args)


def test_the_table_of_slacks_checks_agrees_with_the_tests() -> None:
    rows = ROW.findall((TESTS.parent / "docs" / "slack.md").read_text(encoding="utf-8"))
    assert [int(number) for number, _, _ in rows] == list(range(1, 42))
    tests = shown()
    for number, check, shown_by in rows:
        if shown_by.startswith("Doesn't apply: "):
            assert int(number) not in tests, check
        else:
            assert set(re.findall(r"`([^`]+)`", shown_by)) == tests.get(int(number), set()), f"{number}: {check}"
            assert tests.get(int(number)), f"no test shows {number}: {check}"
