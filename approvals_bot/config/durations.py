"""Spans of time as people write them: "30m", "4h", "3d", "1h30m", "7 days"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WORDS = {
    "w": ("w", "week", "weeks"),
    "d": ("d", "day", "days"),
    "h": ("h", "hour", "hours"),
    "m": ("m", "min", "minute", "minutes"),
    "s": ("s", "sec", "second", "seconds"),
}
_UNIT = {word: unit for unit, words in _WORDS.items() for word in words}
_PART = re.compile(r"(\d{1,9})\s*([a-z]{1,7})\s*")
_LONGEST = timedelta(days=3650)  # ten years: beyond it a typing error is likelier than a wish
_LONGEST_TEXT = 64  # characters; five units of nine digits fit


def parse_duration(text: str) -> timedelta:
    """Read "1h30m" as one hour and a half. Units w d h m s (or their words), each once; raises ValueError."""
    rest = text.strip().lower()
    if not rest or len(rest) > _LONGEST_TEXT:
        raise ValueError(_explain(text))
    seconds, seen, at = 0, set[str](), 0
    while at < len(rest):
        part = _PART.match(rest, at)
        unit = _UNIT.get(part[2]) if part else None
        if part is None or unit is None or unit in seen:
            raise ValueError(_explain(text))
        seconds += int(part[1]) * _SECONDS[unit]
        seen.add(unit)
        at = part.end()
    if seconds > _LONGEST.total_seconds():
        raise ValueError("this is longer than ten years")
    return timedelta(seconds=seconds)


def duration_text(span: timedelta) -> str:
    """The shortest exact writing of whole seconds, which `parse_duration` reads back: "1h30m", "3d", "0s"."""
    rest, parts = int(span.total_seconds()), []
    for unit in "dhms":
        count, rest = divmod(rest, _SECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _explain(text: str) -> str:
    return f'"{text[:40]}" is not a span of time; write it like "30m", "4h", "3d" or "1h30m"'


def _read(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("duration", 'write a span of time as text, like "30m", "4h" or "3d"')
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{why}", {"why": str(error)}) from None


def _positive(value: object) -> object:
    span = _read(value)
    if isinstance(span, timedelta) and span <= timedelta(0):
        raise PydanticCustomError("duration", "must be longer than 0s")
    return span


Duration = Annotated[
    timedelta,
    BeforeValidator(_positive),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30m", "4h", "3d", "1h30m"]}),
]
"""A span longer than nothing, in whole seconds; text in TOML and JSON."""
