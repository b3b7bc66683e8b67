"""What a workflow's file says of the tool calls of agents: the form of a call, and how many an agent may make.

Any other file has its own fields. A tool call has those of its tool, which are known only when it comes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema, model_validator

from approvals_bot.approvals.base import Frozen, Int, refuse
from approvals_bot.approvals.durations import Duration, parse_duration
from approvals_bot.approvals.field_specs import FieldSpec

TOOL_CALL = "tool-call"
"""The workflow that asks people about an agent's tool calls. A file with this id replaces the built-in one."""

EVERY_APP = "app:*"
"""Stands for every API key, in `workflow.request`."""

CHOICES = ("approve", "edit", "reject", "answer")
"""What people may choose at a tool call, unless its file says otherwise."""

CALL_FIELDS = {
    "tool": FieldSpec(type="string", untrusted=True),
    "agent": FieldSpec(type="string", untrusted=True),
    "why": FieldSpec(type="text", untrusted=True, required=False, editable=True),
}
"""The fields that the templates and conditions of its file may name."""

_PERIODS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) per ([0-9a-z ]{1,64})", re.ASCII)
LONGEST_PERIOD = timedelta(days=31)
MOST_CALLS = 1_000  # within a period; a session's calls are counted one by one

Leaf = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""The path of a value in the arguments: `price`, `items.0.price`."""


@dataclass(frozen=True, slots=True)
class BudgetRate:
    """An amount in a period that moves along: "20 per hour" is at most 20 in any sixty minutes."""

    most: Decimal
    period: timedelta
    text: str  # as written


class Budget(Frozen):
    """How much one session of an agent may ask for: calls, sums of an argument, and requests that are open."""

    calls: Calls | None = None
    sum: dict[Leaf, Amount] = Field(default_factory=dict)
    open: Annotated[Int, Field(ge=1, le=1_000)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if self.calls is None and self.open is None and not self.sum:
            raise refuse('limits nothing; write calls = "20 per hour", sum.price = "5000 per day" or open = 10')
        return self


class CallLimits(Frozen):
    """Limits of a yes that covers the next calls of a tool, too."""

    same: tuple[Leaf, ...] = ()
    at_most: dict[Leaf, Number] = Field(default_factory=dict)
    count: Annotated[Int, Field(ge=1, le=1_000)]
    sum: dict[Leaf, Number] = Field(default_factory=dict)
    until: Duration


class Allowance(CallLimits):
    """How far a yes that covers the next calls, too, may go at most."""

    tools: Annotated[tuple[Leaf, ...], Field(min_length=1)]


class CallAllowance(CallLimits):
    """A yes that covers the next calls of this tool, too, as a person gives it with their vote."""

    tool: Leaf


def _rate(value: object) -> object:
    if isinstance(value, BudgetRate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise refuse('write an amount and a time, like "20 per hour"')
    text = found[2].strip()
    try:
        period = _PERIODS.get(text) or parse_duration(text)
    except ValueError:
        raise refuse(f'"{text}" is not a time; write "20 per minute", "per hour", "per day" or "per 15m"') from None
    if not timedelta(0) < period <= LONGEST_PERIOD:
        raise refuse("a budget is for 31 days at most", "20 per day")
    return BudgetRate(Decimal(found[1]), period, str(value))


def _calls(value: object) -> object:
    rate = _rate(value)
    if isinstance(rate, BudgetRate) and not (1 <= rate.most <= MOST_CALLS and rate.most == int(rate.most)):
        raise refuse(f"a number of calls is a whole number, from 1 to {MOST_CALLS:,}")
    return rate


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 <= value < 10**15:
        raise refuse("write a number that isn't negative")
    return Decimal(int(value)) if isinstance(value, float) and value.is_integer() else Decimal(str(value))


def _rate_text(rate: BudgetRate) -> str:
    return rate.text


_SHOWN: Any = {"type": "string", "pattern": "^[0-9.]+ per .+", "examples": ["20 per hour", "5000 per day"]}
Amount = Annotated[
    BudgetRate, BeforeValidator(_rate), PlainSerializer(_rate_text, return_type=str), WithJsonSchema(_SHOWN)
]
Calls = Annotated[
    BudgetRate, BeforeValidator(_calls), PlainSerializer(_rate_text, return_type=str), WithJsonSchema(_SHOWN)
]


def _plain(value: Decimal) -> float:
    return float(value)


Number = Annotated[
    Decimal,
    BeforeValidator(_number),
    PlainSerializer(_plain, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
