"""The parser tables that rule-engine finds instead of making them."""

from __future__ import annotations

import json
import subprocess
import sys

from approvals_bot.approvals.rule_language import TABLES, Grammar
from tests.support.rule_tables import made_tables

KEPT = json.loads(TABLES.read_text("utf-8"))
GRAMMAR = Grammar(KEPT["precedence"], tuple(KEPT["tokens"]), KEPT["rules"])
USED = """
from approvals_bot.approvals.rule_language import Rule
print(type(Rule.parser._parser.productions[1]).__name__)
"""


def test_the_tables_are_those_of_the_installed_release() -> None:
    """If this fails after an update of rule-engine: `python -m tests.support.rule_tables`."""
    assert json.loads(json.dumps(made_tables())) == KEPT


def test_rule_engine_reads_tables_for_any_order_of_tokens() -> None:
    for seed in ("1", "2", "3"):
        line = [sys.executable, "-c", USED]
        done = subprocess.run(line, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "MiniProduction"  # made tables have `Production`


def test_another_grammar_differs() -> None:
    signature = GRAMMAR.precedence + " ".join(reversed(GRAMMAR.tokens)) + GRAMMAR.rules
    assert signature == GRAMMAR
    assert signature.replace("ADD", "PLUS") != GRAMMAR
    assert signature.replace(" COMMA", "") != GRAMMAR
    assert signature + "\nnext : rule" != GRAMMAR
    assert GRAMMAR != 5
