"""rule-engine, imported with parser tables made beforehand.

PLY, the parser generator inside rule-engine, makes the tables of its grammar whenever it is imported, which takes 0.3 s
of CPU: a third of what `check` and `serve` needed to start. But first it looks for a module that has them, so that is
where it finds those of `rule_tables.json`. For another grammar, of another release of rule-engine, it makes its own;
`python -m tests.support.rule_tables` then writes the file again. Benchmark: `benchmarks/parts/startup.py`.
"""

from __future__ import annotations

import json
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

    rule-engine takes the tokens from a set, so their order differs from process to process.
    """

    precedence: str
    tokens: tuple[str, ...]
    rules: str

    def __eq__(self, signature: object) -> bool:
        if not isinstance(signature, str):
            return NotImplemented
        if not (signature.startswith(self.precedence) and signature.endswith(self.rules)):
            return False
        tokens = signature[len(self.precedence) : len(signature) - len(self.rules)]
        return sorted(tokens.split(" ")) == sorted(self.tokens)

    __hash__ = None  # type: ignore[assignment]  # equal texts have different hashes


@contextmanager
def _tables_found() -> Iterator[None]:
    """Let PLY find the tables while the block runs."""
    tables: dict[str, Any] = json.loads(TABLES.read_text("utf-8"))
    module = ModuleType(MODULE)
    module.__dict__.update(
        _tabversion=tables["version"],
        _lr_method=tables["method"],
        _lr_signature=Grammar(tables["precedence"], tuple(tables["tokens"]), tables["rules"]),
        _lr_action=dict(enumerate(tables["actions"])),
        _lr_goto=dict(enumerate(tables["goto"])),
        _lr_productions=tables["productions"],
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
