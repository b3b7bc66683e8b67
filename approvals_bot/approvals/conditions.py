"""Conditions: `amount >= 1000 or (team == "sales" and amount >= 500)`, checked when the file is loaded.

A condition is compiled against the types of [fields] by rule-engine, behind a narrow gate: names of fields, plain
literals, lists, arithmetic, comparisons, `in`, `and`, `or`, `not`, brackets, `$minutes(n) $hours(n) $days(n)` and a few
attributes. What is slow or surprising (regular expressions, powers, comprehensions, the clock, `and` beside `or`
without brackets) does not get in. It must answer yes or no.

It answers with a third word where it can't know: a field that is not given. A stage then applies and a rule then does
not decide, so the unknown always ends with people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from approvals_bot.approvals.condition_words import ConditionError as ConditionError
from approvals_bot.approvals.condition_words import names_in, read_words, refuse_mixing
from approvals_bot.approvals.fields import shown
from approvals_bot.config.fields import FieldSpec

if TYPE_CHECKING:
    from approvals_bot.approvals.condition_rules import CompiledRule

_LONGEST_SHOWN = 60  # characters of a value in a reason


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a condition says of these values. `holds`: yes, no, or None when a field it needs is not given."""

    holds: bool | None
    because: str


class Condition:
    """A compiled condition. Immutable, and the same for every request of one version of a workflow."""

    def __init__(self, text: str, fields: Mapping[str, FieldSpec]) -> None:
        """Raises ConditionError for everything that can be known before there are values."""
        words = list(read_words(text))
        self.text = text
        self.names = names_in(words, fields)
        self._fields = {name: fields[name] for name in self.names}
        refuse_mixing(words)
        self._rule = _compiled(text, fields)

    def judge(self, typed: Mapping[str, Any]) -> Judgement:
        """Decide by the typed values of the request's fields. Never raises for a value that fits its field."""
        unset = [name for name in self.names if typed.get(name) is None and name not in self._rule.compared_with_null]
        if unset:
            return Judgement(None, f"{_listed(unset)} {'is' if len(unset) == 1 else 'are'} not given")
        try:
            holds = self._rule.holds({name: typed.get(name) for name in self.names})
        except ArithmeticError as error:
            return Judgement(None, f"{self.text} can't be worked out: {error}")
        return Judgement(holds, f"{self.text} is {'true' if holds else 'not true'} ({self._shown(typed)})")

    def values(self, typed: Mapping[str, Any]) -> dict[str, Any]:
        """The typed values that it looks at, by field, in the order in which it names them."""
        return {name: typed.get(name) for name in self.names}

    def _shown(self, typed: Mapping[str, Any]) -> str:
        values = {name: shown(self._fields, name, typed.get(name)) for name in self.names}
        return ", ".join(f"{name}: {_short(value)}" for name, value in values.items()) or "always"


def condition(text: str, fields: Mapping[str, FieldSpec]) -> Condition:
    """`Condition(text, fields)`, compiled once for the same text and fields."""
    return _cached(text, tuple(fields.items()))


@lru_cache(maxsize=512)
def _cached(text: str, fields: tuple[tuple[str, FieldSpec], ...]) -> Condition:
    return Condition(text, dict(fields))


def _compiled(text: str, fields: Mapping[str, FieldSpec]) -> CompiledRule:
    from approvals_bot.approvals.condition_rules import CompiledRule  # half a second, spent by who has conditions

    return CompiledRule(text, fields)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 1] + "…"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
