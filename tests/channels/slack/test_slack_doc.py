"""docs/slack.md says of every check which test shows it; here it is held to that."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.M)
NAMED = re.compile(r"^(?:async )?def (test_check((?:_\d+)+)_\w+)", re.M)


def shown() -> dict[int, set[str]]:
    """Which tests say by their names that they show a check."""
    found: dict[int, set[str]] = {}
    for file in TESTS.rglob("test_*.py"):
        for name, numbers in NAMED.findall(file.read_text(encoding="utf-8")):
            for number in numbers.split("_")[1:]:
                found.setdefault(int(number), set()).add(f"{file.relative_to(TESTS.parent).as_posix()}::{name}")
    return found


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
