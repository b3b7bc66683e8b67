"""docs/slack.md and the tests agree: each check of the Slack channel names its tests."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.numbered import numbered_tests

TESTS = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.M)


def test_the_table_of_slacks_checks_agrees_with_the_tests() -> None:
    rows = ROW.findall((TESTS.parent / "docs" / "slack.md").read_text(encoding="utf-8"))
    assert [int(number) for number, _, _ in rows] == list(range(1, 42))
    tests = numbered_tests("check")
    for number, check, shown_by in rows:
        if shown_by.startswith("Doesn't apply: "):
            assert int(number) not in tests, check
        else:
            assert set(re.findall(r"`([^`]+)`", shown_by)) == tests.get(int(number), set()), f"{number}: {check}"
            assert tests.get(int(number)), f"no test shows {number}: {check}"
