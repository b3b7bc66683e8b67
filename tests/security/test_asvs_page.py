"""docs/asvs.md answers each requirement of the standard once, and its proofs exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/asvs.md").read_text("utf-8")
NUMBER = re.compile(r"\b\d+\.\d+\.\d+\b")
PROOF = re.compile(r"`((?:[\w-]+/)*test_\w+\.py)(?:::(\w+))?`")


def test_the_table_has_each_requirement_once() -> None:
    asked = (ROOT / "tests/data/asvs-5.0-level-2.txt").read_text("utf-8").split()
    answered = [
        number
        for line in PAGE.splitlines()
        if line.startswith("|")
        for number in NUMBER.findall(line[2:].partition("|")[0])
    ]
    assert sorted(answered) == sorted(asked)


def test_each_proof_exists() -> None:
    proofs = PROOF.findall(PAGE)
    assert len(proofs) > 100
    missing = []
    for file, name in set(proofs):
        path = ROOT / "tests" / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text("utf-8")):
            missing.append(f"{file}::{name}")
    assert sorted(missing) == []
