"""Spans that are counted while an office is open: "2 business days", "4 business hours"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from approvals_bot.config.base import refuse
from approvals_bot.config.durations import duration_text, parse_duration

MOST = {"days": 366, "hours": 3_000, "minutes": 180_000}
"""A year or so: beyond it a typing error is likelier than a wish."""

_BUSINESS = re.compile(r"([0-9]{1,9}) *business *(day|hour|minute)s?", re.IGNORECASE)
_SECONDS = {"hours": 3_600, "minutes": 60}

Unit = Literal["days", "hours", "minutes"]


@dataclass(frozen=True, slots=True)
class BusinessTime:
    """So much time while the office is open. What it comes to depends on the calendar and on when it begins."""

    count: int
    unit: Unit

    @property
    def seconds(self) -> int:
        """Of open time. Business days have no fixed length and are counted as days."""
        return self.count * _SECONDS[self.unit]

    def times(self, factor: float) -> BusinessTime:
        """So many times as long, in whole units of its own."""
        return BusinessTime(max(1, round(self.count * factor)), self.unit)

    def __str__(self) -> str:
        return f"{self.count} business {self.unit if self.count != 1 else self.unit[:-1]}"


Length = timedelta | BusinessTime
"""How long, by the clock on the wall or while the office is open."""


def parse_length(text: str) -> Length:
    """Read "4h" or "2 business days"; raises ValueError."""
    found = _BUSINESS.fullmatch(text.strip())
    if found is None:
        if "business" in text.lower():
            raise ValueError(
                f'"{text[:40]}" is not a span of time; write it like "2 business days" or "4 business hours"'
            )
        return parse_duration(text)
    unit: Unit = {"day": "days", "hour": "hours", "minute": "minutes"}[found[2].lower()]  # type: ignore[assignment]
    count = int(found[1])
    if count > MOST[unit]:
        raise ValueError(f"this is longer than {MOST[unit]:,} business {unit}")
    return BusinessTime(count, unit)


def length_text(length: Length) -> str:
    """As `parse_length` reads it back."""
    return str(length) if isinstance(length, BusinessTime) else duration_text(length)


def is_at_least(one: Length, other: Length) -> bool:
    """Whether it surely is as long as the other, whenever both begin.

    Days, hours and time by the wall can't be compared without a day on which they begin.
    """
    match one, other:
        case timedelta(), timedelta():
            return one >= other
        case BusinessTime(unit="days"), BusinessTime(unit="days"):
            return one.count >= other.count
        case BusinessTime(unit="hours" | "minutes"), BusinessTime(unit="hours" | "minutes"):
            return one.seconds >= other.seconds
        case _:
            return False


def _read(value: object) -> object:
    match value:
        case timedelta():
            length: Length = value
        case BusinessTime():
            length = value
        case str():
            try:
                length = parse_length(value)
            except ValueError as error:
                raise refuse(str(error)) from None
        case _:
            raise refuse('write a span of time as text, like "30m", "4h" or "2 business days"')
    if length == timedelta(0) or (isinstance(length, BusinessTime) and not length.count) or _is_negative(length):
        raise refuse("must be longer than 0s")
    return length


def _is_negative(length: Length) -> bool:
    return isinstance(length, timedelta) and length < timedelta(0)


Span = Annotated[
    Length,
    BeforeValidator(_read),
    PlainSerializer(length_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30m", "4h", "3d", "2 business days", "4 business hours"]}),
]
"""A length longer than nothing; text in TOML and JSON."""
