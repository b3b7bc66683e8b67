"""What a workflow's file says of approvals that also cover later requests, and of those that need no vote at first."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from approvals_bot.approvals.base import Frozen, Int, Text, refuse
from approvals_bot.approvals.durations import Duration
from approvals_bot.approvals.field_specs import FieldName
from approvals_bot.approvals.json_values import UnfitError
from approvals_bot.approvals.numbers import read_decimal

MOST_TIMES = 1_000
"""Uses of one approval: they are counted one by one."""

LONGEST_STANDING = timedelta(days=366)
LONGEST_REVIEW = timedelta(days=31)


class Standing(Frozen):
    """How far an approval also covers later requests."""

    match: Annotated[tuple[FieldName, ...], Field(min_length=1)]  # the pinned fields that have to be equal
    lasts: Annotated[Duration, AfterValidator(lambda value: _at_most(value, LONGEST_STANDING, "366 days"))]
    times: Annotated[Int, Field(ge=1, le=MOST_TIMES)] | None = None  # None: MOST_TIMES
    sum: StandingSum | None = None
    for_: Literal["requester", "anyone"] = Field("requester", alias="for")

    @model_validator(mode="after")
    def _matches_each_once(self) -> Standing:
        if len(set(self.match)) != len(self.match):
            raise refuse("a field is listed twice", at="match")
        return self


class StandingSum(Frozen):
    """The most that a field of all covered requests may add up to."""

    field: FieldName
    max: Sum


class BreakGlass(Frozen):
    """The people who may open a request without a vote in an emergency, and its review."""

    who: Annotated[tuple[Text, ...], Field(min_length=1)]
    review: Review


class Review(Frozen):
    """The people who say afterwards whether it was justified. After `within`, owners and admins are asked, too."""

    from_: Annotated[tuple[Text, ...], Field(min_length=1, alias="from")]
    within: Annotated[Duration, AfterValidator(lambda value: _at_most(value, LONGEST_REVIEW, "31 days"))]


class Emergency(Frozen):
    """Why a request was opened without a vote, and who is asked once its review is late. Only a run has it."""

    reason: Text
    escalate_to: tuple[Text, ...] = ()


def _at_most(value: timedelta, longest: timedelta, text: str) -> timedelta:
    if value > longest:
        raise refuse(f"at most {text}")
    return value


def _sum(value: object) -> object:
    if isinstance(value, Decimal):
        return value
    try:
        amount = read_decimal(value)
    except UnfitError:
        amount = Decimal(-1)
    if not 0 < amount < 10**15:
        raise refuse('write a number above 0 in quotes, like "500" or "1250.50"')
    return amount


_SHOWN: Any = {"type": ["string", "number"], "examples": ["500", "1250.50"]}
Sum = Annotated[Decimal, BeforeValidator(_sum), PlainSerializer(str, return_type=str), WithJsonSchema(_SHOWN)]
