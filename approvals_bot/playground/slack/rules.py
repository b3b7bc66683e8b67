"""How the rules of Block Kit are made: each takes a value and adds a `Problem` for everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what was expected."""

    pointer: str
    message: str
    constraint: tuple[str, Any] = ("", None)

    def line(self) -> str:
        return f"[ERROR] {self.message} [json-pointer:{self.pointer}]"

    def as_json(self) -> dict[str, Any]:
        kind, expected = self.constraint
        found: dict[str, Any] = {"code": "failed_constraint", "message": self.message, "pointer": self.pointer}
        return found | ({"constraint": {"type": kind, "expected": expected}} if kind else {})


Rule = Callable[[Any, str, list[Problem]], None]
Fields = Mapping[str, Rule]  # a name that ends with "!" is required


def string(most: int | None = None, least: int = 0, pattern: str | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if not isinstance(value, str):
            problems.append(Problem(at, "must be a string", ("type", "string")))
        elif len(value) < least:
            problems.append(Problem(at, f"must be more than {least - 1} characters", ("min_length", least)))
        elif most is not None and len(value) > most:
            problems.append(Problem(at, f"must be less than {most + 1} characters", ("max_length", most)))
        elif pattern and not re.fullmatch(pattern, value):
            problems.append(Problem(at, f"failed to match required pattern: {pattern}", ("pattern", pattern)))

    return rule


def boolean(value: Any, at: str, problems: list[Problem]) -> None:
    if not isinstance(value, bool):
        problems.append(Problem(at, "must be a boolean", ("type", "boolean")))


def integer(least: int | None = None, most: int | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            problems.append(Problem(at, "must be an integer", ("type", "integer")))
        elif least is not None and value < least:
            problems.append(Problem(at, f"must be at least {least}", ("minimum", least)))
        elif most is not None and value > most:
            problems.append(Problem(at, f"must be at most {most}", ("maximum", most)))

    return rule


def one_of(*values: str) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if value not in values:
            problems.append(Problem(at, f"must be one of: {', '.join(values)}", ("enum", list(values))))

    return rule


def array(item: Rule, least: int = 0, most: int | None = None) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if not isinstance(value, list):
            problems.append(Problem(at, "must be an array", ("type", "array")))
            return
        if len(value) < least:
            problems.append(Problem(at, f"no fewer than {least} items allowed", ("min_items", least)))
        if most is not None and len(value) > most:
            problems.append(Problem(at, f"no more than {most} items allowed", ("max_items", most)))
        for index, part in enumerate(value):
            item(part, f"{at}/{index}", problems)

    return rule


def record(fields: Fields) -> Rule:
    """An object that has exactly these fields; no others."""
    rules = {name.rstrip("!"): rule for name, rule in fields.items()}
    required = [name[:-1] for name in fields if name.endswith("!")]

    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if not isinstance(value, dict):
            problems.append(Problem(at, "must be an object", ("type", "object")))
            return
        for name in required:
            if name not in value:
                problems.append(Problem(at, f"missing required field: {name}", ("required", name)))
        for name, part in value.items():
            if name in rules:
                rules[name](part, f"{at}/{name}", problems)
            elif name != "type":
                problems.append(Problem(at, f"invalid additional property: {name}", ("additional_property", name)))

    return rule


def tagged(kinds: Mapping[str, Rule], what: str, *, only: frozenset[str] | None = None) -> Rule:
    """An object whose `type` says which rule it must obey."""

    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if not isinstance(value, dict):
            problems.append(Problem(at, "must be an object", ("type", "object")))
            return
        kind = value.get("type")
        allowed = sorted(set(kinds) & only) if only else sorted(kinds)
        if kind is None:
            problems.append(Problem(at, "missing required field: type", ("required", "type")))
        elif kind not in allowed:
            problems.append(Problem(f"{at}/type", f"unsupported type: {kind}", ("enum", allowed)))
        else:
            kinds[kind](value, at, problems)

    return rule


def both(*rules: Rule) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        for each in rules:
            each(value, at, problems)

    return rule


def exactly_one(*names: str) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if isinstance(value, dict) and sum(name in value for name in names) != 1:
            problems.append(Problem(at, f"must provide exactly one of: {', '.join(names)}"))

    return rule


def at_least_one(*names: str) -> Rule:
    def rule(value: Any, at: str, problems: list[Problem]) -> None:
        if isinstance(value, dict) and not any(name in value for name in names):
            problems.append(Problem(at, f"must provide at least one of: {', '.join(names)}"))

    return rule
