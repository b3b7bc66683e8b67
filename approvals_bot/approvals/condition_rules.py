"""Conditions in rule-engine's hands: compiled, checked for what it would quietly take for false, and worked out.

Importing rule-engine builds its parser, which takes about half a second; so `conditions` imports this room when the
first condition is compiled, and programs that see none never pay for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context as DecimalContext
from decimal import Decimal
from typing import Any

from rule_engine import Context, DataType, EngineError, EvaluationError, Rule, RuleSyntaxError, ast, builtins

from approvals_bot.approvals.condition_words import FUNCTIONS, ConditionError
from approvals_bot.config.fields import FieldSpec
from approvals_bot.config.problems import nearest

_TYPES = {
    "integer": DataType.FLOAT,
    "decimal": DataType.FLOAT,
    "money": DataType.FLOAT,
    "boolean": DataType.BOOLEAN,
    "date": DataType.DATETIME,
    "datetime": DataType.DATETIME,
    "duration": DataType.TIMEDELTA,
}


class Unworkable(ArithmeticError):
    """These values can't be worked out: they divide by zero, say. The message is the reason."""


class CompiledRule:
    """A condition that was found sound for these fields."""

    def __init__(self, text: str, fields: Mapping[str, FieldSpec]) -> None:
        """Raises ConditionError."""
        self._rule = _compile(text, fields)
        _Checker(fields).check(self._rule.statement.expression)
        self.compared_with_null = frozenset(_null_compared(self._rule.statement.expression))

    def holds(self, typed: Mapping[str, Any]) -> bool:
        """Whether it is true of these typed values. Raises Unworkable."""
        try:
            return bool(self._rule.evaluate({name: _plain(value) for name, value in typed.items()}))
        except (EngineError, ArithmeticError) as error:
            raise Unworkable(_reason(error)) from None


def _compile(text: str, fields: Mapping[str, FieldSpec]) -> Rule:
    types = {name: _TYPES.get(spec.type, DataType.STRING) for name, spec in fields.items()}
    context = Context(type_resolver=types, default_timezone="utc", decimal_context=DecimalContext(prec=40))
    context.builtins = builtins.Builtins(
        {name: _span(seconds) for name, seconds in FUNCTIONS.items()},
        timezone=UTC,
        value_types={
            name: DataType.FUNCTION(name, return_type=DataType.TIMEDELTA, argument_types=(DataType.FLOAT,))
            for name in FUNCTIONS
        },
    )
    try:
        with warnings.catch_warnings():
            # It decodes texts as Python does, which warns of escapes that it doesn't know and keeps them.
            warnings.simplefilter("ignore", DeprecationWarning)
            rule = Rule(text, context)
    except RuleSyntaxError as error:
        raise ConditionError(f"this can't be read {_where(error)}") from None
    except (EngineError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise ConditionError(_reason(error)) from None
    if rule.statement.expression.result_type != DataType.BOOLEAN:
        raise ConditionError("a condition must be true or false; compare it with something")
    return rule


def _span(seconds: int) -> Callable[[Decimal], timedelta]:
    def span(count: Decimal) -> timedelta:
        return timedelta(seconds=float(count * seconds))

    return span


@dataclass(frozen=True, slots=True)
class _Checker:
    """Finds what rule-engine would quietly take for false: an unlike comparison, a value that an enum doesn't have."""

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
            case ast.ContainsExpression(container=ast.ArrayExpression(value=members), member=member):
                for each in members:
                    self._must_be_alike(member, each)
                self._must_be_values_of(member, members)
        for child in _children(node):
            self.check(child)

    def _must_be_boolean(self, node: Any, operator: str) -> None:
        if node.result_type != DataType.BOOLEAN:
            raise ConditionError(f"{_called(node)} is no yes or no, so `{operator}` can't take it; compare it first")

    def _must_be_alike(self, left: Any, right: Any) -> None:
        one, other = left.result_type, right.result_type
        if DataType.NULL not in (one, other) and one != other:
            kinds = f"{_kind(one)} with {_kind(other)}"
            raise ConditionError(f"{_called(left)} and {_called(right)} can't be equal: it compares {kinds}")

    def _must_be_values_of(self, node: Any, literals: Iterable[Any]) -> None:
        if not isinstance(node, ast.SymbolExpression) or node.scope is not None:
            return
        values = self.fields[node.name].values
        for literal in literals:
            if values is not None and isinstance(literal, ast.StringExpression) and literal.value not in values:
                what = f'"{literal.value}" is no value of {node.name}'
                raise ConditionError(what, nearest(literal.value, values) or ", ".join(values[:8]))


def _null_compared(node: Any) -> Iterator[str]:
    """Fields that the author compares with null, and so has thought of."""
    if isinstance(node, ast.ComparisonExpression):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(one, ast.SymbolExpression) and isinstance(other, ast.NullExpression):
                yield one.name
    for child in _children(node):
        yield from _null_compared(child)


def _children(node: Any) -> Iterator[Any]:
    for name in ("left", "right", "container", "member", "item", "object", "function"):
        child = getattr(node, name, None)
        if isinstance(child, ast.ExpressionBase):
            yield child
    yield from getattr(node, "arguments", ())
    if isinstance(node, ast.ArrayExpression):
        yield from node.value


def _plain(value: Any) -> Any:
    """A typed value as rule-engine knows it. It compares classes exactly, so money must become a bare number."""
    match value:
        case bool() | None | str() | timedelta() | datetime():
            return value
        case int() | Decimal():
            return Decimal(value)
        case date():
            return datetime.combine(value, time(), UTC)
        case _:
            raise TypeError(f"a field holds no {type(value).__name__}")


_KINDS = {"FLOAT": "a number", "STRING": "a text", "BOOLEAN": "a yes or no", "TIMEDELTA": "a span of time"}


def _kind(of: Any) -> str:
    return _KINDS.get(of.name, "a moment" if of == DataType.DATETIME else "something else")


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


def _where(error: RuleSyntaxError) -> str:
    return f'at "{error.token.value}"' if error.token is not None else "to its end; something is missing there"


def _reason(error: Exception) -> str:
    match error:
        case EvaluationError() if "mismatch" in error.message:
            return "it compares or counts things of different kinds (a span of time is written like $hours(2))"
        case RecursionError():
            return "it is nested too deeply"
        case ArithmeticError():
            return "it divides by zero or counts too far"
        case EngineError():
            return str(error.message)
        case _:
            return str(error)
