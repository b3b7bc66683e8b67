"""Durations as people write them: "30m", "4h", "3d", "1h30m", "7 days"."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from approvals_bot.approvals.base import refuse
from approvals_bot.durable.core import durations

LONGEST = timedelta(days=3650)  # ten years: anything longer is rather a typing error
_LONGEST_TEXT = 64  # characters; enough for every unit once, in words
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}  # seconds


def parse_duration(text: str) -> timedelta:
    """Parse a duration in whole seconds, such as "1h30m". Raises ValueError."""
    try:
        if len(text) > _LONGEST_TEXT or not text.isascii():
            raise ValueError
        span = durations.parse_duration(text.rstrip())
    except (ValueError, OverflowError):
        raise ValueError(f'"{text[:40]}" is not a duration; write it like "30m", "4h", "3d" or "1h30m"') from None
    if span > LONGEST:
        raise ValueError("this is longer than ten years")
    if span.microseconds:
        raise ValueError("a duration is a whole number of seconds")
    return span


def duration_text(span: timedelta) -> str:
    """Return the shortest exact text, which `parse_duration` reads back: "1h30m", "3d", "0s"."""
    rest, parts = int(span.total_seconds()), []
    for unit in "dhms":
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _read(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise refuse('write a duration as text, like "30m", "4h" or "3d"')
    try:
        return parse_duration(value)
    except ValueError as error:
        raise refuse(str(error)) from None


def _positive(value: object) -> object:
    span = _read(value)
    if isinstance(span, timedelta) and span <= timedelta(0):
        raise refuse("must be longer than 0s")
    return span


_AS_TEXT = (
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[0-9.]+\s*[A-Za-z]", "examples": ["30m", "4h", "3d", "1h30m"]}),
)

Duration = Annotated[timedelta, BeforeValidator(_positive), *_AS_TEXT]
"""A positive duration in whole seconds; text in TOML and JSON."""

DurationOrZero = Annotated[timedelta, BeforeValidator(_read), *_AS_TEXT]
"""A duration that may be "0s"."""
