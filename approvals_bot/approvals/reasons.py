"""Reasons in words for a condition's result: "the amount is 640.00 EUR (sales, 500 or more)".

A reason names only what decided: the first part of `a or b` that holds, the first part of `a and b` that doesn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from approvals_bot.approvals.circumstances import HOUR, WEEKDAY
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import label
from approvals_bot.approvals.rule_language import ast
from approvals_bot.approvals.values import shown_date, shown_value

LONGEST_VALUE = 60  # characters of a value in a reason
LONGEST_NOUN = 4  # words of a label that reads well after "the"
NO_NOUN = frozenset(
    {
        "at", "by", "do", "does", "for", "from", "how", "in", "is", "of", "on", "to", "until", "what", "when", "where",
        "which", "who", "whose", "why", "with",
    }
)  # fmt: skip
"""What labels begin with that don't."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NOT = {"eq": "ne", "ne": "eq", "ge": "lt", "lt": "ge", "gt": "le", "le": "gt"}
_MIRRORED = {"eq": "eq", "ne": "ne", "ge": "le", "le": "ge", "gt": "lt", "lt": "gt"}
_OF_AMOUNTS = {"ge": "{} or more", "gt": "more than {}", "le": "{} or less", "lt": "less than {}"}
_OF_TIMES = {"ge": "{} or later", "gt": "after {}", "le": "{} or earlier", "lt": "before {}"}


NOTHING: Mapping[str, str] = {}


class NoWordsError(Exception):
    """A condition with a part that isn't a comparison of a field: its reason has to quote it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A comparison that decided, in words. `is_value`: the words are the field's own value."""

    field: str
    words: str
    is_value: bool = False
    kind: str = ""  # of a comparison with a constant: ge, gt, le, lt
    bound: Any = None


def reason_for(
    expression: Any,
    holds: bool,
    typed: Mapping[str, Any],
    fields: Mapping[str, FieldSpec],
    said: Mapping[str, str] = NOTHING,
) -> str:
    """Put into words why this expression of rule-engine is true or false for these values.

    The result reads well after "because". `typed`: the values by field; `fields`: their types. `said`:
    sentences about names that stand for more than a field. Raises NoWordsError.
    """
    return _Reasons(typed, fields, said).sentence(expression, holds)


def condition_words(expression: Any, fields: Mapping[str, FieldSpec]) -> str:
    """Put an expression into words that read well after "if": "the amount is 500 or more and the team is sales".

    `fields`: those that it may be about. Raises NoWordsError.
    """
    return _Conditions(fields).sentence(expression, holds=True)


def the(name: str, spec: FieldSpec) -> str:
    """Return the field as a subject: `the amount`, `“What is deleted, and why?”`."""
    called = noun(name, spec)
    return called if called.startswith("“") else f"the {called}"


def noun(name: str, spec: FieldSpec) -> str:
    """Return the field's label as a noun; in quotation marks if it is a sentence."""
    text = label(name, spec)
    first, *rest = text.split()
    if len(rest) >= LONGEST_NOUN or not text[-1].isalnum() or first.lower() in NO_NOUN:
        return f"“{text}”"
    return text if first[1:] != first[1:].lower() else text[:1].lower() + text[1:]


def shortened(value: str) -> str:
    """Cut the value to the room in a reason."""
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Reasons:
    typed: Mapping[str, Any]
    fields: Mapping[str, FieldSpec]
    said: Mapping[str, str]

    def sentence(self, expression: Any, holds: bool) -> str:
        parts = _tightest(self._parts(expression, holds))
        if not parts:
            return "it always applies" if holds else "it never applies"
        named = {part.field for part in parts if not part.is_value}
        if not named:
            return _listed([self._fact(part.field) for part in parts])
        heads = _listed([self._fact(name) for name in dict.fromkeys(p.field for p in parts) if name in named])
        return f"{heads} ({', '.join(part.words for part in parts)})"

    def _parts(self, node: Any, holds: bool) -> Iterator[_Part]:
        """Yield the parts that make this node true or false."""
        match node:
            case ast.LogicExpression(type=kind, left=left, right=right):
                both = (kind == "and") is holds
                for side in (left, right):
                    if both:
                        yield from self._parts(side, holds)
                    elif bool(self._value(side)) is holds:  # a flag that is not given counts as no
                        yield from self._parts(side, holds)
                        return
            case ast.UnaryExpression(type="not", right=right):
                yield from self._parts(right, not holds)
            case ast.ComparisonExpression(type=kind, left=left, right=right):
                yield self._comparison(kind if holds else _NOT[kind], left, right)
            case ast.ContainsExpression(container=container, member=member):
                yield self._containing(container, member, holds)
            case ast.SymbolExpression(name=name, scope=None):
                yield self._yes_or_no(name, holds)
            case ast.BooleanExpression():
                return
            case _:
                raise NoWordsError

    def _comparison(self, kind: str, left: Any, right: Any) -> _Part:
        if not isinstance(left, ast.SymbolExpression):
            kind, left, right = _MIRRORED[kind], right, left
        if not isinstance(left, ast.SymbolExpression) or left.scope is not None:
            raise NoWordsError
        name = left.name
        match right:
            case ast.NullExpression():
                return _Part(name, f"{self._called(name)} {'not ' if kind == 'eq' else ''}given", is_value=kind == "eq")
            case ast.BooleanExpression(value=value):
                return self._yes_or_no(name, value is (kind == "eq"))
        other = self._other_side(right, name)
        if kind in ("eq", "ne"):
            return _Part(name, other, is_value=True) if kind == "eq" else _Part(name, f"not {other}")
        spec = self.fields[name]
        words = _OF_TIMES if spec.type in ("date", "datetime") or spec in (WEEKDAY, HOUR) else _OF_AMOUNTS
        bound = None if isinstance(right, ast.SymbolExpression) else self._value(right)
        return _Part(name, words[kind].format(other), kind=kind if bound is not None else "", bound=bound)

    def _containing(self, container: Any, member: Any, holds: bool) -> _Part:
        match container, member:
            case ast.ArrayExpression(value=members), ast.SymbolExpression(name=name, scope=None):
                if holds:
                    return _Part(name, self._shown(name), is_value=True)
                return _Part(name, f"not {_listed([self._other_side(each, name) for each in members], 'or')}")
            case ast.SymbolExpression(name=name, scope=None), ast.StringExpression(value=text) if (
                self.fields[name].type != "list"
            ):
                return _Part(name, f"{'with' if holds else 'without'} “{text}”")
            case _:
                raise NoWordsError

    def _yes_or_no(self, name: str, value: bool) -> _Part:
        return _Part(name, f"{'' if value else 'not '}{self._called(name)}", is_value=True)

    def _other_side(self, node: Any, field: str) -> str:
        """Return what a field is compared with: a constant, or another field with its value."""
        if isinstance(node, ast.SymbolExpression) and node.scope is None:
            return f"{self._the(node.name)} of {self._shown(node.name)}"
        if any(isinstance(each, ast.SymbolExpression) and each.scope is None for each in _inside(node)):
            raise NoWordsError
        return _constant(self._value(node), self.fields[field])

    def _fact(self, name: str) -> str:
        """State a field's value: `the amount is 640.00 EUR`."""
        if name in self.said:
            return self.said[name]
        if self.typed.get(name) is None:
            return f"{self._the(name)} is not given"
        subject = self._the(name) if self.fields[name].type != "boolean" else f"“{label(name, self.fields[name])}”"
        return f"{subject} is {self._shown(name)}"

    def _the(self, name: str) -> str:
        return the(name, self.fields[name])

    def _called(self, name: str) -> str:
        return noun(name, self.fields[name])

    def _shown(self, name: str) -> str:
        """Show a value on one line; what somebody else wrote is a quotation here, too."""
        if self.fields[name] == WEEKDAY:
            return _DAYS[int(self.typed[name]) - 1]
        text = shortened(" ".join(shown_value(self.typed.get(name)).split()))
        return f"“{text}”" if self.fields[name].untrusted else text

    def _value(self, node: Any) -> Any:
        return node.evaluate({name: plain(value) for name, value in self.typed.items()})


@dataclass(frozen=True, slots=True)
class _Conditions:
    """Conditions in words, before there are values."""

    fields: Mapping[str, FieldSpec]

    def sentence(self, node: Any, *, holds: bool, depth: int = 0) -> str:
        match node:
            case ast.LogicExpression(type=kind):
                if depth > 1:
                    raise NoWordsError  # it would read in two ways
                joint = kind if holds else {"and": "or", "or": "and"}[kind]
                sides = [*self._sides(node, kind)]
                parts = [self.sentence(side, holds=holds, depth=depth + 1) for side in sides]
                is_flat = not any(isinstance(_positive(side), ast.LogicExpression) for side in sides)
                return f" {joint} ".join(parts) if is_flat else f", {joint} ".join(parts)
            case ast.UnaryExpression(type="not", right=right):
                return self.sentence(right, holds=not holds, depth=depth)
            case ast.ComparisonExpression(type=kind, left=left, right=right):
                return self._comparison(kind if holds else _NOT[kind], left, right)
            case ast.ContainsExpression(container=ast.ArrayExpression(value=members), member=member):
                listed = _listed([self._other(each, self._name(member)) for each in members], "or" if holds else "nor")
                return f"{self._the(member)} is {listed if holds else f'neither {listed}'}"
            case ast.ContainsExpression(container=container, member=ast.StringExpression(value=text)):
                if self._spec(container).type == "list":
                    return f"“{text}” is {'' if holds else 'not '}among {self._the(container)}"
                return f"{self._the(container)} {'contains' if holds else 'doesn’t contain'} “{text}”"
            case ast.SymbolExpression():
                return f"“{label(self._name(node), self._spec(node))}” is {'yes' if holds else 'no'}"
            case _:
                raise NoWordsError

    def _sides(self, node: Any, kind: str) -> Iterator[Any]:
        """Yield the parts that the same word joins."""
        for side in (node.left, node.right):
            if isinstance(side, ast.LogicExpression) and side.type == kind:
                yield from self._sides(side, kind)
            else:
                yield side

    def _comparison(self, kind: str, left: Any, right: Any) -> str:
        if not isinstance(left, ast.SymbolExpression):
            kind, left, right = _MIRRORED[kind], right, left
        match right:
            case ast.NullExpression():
                return f"{self._the(left)} is {'not ' if kind == 'eq' else ''}given"
            case ast.BooleanExpression(value=value):
                return self.sentence(left, holds=value is (kind == "eq"), depth=2)
        other = self._other(right, self._name(left))
        if kind in ("eq", "ne"):
            return f"{self._the(left)} is {'not ' if kind == 'ne' else ''}{other}"
        words = _OF_TIMES if self._spec(left).type in ("date", "datetime") else _OF_AMOUNTS
        return f"{self._the(left)} is {words[kind].format(other)}"

    def _other(self, node: Any, field: str) -> str:
        """Return what a field is compared with: a constant, or another field."""
        if isinstance(node, ast.SymbolExpression):
            return self._the(node)
        if any(isinstance(each, ast.SymbolExpression) and each.scope is None for each in _inside(node)):
            raise NoWordsError
        return _constant(node.evaluate({}), self.fields[field])

    def _the(self, node: Any) -> str:
        return the(self._name(node), self._spec(node))

    def _spec(self, node: Any) -> FieldSpec:
        return self.fields[self._name(node)]

    def _name(self, node: Any) -> str:
        """Return the field's name. Raises NoWordsError for everything that isn't one."""
        if not isinstance(node, ast.SymbolExpression) or node.scope is not None or node.name not in self.fields:
            raise NoWordsError
        return str(node.name)


def _positive(node: Any) -> Any:
    """Return what is left of an expression without `not`."""
    return _positive(node.right) if isinstance(node, ast.UnaryExpression) and node.type == "not" else node


def _constant(value: Any, spec: FieldSpec) -> str:
    match value:
        case Decimal() if spec == WEEKDAY:
            return _DAYS[int(value) - 1]
        case Decimal():
            return f"{value.normalize():,f}"
        case datetime() if spec.type == "date":
            return shown_date(value.date())
        case _:
            return shortened(shown_value(value))


def _tightest(parts: Iterable[_Part]) -> list[_Part]:
    """Remove duplicates; of "less than 1,000" and "less than 500", keep the narrower."""
    kept: dict[object, _Part] = {}
    for part in parts:
        key = (part.field, part.kind) if part.kind else part
        known = kept.setdefault(key, part)
        if part.kind and (part.bound > known.bound if part.kind in ("ge", "gt") else part.bound < known.bound):
            kept[key] = part
    return list(kept.values())


def plain(value: Any) -> Any:
    """Convert a typed value for rule-engine. It compares exact classes, so money becomes a bare number."""
    match value:
        case bool() | None | str() | timedelta() | datetime() | tuple():
            return value
        case int() | Decimal():
            return Decimal(value)
        case date():
            return datetime.combine(value, time(), UTC)
        case _:
            raise TypeError(f"a field holds no {type(value).__name__}")


def children(node: Any) -> Iterator[Any]:
    """Yield the direct sub-expressions of a rule-engine expression."""
    for name in ("left", "right", "container", "member", "item", "object", "function"):
        child = getattr(node, name, None)
        if isinstance(child, ast.ExpressionBase):
            yield child
    yield from getattr(node, "arguments", ())
    if isinstance(node, ast.ArrayExpression):
        yield from node.value


def _inside(node: Any) -> Iterator[Any]:
    yield node
    for child in children(node):
        yield from _inside(child)


def _listed(texts: list[str], last: str = "and") -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"
