"""Filters by attributes, as a query has them: `attr.amount.gte=100`, `attr.team=red`, `attr.region.in=eu,us`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from approvals_bot.durable.core.attributes import MAX_WANTED, OPERATORS, RANGES, Attribute, Wanted, conditions_of
from approvals_bot.errors import InvalidArgumentError, LimitExceededError
from approvals_bot.web.validation import bad_query

ATTRIBUTE = "attr."
"""What the names of these parameters begin with."""

_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][-+]?[0-9]{1,4})?")


def wanted_attributes(asked: Mapping[str, str]) -> dict[str, Wanted]:
    """Return the conditions on attributes among these parameters. Raises Problem 422, which names each wrong one."""
    wanted: defaultdict[str, dict[str, list[Attribute] | Attribute]] = defaultdict(dict)
    faults = list[tuple[str, str]]()
    for parameter, text in asked.items():
        if not parameter.startswith(ATTRIBUTE):
            continue
        try:
            name, operator, values = _condition(parameter, text)
            conditions_of({name: {operator: values}})
            if operator in wanted[name]:
                raise InvalidArgumentError(f"the filter already has values for {ATTRIBUTE}{name}")
            wanted[name][operator] = values
        except (InvalidArgumentError, LimitExceededError) as error:
            faults.append((parameter, str(error)))
    if not faults and len(wanted) > MAX_WANTED:
        faults = [(parameter, f"more than {MAX_WANTED} attributes") for parameter in asked if ATTRIBUTE in parameter]
    if faults:
        raise bad_query([{"loc": ["query", parameter], "msg": message} for parameter, message in faults])
    return dict(wanted)


def _condition(parameter: str, text: str) -> tuple[str, str, list[Attribute] | Attribute]:
    """Return the attribute's name, the operator, and the value or values.

    Without an operator, or with `eq`, `100` is found as a number and as a text: a query has only texts.
    """
    name, dot, operator = parameter.removeprefix(ATTRIBUTE).rpartition(".")
    if not dot:
        name, operator = operator, "eq"
    if not name or operator not in OPERATORS:
        raise InvalidArgumentError(f"the operator must be one of {', '.join(OPERATORS)}, as in {ATTRIBUTE}amount.gte")
    if name.startswith("$"):
        raise InvalidArgumentError("names that start with $ are reserved")
    if operator in RANGES:
        return name, operator, _read(text)[0]
    texts = text.split(",") if operator == "in" else [text]
    return name, "in", [value for each in texts for value in _read(each)]


def _read(text: str) -> list[Attribute]:
    """Return the values that a text may stand for, the likeliest first. In quotation marks, it is a text."""
    if text in ("true", "false"):
        return [text == "true", text]
    if _NUMBER.fullmatch(text):
        return [Decimal(text), text]
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return [str(json.loads(text))]
        except ValueError:
            raise InvalidArgumentError("this is no text in quotation marks") from None
    return [text]
