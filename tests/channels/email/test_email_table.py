"""docs/email.md and the tests agree: each check of links and mail has its tests there, or a reason."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.numbered import numbered_tests

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "email.md"
ROW = re.compile(r"^\| (\d\d) \| [^|]+ \| (.+) \|$", re.MULTILINE)
CHECKS = range(42, 61)


def test_the_table_and_the_marked_tests_agree() -> None:
    rows = {int(number): shown for number, shown in ROW.findall(PAGE.read_text())}
    assert list(rows) == list(CHECKS)
    tests = numbered_tests("check")
    for number, shown in rows.items():
        named = set(re.findall(r"`(tests/[^`]+)`", shown))
        assert named == tests[number], number
        assert named or shown.startswith("not built: "), number


def test_the_pages_pictures_exist_and_are_small() -> None:
    pictures = re.findall(r"\((images/[^)]+)\)", PAGE.read_text())
    assert len(pictures) > 10
    for picture in pictures:
        assert (PAGE.parent / picture).stat().st_size <= 150_000, picture
