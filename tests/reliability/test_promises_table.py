"""docs/reliability.md and the tests agree: it names every file of proofs, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.numbered import numbered_tests

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_every_named_proof_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE))
    assert len(named) > 12
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_every_proof_file_is_named() -> None:
    here = {f"tests/reliability/{file.name}" for file in Path(__file__).parent.glob("test_*.py")} - {
        f"tests/reliability/{Path(__file__).name}"
    }
    assert sorted(path for path in here if path not in PAGE) == []


def test_every_size_variable_exists() -> None:
    for name in re.findall(r"`([A-Z_]+)=\d+`", PAGE):
        assert any(f'"{name}"' in file.read_text() for file in Path(__file__).parent.glob("test_*.py")), name


def test_every_proof_here_is_marked_with_its_promise() -> None:
    rows = re.findall(r"^\| P(\d+) \|(.*)$", PAGE, re.MULTILINE)
    named = {(int(number), path) for number, row in rows for path in re.findall(r"`(tests/reliability/\w+\.py)`", row)}
    marked = {
        (number, name.partition("::")[0]) for number, names in numbered_tests("promise").items() for name in names
    }
    assert {(number, path) for number, path in marked if path.startswith("tests/reliability/")} == named
