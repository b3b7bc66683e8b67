"""Conditions: `amount >= 1000 or (team == "sales" and amount >= 500)`, checked when the file is loaded.

rule-engine compiles a condition against the types of [fields]. Only part of its language is allowed: field names, plain
literals, lists, arithmetic, comparisons, `in`, `and`, `or`, `not`, brackets, `$minutes(n) $hours(n) $days(n)` and a few
attributes. Slow or surprising parts are refused: regular expressions, powers, comprehensions, the clock, and `and` next
to `or` without brackets. The result must be true or false.

If a field isn't given, the result is unknown. A stage then applies, and a rule doesn't decide: in doubt, people do.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Context as DecimalContext
from decimal import Decimal
from functools import lru_cache
from itertools import product
from typing import Any

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.circumstances import (
    RANGES,
    WORDS,
    Asks,
    Circumstance,
    Known,
    in_file_words,
    with_names,
)
from approvals_bot.approvals.circumstances import ConditionError as ConditionError
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import shown
from approvals_bot.approvals.list_conditions import about_lists
from approvals_bot.approvals.reasons import NoWordsError, children, condition_words, plain, reason_for, shortened, the
from approvals_bot.approvals.rule_language import (
    Context,
    DataType,
    EngineError,
    EvaluationError,
    Rule,
    RuleSyntaxError,
    ast,
    builtins,
)
from approvals_bot.people import AddressError, canonical


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a condition. `holds`: true, false, or None if a field it needs isn't given."""

    holds: bool | None
    because: str


class Condition:
    """A compiled condition. Immutable, and the same for every request of one version of a workflow."""

    def __init__(self, text: str, fields: Mapping[str, FieldSpec], asks: Asks | None = None) -> None:
        """Compile and check. Raises ConditionError for everything that can be known before there are values.

        `asks`: in a follow-up, the questions that stages ask.
        """
        self.text = text
        text, self.about = with_names(text, fields, asks)
        try:
            text, self.lists = about_lists(text, fields)
            words = list(read_words(text))
            names = names_in(words, fields, {**self.about, **self.lists})
            self.names = tuple(dict.fromkeys((*names, *(one.field for one in self.lists.values()))))
            asked = {name: one.spec for name, one in self.about.items()}
            self._shown_fields = {name: fields[name] for name in self.names} | asked
            self._fields = {name: fields[name] for name in names} | asked
            self._fields |= {name: one.spec for name, one in self.lists.items()}
            refuse_mixing(words)
            self._rule = _compiled(text, {**fields, **self._fields} if self.about or self.lists else fields)
        except ConditionError as error:
            raise ConditionError(in_file_words(str(error), self.about), error.suggestion) from None
        self.is_timed = any(one.is_time for one in self.about.values())
        if self.is_timed:
            _refuse_times_that_are_none(self.expression, self.about)

    def holds(self, typed: Mapping[str, Any]) -> bool | None:
        """Evaluate without a reason, which takes longer than the rest (benchmarks/parts/startup.py)."""
        if any(typed.get(name) is None and name not in self._rule.compared_with_null for name in self.names):
            return None
        try:
            return self._rule.holds(self.values(typed))
        except ArithmeticError:
            return None

    def judge(self, typed: Mapping[str, Any]) -> Judgement:
        """Evaluate with typed values. Never raises for valid values."""
        known = self._rule.compared_with_null
        unset = [name for name in (*self.names, *self.about) if typed.get(name) is None and name not in known]
        if unset:
            if any(self.about[name].is_time for name in unset if name in self.about):
                return Judgement(None, LATER)
            names = [the(name, self._shown_fields[name]) for name in unset]
            return Judgement(None, f"{_listed(names)} {'is' if len(unset) == 1 else 'are'} not given")
        try:
            named = self.values(typed)  # the others may be lists and objects, which no condition takes
            holds = self._rule.holds(named)
        except ArithmeticError as error:
            return Judgement(None, f"{self.text} can't be evaluated: {error}")
        try:
            return Judgement(holds, self._rule.reason(holds, named, self._said(typed)))
        except NoWordsError:
            return Judgement(holds, f"{self.text} is {'true' if holds else 'not true'} ({self._shown(typed)})")

    def judge_whenever(self, typed: Mapping[str, Any]) -> Judgement:
        """Evaluate before the time is certain: unknown, unless it is the same at any time."""
        times = {name: one.times() for name, one in self.about.items() if one.is_time}
        found = {
            self.judge({**typed, **dict(zip(times, values, strict=True))}).holds for values in product(*times.values())
        }
        if len(found) > 1 or None in found:
            return self.judge(typed)
        holds = next(iter(found))
        return Judgement(holds, f"{self.text} is {'true' if holds else 'not true'} at any time ({self._shown(typed)})")

    def words(self) -> str:
        """Return what it says in words that read well after "if"; "" where only the expression itself can say it."""
        try:
            return condition_words(self.expression, {n: spec for n, spec in self._fields.items() if n in self.names})
        except NoWordsError:
            return ""

    @property
    def expression(self) -> Any:
        """The expression of rule-engine."""
        return self._rule.expression

    def values(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the typed values of the fields that it names, in that order, and of what it asks about them."""
        found = {name: typed.get(name) for name in self._fields}
        for name, one in self.lists.items():
            items = typed.get(one.field)
            found[name] = None if items is None else one.of(items)
        return found

    def _said(self, typed: Mapping[str, Any]) -> dict[str, str]:
        return {
            name: one.sentence(typed[one.field], self._shown_fields[one.field])
            for name, one in self.lists.items()
            if one.what != "count" and typed.get(one.field) is not None
        }

    def known(self, known: Known) -> dict[str, Any]:
        """Return the values of what it asks besides fields."""
        return {name: known.value(one) for name, one in self.about.items()}

    def _shown(self, typed: Mapping[str, Any]) -> str:
        values = {name: shown(self._shown_fields, name, typed.get(name)) for name in self.names}
        return ", ".join(f"{name}: {shortened(value)}" for name, value in values.items()) or "always"


LATER = "it depends on when the stage opens"


def _refuse_times_that_are_none(node: Any, about: Mapping[str, Circumstance]) -> None:
    """Refuse `now.weekday == 0`: a number that the part of the time never is."""
    match node:
        case ast.ComparisonExpression(left=ast.SymbolExpression(name=name), right=ast.FloatExpression() as other):
            others = [other]
        case ast.ComparisonExpression(left=ast.FloatExpression() as other, right=ast.SymbolExpression(name=name)):
            others = [other]
        case ast.ContainsExpression(
            container=ast.ArrayExpression(value=members), member=ast.SymbolExpression(name=name)
        ):
            others = [each for each in members if isinstance(each, ast.FloatExpression)]
        case _:
            name, others = "", []
    if name in about and about[name].kind in RANGES:
        one = about[name]
        for other in others:
            if other.value not in one.times():
                raise ConditionError(f"{one.text} is never {other.value.normalize():f}; {RANGES[one.kind]}")
    for child in children(node):
        _refuse_times_that_are_none(child, about)


def condition(text: str, fields: Mapping[str, FieldSpec]) -> Condition:
    """Return `Condition(text, fields)`, compiled once for the same text and fields."""
    return _cached(text, tuple(fields.items()))


@lru_cache(maxsize=512)
def _cached(text: str, fields: tuple[tuple[str, FieldSpec], ...]) -> Condition:
    return Condition(text, dict(fields))


def _compiled(text: str, fields: Mapping[str, FieldSpec]) -> CompiledRule:
    return CompiledRule(text, fields)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


_TYPES = {
    "integer": DataType.FLOAT,
    "decimal": DataType.FLOAT,
    "money": DataType.FLOAT,
    "boolean": DataType.BOOLEAN,
    "date": DataType.DATETIME,
    "datetime": DataType.DATETIME,
    "duration": DataType.TIMEDELTA,
    "list": DataType.ARRAY(DataType.STRING),
}


class Unworkable(ArithmeticError):
    """A condition that these values break, such as by a division by zero. The message is the reason."""


class CompiledRule:
    """A condition that passed the checks for these fields."""

    def __init__(self, text: str, fields: Mapping[str, FieldSpec]) -> None:
        """Compile and check. Raises ConditionError."""
        self._rule = _compile(text, fields)
        _Checker(fields).check(self._rule.statement.expression)
        self._fields = fields
        self.compared_with_null = frozenset(_null_compared(self._rule.statement.expression))

    @property
    def expression(self) -> Any:
        return self._rule.statement.expression

    def holds(self, typed: Mapping[str, Any]) -> bool:
        """Whether it is true for these typed values. Raises Unworkable."""
        try:
            return bool(self._rule.evaluate({name: plain(value) for name, value in typed.items()}))
        except (EngineError, ArithmeticError) as error:
            raise Unworkable(_reason(error)) from None

    def reason(self, holds: bool, typed: Mapping[str, Any], said: Mapping[str, str]) -> str:
        """Put into words why it is true or false for these typed values. Raises NoWordsError."""
        return reason_for(self._rule.statement.expression, holds, typed, self._fields, said)


def _compile(text: str, fields: Mapping[str, FieldSpec]) -> Rule:
    context = _context(
        tuple((name, spec.type) for name, spec in fields.items() if not spec.holds_files and not spec.is_json)
    )
    try:
        with warnings.catch_warnings():
            # It decodes strings as Python does, which keeps unknown escapes and warns about them.
            warnings.simplefilter("ignore", DeprecationWarning)
            rule = Rule(text, context)
    except RuleSyntaxError as error:
        if error.token is not None and error.token.value == ",":
            raise ConditionError('a list is in square brackets: ["a", "b"]') from None
        raise ConditionError(f"syntax error {_where(error)}") from None
    except (EngineError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise ConditionError(_reason(error), _literal_meant(text, fields)) from None
    if rule.statement.expression.result_type != DataType.BOOLEAN:
        raise ConditionError("a condition must be true or false; compare this with something")
    return rule


@lru_cache(maxsize=128)
def _context(types: tuple[tuple[str, str], ...]) -> Context:
    """Return rule-engine's context for fields of these types. Making one takes longer than parsing a condition."""
    resolved = {name: _TYPES.get(kind, DataType.STRING) for name, kind in types}
    context = Context(type_resolver=resolved, default_timezone="utc", decimal_context=DecimalContext(prec=40))
    context.builtins = builtins.Builtins(
        {name: _span(seconds) for name, seconds in FUNCTIONS.items()},
        timezone=UTC,
        value_types={
            name: DataType.FUNCTION(name, return_type=DataType.TIMEDELTA, argument_types=(DataType.FLOAT,))
            for name in FUNCTIONS
        },
    )
    return context


def _span(seconds: int) -> Callable[[Decimal], timedelta]:
    def span(count: Decimal) -> timedelta:
        return timedelta(seconds=float(count * seconds))

    return span


@dataclass(frozen=True, slots=True)
class _Checker:
    """Checks for what rule-engine silently treats as false: unlike types, values missing from an enum."""

    fields: Mapping[str, FieldSpec]

    def check(self, node: Any) -> None:
        match node:
            case ast.LogicExpression(left=left, right=right):
                self._must_be_boolean(left, node.type)
                self._must_be_boolean(right, node.type)
            case ast.UnaryExpression(type="not", right=right):
                self._must_be_boolean(right, "not")
            case ast.ArithmeticComparisonExpression():
                pass  # rule-engine compares their types itself
            case ast.ComparisonExpression(left=left, right=right):
                self._must_be_alike(left, right)
                self._must_be_values_of(left, [right])
                self._must_be_values_of(right, [left])
            case ast.ContainsExpression(container=ast.StringExpression(value=text), member=ast.SymbolExpression()):
                raise ConditionError("`in` takes a list in square brackets", f'["{text}"]')
            case ast.ContainsExpression(container=ast.ArrayExpression(value=())):
                raise ConditionError("nothing is in an empty list", '["a", "b"]')
            case ast.ContainsExpression(container=ast.ArrayExpression(value=members), member=member):
                for each in members:
                    self._must_be_alike(member, each)
                self._must_be_values_of(member, members)
            case ast.ContainsExpression(container=ast.SymbolExpression(name=name, scope=None), member=member) if (
                self.fields[name].type == "list"
            ):
                self._must_be_text(name, member)
                self._must_be_values_of(node.container, [member])
        for child in children(node):
            self.check(child)

    def _must_be_boolean(self, node: Any, operator: str) -> None:
        if node.result_type != DataType.BOOLEAN:
            raise ConditionError(
                f"{_called(node)} isn't true or false, so `{operator}` can't take it; compare it with something"
            )

    def _must_be_alike(self, left: Any, right: Any) -> None:
        one, other = left.result_type, right.result_type
        if DataType.NULL not in (one, other) and one != other:
            kinds = f"{_kind(one)} with {_kind(other)}"
            what = f"{_called(left)} and {_called(right)} can't be equal: this compares {kinds}"
            text = next((node.value for node in (left, right) if isinstance(node, ast.StringExpression)), "")
            if day := next((day for day, name in enumerate(WEEKDAYS, 1) if text[:3].lower() == name), 0):
                raise ConditionError(what, f"{day}")
            raise ConditionError(what, _literal_meant(f'"{text}"', self.fields))

    def _must_be_text(self, name: str, member: Any) -> None:
        if member.result_type != DataType.STRING:
            raise ConditionError(f"{name} is a list of texts, so {_called(member)} can't be in it")

    def _must_be_values_of(self, node: Any, literals: Iterable[Any]) -> None:
        if not isinstance(node, ast.SymbolExpression) or node.scope is not None:
            return
        values, names_people = self.fields[node.name].values, self.fields[node.name].holds_people
        for literal in literals:
            if names_people and isinstance(literal, ast.StringExpression):
                self._must_be_an_address(node.name, literal.value)
            if values is not None and isinstance(literal, ast.StringExpression) and literal.value not in values:
                what = f'"{literal.value}" is not a value of {node.name}'
                raise ConditionError(what, nearest(literal.value, values) or ", ".join(values[:8]))

    def _must_be_an_address(self, name: str, text: str) -> None:
        try:
            address = canonical(text)
        except AddressError:
            raise ConditionError(f'"{text}" is no address, and {name} holds addresses') from None
        if address != text:
            raise ConditionError(f'{name} holds "{text}" in its one spelling', f'"{address}"')


WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _null_compared(node: Any) -> Iterator[str]:
    """Yield the fields that are compared with null: the author has thought of them not being given."""
    if isinstance(node, ast.ComparisonExpression):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(one, ast.SymbolExpression) and isinstance(other, ast.NullExpression):
                yield one.name
    for child in children(node):
        yield from _null_compared(child)


_KINDS = {
    "ARRAY": "a list",
    "FLOAT": "a number",
    "STRING": "a string",
    "BOOLEAN": "a boolean",
    "TIMEDELTA": "a duration",
}


def _kind(of: Any) -> str:
    return _KINDS.get(of.name, "a date or time" if of == DataType.DATETIME else "something else")


def _called(node: Any) -> str:
    match node:
        case ast.SymbolExpression(name=name):
            return str(name)
        case ast.StringExpression(value=value):
            return f'"{value}"'
        case ast.FloatExpression(value=value) | ast.BooleanExpression(value=value):
            return str(value).lower()
        case _:
            return "a part of it"


_TEXT = re.compile(r"""(?<![dt])(["'])(?P<text>[^"']*)\1""")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].*)?")
_SPAN = re.compile(r"(?P<count>\d+)\s*(?P<unit>m|min|minutes?|h|hours?|d|days?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _literal_meant(text: str, fields: Mapping[str, FieldSpec]) -> str:
    """Return how to write the date, duration or number that is there as text; "" if there is none."""
    kinds = {_TYPES.get(spec.type) for spec in fields.values()}
    for found in _TEXT.finditer(text):
        value = found["text"]
        if _DATE.fullmatch(value) and DataType.DATETIME in kinds:
            return f'd"{value}"'
        if (span := _SPAN.fullmatch(value)) is not None and DataType.TIMEDELTA in kinds:
            unit = next(name for name in FUNCTIONS if name.startswith(span["unit"][0]))
            return f"${unit}({span['count']})"
        if _NUMBER.fullmatch(value) and DataType.FLOAT in kinds:
            return value
    return ""


def _where(error: RuleSyntaxError) -> str:
    return f'at "{error.token.value}"' if error.token is not None else "at the end: something is missing"


def _reason(error: Exception) -> str:
    match error:
        case EvaluationError() if "mismatch" in error.message:
            return "it mixes values of different types (write a duration like $hours(2))"
        case RecursionError():
            return "it is nested too deeply"
        case ArithmeticError():
            return "it divides by zero or overflows"
        case EngineError():
            return str(error.message)
        case _:
            return str(error)


LONGEST = 1_000  # characters
MOST_WORDS = 200  # names, literals and operators; limits the depth of the tree
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
    "=": "compare with ==",
    "!": "write `not`",
    "&": "write `and`",
    "|": "write `or`",
    "{": "templates don't work in conditions; write just the field's name",
    "for": "comprehensions are not allowed in conditions",
    "if": "conditions have no `if`; use `and` and `or`",
}


Word = tuple[str, str]
"""A token: its kind (text, number, function, attribute, name, operator) and its text."""


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
            case "operator" if word == "<" and text[at : at + 1] == ">":
                raise ConditionError("compare with !=")
            case "number" if len(word) > _LONGEST_NUMBER:
                raise ConditionError("this number is too long")
            case "function" if word[1:] not in FUNCTIONS:
                raise ConditionError(f"no function is called {word}", nearest(word, [f"${name}" for name in FUNCTIONS]))
            case "attribute" if text[: match.start("attribute")].rstrip().endswith(("fields", "input", "form")):
                raise ConditionError("fields have their name alone", word[1:])
            case "attribute" if word[1:] not in ATTRIBUTES:
                raise ConditionError(
                    f"no attribute is called {word}", nearest(word, [f".{name}" for name in ATTRIBUTES])
                )
        yield kind, word
    if count == 0:
        raise ConditionError("the condition is empty")


_ELSEWHERE = {
    "is": "compare with == or !=, also with null: x != null",
    "like": "there is no `like`; use .starts_with, == or in",
    "contains": 'write "a" in x, or x.any("a*") for a list',
    "today": 'compare with a date, like d"2026-01-31", or write now.weekday or now.hour',
    "weekday": "write now.weekday: 1 is Monday, 7 is Sunday",
    "hour": "write now.hour: it is 0 to 23",
}
_LATER = ("outcome", "decision", "answers", "comment")


def names_in(words: Iterable[Word], fields: Mapping[str, FieldSpec], others: Container[str] = ()) -> tuple[str, ...]:
    """Return the fields that are named. Raises ConditionError for a name that is neither a field nor in `others`."""
    names: dict[str, None] = {}
    for kind, word in words:
        if kind != "name" or word in _KEYWORDS or word in others:
            continue
        if word not in fields:
            lower = {"True": "true", "False": "false", "None": "null", "AND": "and", "OR": "or", "NOT": "not"}
            meant = lower.get(word) or nearest(word, [*fields, *WORDS])
            is_value = any(word in (spec.values or ()) for spec in fields.values())
            if word in _ELSEWHERE and not is_value:
                raise ConditionError(_ELSEWHERE[word])
            if word in _LATER and not is_value:
                raise ConditionError(f"the {word} is known in the follow-ups of [[on.…]] only")
            if is_value or not meant:
                what = "" if is_value else "add it to [fields]; "
                raise ConditionError(f'no field is called {word}; {what}text needs quotation marks: "{word}"')
            raise ConditionError(f"no field is called {word}", meant)
        names[word] = None
    return tuple(names)


def refuse_mixing(words: Iterable[Word]) -> None:
    """Refuse `a and b or c`: people read it differently, so it needs brackets."""
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
                    raise ConditionError("`and` next to `or` needs brackets, to show which belong together")
