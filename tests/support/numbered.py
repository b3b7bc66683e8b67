"""Tests by the numbers of the tables they prove: `@pytest.mark.check(22, 23)`, and likewise for other tables."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_IN_NAMES = {
    "check": r"test_check_((?:\d+_)+)",
    "scenario": r"test_scenario_((?:\d+_)+)",
}


def numbered_tests(table: str) -> dict[int, set[str]]:
    """Find each number's tests, as `tests/room/test_file.py::test_name`, without importing them."""
    found: dict[int, set[str]] = defaultdict(set)
    for path, code in _files().items():
        if f"mark.{table}" not in code and f"test_{table}_" not in code:
            continue  # parsing takes most of the time
        for test in ast.parse(code).body:
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
                for number in _numbers(table, test):
                    found[number].add(f"{path}::{test.name}")
    return found


def all_tests() -> set[str]:
    """Find every test function by its path and name."""
    return {f"{path}::{name}" for path, code in _files().items() for name in _TEST.findall(code)}


@cache
def _files() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}


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
