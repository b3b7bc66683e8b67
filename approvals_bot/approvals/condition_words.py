"""The words of a condition, and which of them are let in, before anything else reads it.

Refused here is what would be slow (regular expressions, powers), surprising (`and` beside `or` without brackets) or
different each time (the clock), and every name that is no field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from approvals_bot.config.fields import FieldSpec
from approvals_bot.config.problems import nearest

LONGEST = 1_000  # characters
MOST_WORDS = 200  # names, literals and operators; bounds the depth of the tree
FUNCTIONS = {"minutes": 60, "hours": 3_600, "days": 86_400}  # seconds
ATTRIBUTES = frozenset(
    {"length", "is_empty", "as_lower", "as_upper", "starts_with", "ends_with"}
    | {"year", "month", "day", "weekday", "hour", "days", "total_seconds"}
)

_LONGEST_NUMBER = 20  # digits
_WORD = re.compile(
    r"""\s*(?:
        (?P<text>[dt]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<number>[0-9]+(?:\.[0-9]+)?(?![\w.]))
      | (?P<function>\$[A-Za-z_]\w*)
      | (?P<attribute>\.[A-Za-z_]\w*)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<operator>==|!=|<=|>=|=~~?|!~~?|\*\*|//|<<|>>|\?\?|&\.|.)
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_OPERATORS = frozenset("== != < <= > >= + - * / ( ) [ ] ,".split())  # noqa: SIM905 - reads better than 15 quoted signs
_KEYWORDS = frozenset({"and", "or", "not", "in", "true", "false", "null"})
_WHY_NOT = {
    **dict.fromkeys(("=~", "=~~", "!~", "!~~"), "regular expressions are not allowed in conditions; use == or in"),
    "**": "powers are not allowed in conditions",
    "=": "compare with == (one = means nothing here)",
    "!": "write `not`",
    "&": "write `and`",
    "|": "write `or`",
    "{": "templates don't work in conditions; name the field itself",
    "for": "comprehensions are not allowed in conditions",
    "if": "a condition has no `if`; write it with `and` and `or`",
}


class ConditionError(ValueError):
    """A condition that can't be used. The message says why; `suggestion` what was probably meant."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        self.suggestion = suggestion
        super().__init__(message)


Word = tuple[str, str]
"""Its kind (text, number, function, attribute, name, operator) and how it is written."""


def read_words(text: str) -> Iterator[Word]:
    if len(text) > LONGEST:
        raise ConditionError(f"a condition has at most {LONGEST:,} characters")
    at, count, text = 0, 0, text.rstrip()
    while at < len(text):
        match = _WORD.match(text, at)
        assert match is not None, "the last alternative takes any character"
        kind, word = str(match.lastgroup), match[str(match.lastgroup)]
        at, count = match.end(), count + 1
        if count > MOST_WORDS:
            raise ConditionError(f"a condition has at most {MOST_WORDS} words")
        match kind:
            case "operator" if word not in _OPERATORS:
                raise ConditionError(_WHY_NOT.get(word, f'"{word}" is not allowed in conditions'))
            case "name" if word in _WHY_NOT:
                raise ConditionError(_WHY_NOT[word])
            case "number" if len(word) > _LONGEST_NUMBER:
                raise ConditionError("this number is too long")
            case "function" if word[1:] not in FUNCTIONS:
                raise ConditionError(f"no function is called {word}", nearest(word, [f"${name}" for name in FUNCTIONS]))
            case "attribute" if word[1:] not in ATTRIBUTES:
                raise ConditionError(
                    f"no attribute is called {word}", nearest(word, [f".{name}" for name in ATTRIBUTES])
                )
        yield kind, word
    if count == 0:
        raise ConditionError("the condition is empty")


def names_in(words: Iterable[Word], fields: Mapping[str, FieldSpec]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for kind, word in words:
        if kind != "name" or word in _KEYWORDS:
            continue
        if word not in fields:
            lower = {"True": "true", "False": "false", "None": "null", "AND": "and", "OR": "or", "NOT": "not"}
            raise ConditionError(f"no field is called {word}", lower.get(word) or nearest(word, fields))
        names[word] = None
    return tuple(names)


def refuse_mixing(words: Iterable[Word]) -> None:
    """`a and b or c` is read differently by different people, so brackets must say which is meant."""
    seen: list[set[str]] = [set()]
    for _, word in words:
        match word:
            case "(" | "[":
                seen.append(set())
            case ")" | "]" if len(seen) > 1:
                seen.pop()
            case ",":
                seen[-1] = set()
            case "and" | "or":
                seen[-1].add(word)
                if len(seen[-1]) > 1:
                    raise ConditionError("and beside or needs brackets, to say which belongs together")
