"""Tests by the numbers of the tables they prove: `@pytest.mark.check(22, 23)`, and likewise for other tables."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
_IN_NAMES = {
    "check": r"test_check_((?:\d+_)+)",
    "scenario": r"test_scenario_((?:\d+_)+)",
}


def numbered_tests(table: str) -> dict[int, set[str]]:
    """Find each number's tests, as `tests/room/test_file.py::test_name`, without importing them."""
    found: dict[int, set[str]] = defaultdict(set)
    for name, test in all_tests().items():
        for number in _numbers(table, test):
            found[number].add(name)
    return found


def all_tests() -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Find every test function by its path and name."""
    return {
        f"{path.relative_to(ROOT).as_posix()}::{node.name}": node
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def _numbers(table: str, test: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    marked = {
        argument.value
        for decorator in test.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{table}"
        for argument in decorator.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }
    named = re.match(_IN_NAMES[table], test.name) if table in _IN_NAMES else None
    return marked | ({int(number) for number in named[1].split("_") if number} if named else set())
