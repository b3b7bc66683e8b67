"""`python -m tests.support.rule_tables` writes `approvals/rule_tables.json` for the installed rule-engine."""

from __future__ import annotations

import json
from typing import Any

from rule_engine._vendor.ply import yacc
from rule_engine.parser import Parser

from approvals_bot.approvals.rule_language import TABLES, digest_of_grammar, unindented


def made_tables() -> dict[str, Any]:
    """Make the tables as PLY does when it finds none."""
    parser = Parser()
    found = yacc.ParserReflect({name: getattr(parser, name) for name in dir(parser)})
    found.get_all()
    found.validate_all()
    grammar = yacc.Grammar(found.tokens)
    for term, assoc, level in found.preclist:
        grammar.set_precedence(term, assoc, level)
    for function, (file, line, name, symbols) in found.grammar:
        grammar.add_production(name, symbols, function, file, line)
    grammar.set_start(found.start)
    for prepare in (grammar.undefined_symbols, grammar.unused_terminals, grammar.unused_rules):
        prepare()
    tables = yacc.LRGeneratedTable(grammar, "LALR", yacc.NullLogger())
    precedences = (found.start or "") + "".join("".join(each) for each in found.prec)
    parts = len(precedences), len(unindented("".join(each[3] or "" for each in found.pfuncs)))
    return {
        "version": yacc.__tabversion__,
        "method": tables.lr_method,
        "grammar": {"digest": digest_of_grammar(found.signature(), *parts), "precedences": parts[0], "rules": parts[1]},
        "actions": [tables.lr_action[state] for state in range(len(tables.lr_action))],
        "goto": [tables.lr_goto.get(state, {}) for state in range(len(tables.lr_action))],
        "productions": [[each.name, each.len, getattr(each, "func", None)] for each in tables.lr_productions],
    }


if __name__ == "__main__":
    TABLES.write_text(json.dumps(made_tables(), sort_keys=True, separators=(",", ":")) + "\n", "utf-8")
