"""The parser tables that rule-engine finds instead of making them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from approvals_bot.approvals.rule_language import TABLES, Grammar, digest_of_grammar
from tests.support.rule_tables import made_tables

KEPT = json.loads(TABLES.read_text("utf-8"))
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
    tokens = ["ADD", "COMMA", "OR"]
    signature = "leftORleftADD" + " ".join(tokens) + "\nrule : SYMBOL"
    grammar = Grammar(digest_of_grammar(signature, 13, 14), 13, 14)
    assert signature == grammar
    assert signature.replace("ADD COMMA OR", "OR ADD COMMA") == grammar
    assert signature.replace("ADD", "PLUS") != grammar
    assert signature.replace(" COMMA", "") != grammar
    assert signature + "\nnext : rule" != grammar
    assert grammar != ""
    assert grammar != 5


def test_no_text_of_the_grammar_is_kept() -> None:
    assert not [text for text in _texts(KEPT) if " " in text]


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _texts(each)
