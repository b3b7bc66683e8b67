"""docs/reliability.md names proofs that exist, and every file of proofs is named there."""

from __future__ import annotations

import re
from pathlib import Path

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
