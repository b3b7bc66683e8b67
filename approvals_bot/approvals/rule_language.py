"""rule-engine, imported with parser tables made beforehand.

PLY, the parser generator inside rule-engine, makes the tables of its grammar whenever it is imported, which takes 0.3 s
of CPU: a third of what `check` and `serve` needed to start. But first it looks for a module that has them, so that is
where it finds those of `rule_tables.json`. For another grammar, of another release of rule-engine, it makes its own;
`python -m tests.support.rule_tables` then writes the file again. Benchmark: `benchmarks/parts/startup.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

TABLES = Path(__file__).with_name("rule_tables.json")
MODULE = "rule_engine.parser.parsetab"  # where PLY looks for tables


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """What tables were made from. It equals PLY's signature of that grammar, whatever the order of its tokens.

    A signature is one text: precedences, the names of the tokens, rules. rule-engine takes the tokens from a set, so
    their order differs from process to process.
    """

    digest: str
    precedences: int  # the length of that part, as of the next
    rules: int

    def __eq__(self, signature: object) -> bool:
        if not isinstance(signature, str):
            return NotImplemented
        return digest_of_grammar(signature, self.precedences, self.rules) == self.digest

    __hash__ = None  # type: ignore[assignment]  # equal texts have different hashes


def digest_of_grammar(signature: str, precedences: int, rules: int) -> str:
    """Return the SHA-256 of a signature with its tokens sorted. The parts before and after them have these lengths.

    Rules are docstrings, from which Python 3.13 takes the indentation: without it, they are the same everywhere.
    """
    signature = unindented(signature)
    end = len(signature) - rules
    tokens = sorted(signature[precedences:end].split(" "))
    return hashlib.sha256("\n".join([signature[:precedences], *tokens, signature[end:]]).encode()).hexdigest()


def unindented(text: str) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text)


@contextmanager
def _tables_found() -> Iterator[None]:
    """Let PLY find the tables while the block runs."""
    tables: dict[str, Any] = json.loads(TABLES.read_text("utf-8"))
    module = ModuleType(MODULE)
    module.__dict__.update(
        _tabversion=tables["version"],
        _lr_method=tables["method"],
        _lr_signature=Grammar(**tables["grammar"]),
        _lr_action=dict(enumerate(tables["actions"])),
        _lr_goto=dict(enumerate(tables["goto"])),
        _lr_productions=[("", name, length, function, "", 0) for name, length, function in tables["productions"]],
    )
    sys.modules[MODULE] = module
    try:
        yield
    finally:
        del sys.modules[MODULE]


with _tables_found():
    from rule_engine import Context, DataType, EngineError, EvaluationError, Rule, RuleSyntaxError, ast, builtins

__all__ = [
    "Context",
    "DataType",
    "EngineError",
    "EvaluationError",
    "Rule",
    "RuleSyntaxError",
    "ast",
    "builtins",
]
