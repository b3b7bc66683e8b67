"""Field values: strict parsing, canonical writing.

| type | JSON | typed |
|---|---|---|
| string, text, enum, email, url | string | str |
| person | their address | str: the address, and in the log their identity |
| integer, boolean | number, true/false | int, bool |
| decimal, money | string such as "1250.00" (numbers are accepted; numbers.py) | Decimal, Money |
| date, datetime | "2026-11-05", "2026-11-05T14:00:00Z" | date, aware datetime in UTC |
| duration | "1h30m" (seconds are accepted) | timedelta |
| list | a list of such values | tuple |
| file | what the store says of it; callers give its id (files.py) | StoredFile |
| array, object | a list, an object; text that a person typed is parsed | list, dict |
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import JsonValue, StringConstraints, TypeAdapter, ValidationError

from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.approvals.field_specs import FieldSpec, item_of, whole
from approvals_bot.approvals.files import StoredFile, read_file, shown_file
from approvals_bot.approvals.json_values import (
    TypedText,
    UnfitError,
    check_json,
    check_whole_size,
    parse_typed,
    shown_json,
)
from approvals_bot.approvals.numbers import (
    Money,
    amount,
    decimal_text,
    decimals_of,
    read_decimal,
    read_integer,
    shown_money,
)
from approvals_bot.approvals.visible import NOT_GIVEN, first_unseen, marked
from approvals_bot.client.digests import LARGEST_INTEGER
from approvals_bot.people import AddressError, canonical

MOST_ITEMS = 1_000  # of a list

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def read(spec: FieldSpec, given: Any) -> Any:
    """Parse a JSON value other than null. Returns the typed value; raises UnfitError."""
    match spec.type:
        case "string" | "text" | "email" | "url" | "person" | "tool" | "said" | "id":
            return _READ_TEXT[spec.type](spec, _text(spec, given))
        case "enum":
            return _enum(spec, given)
        case "boolean":
            return _boolean(given)
        case "money":
            return Money(_bounded(spec, amount(given, spec.currency or "")), spec.currency or "")
        case "file":
            return read_file(given)
        case "list":
            return _list(spec, given)
        case "array" | "object" | "arguments":
            return _json(spec, given)
        case type:
            return _bounded(spec, _READ_BOUNDED[type](given))


@lru_cache(maxsize=1024)
def read_text(type: str, text: str) -> Any:
    """Parse a bound (`min`, `max`). Returns the typed value; raises UnfitError."""
    match type:
        case "list":
            return _count(text)
        case "integer":
            return read_integer(int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text)
        case "decimal" | "money":
            return read_decimal(text)
        case "date":
            return _date(text)
        case "datetime":
            return _datetime(text)
        case "duration":
            return _duration(text)
        case _:
            raise UnfitError("no_bounds", type=type)


def write(spec: FieldSpec, value: Any) -> JsonValue:
    """Return the canonical JSON of a typed value."""
    match value:
        case None | bool() | int() | str():
            return value
        case Decimal():
            return decimal_text(value, decimals_of(spec.currency) if spec.type == "money" else 0)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case timedelta():
            return duration_text(value)
        case list() | dict():
            return value
        case tuple():
            return [write(spec, each) for each in value]
        case StoredFile():
            return value.as_json()
        case _:
            raise TypeError(f"a field holds no {type(value).__name__}")


def value_schema(spec: FieldSpec) -> dict[str, Any]:
    """Return the JSON Schema of a field's value."""
    schema = dict(_SCHEMA[spec.type])
    if spec.type == "list":
        most = MOST_ITEMS if spec.max is None else int(spec.max)
        schema |= {"items": value_schema(item_of(spec)), "minItems": fewest(spec), "maxItems": most}
        if spec.of != "string":
            schema["uniqueItems"] = True
    if spec.type in ("string", "text", "email", "url"):
        schema |= {"minLength": _shortest(spec), "maxLength": spec.longest}
        if spec.pattern is not None:
            schema["pattern"] = f"^(?:{spec.pattern})$"
    if spec.type == "enum" and spec.values is not None:
        schema["enum"] = list(spec.values)
    if spec.type == "integer":
        schema |= {"minimum": int(spec.min or -LARGEST_INTEGER), "maximum": int(spec.max or LARGEST_INTEGER)}
    if spec.default is not None:
        schema["default"] = spec.default
    if not spec.required:
        return {"anyOf": [schema, {"type": "null"}]} | ({"default": None} if spec.default is None else {})
    return schema


def _text(spec: FieldSpec, given: Any) -> str:
    if not isinstance(given, str):
        raise UnfitError("not_text")
    if _SURROGATE.search(given):
        raise UnfitError("broken_character")
    text = given.replace("\r\n", "\n")
    if _CONTROL.search(text):
        raise UnfitError("control_character")
    if spec.pinned and (at := first_unseen(text)) is not None and not spec.is_of_call:
        raise UnfitError("invisible_character", character=marked(text[at]), at=at + 1)
    if spec.longest is not None and len(text) > spec.longest:
        raise UnfitError("too_long", length=len(text), longest=spec.longest)
    if spec.min_length is None and spec.required and not text.strip():
        raise UnfitError("required")
    if len(text) < _shortest(spec):
        raise UnfitError("too_short", shortest=_shortest(spec))
    return text


def _shortest(spec: FieldSpec) -> int:
    return spec.min_length if spec.min_length is not None else int(spec.required)


def _patterned(spec: FieldSpec, text: str) -> str:
    if spec.pattern is not None:
        try:
            _regex(spec.pattern).validate_python(text)
        except ValidationError:
            shown = {} if spec.example is None else {"example": str(spec.example)}
            hint = {} if spec.hint is None else {"hint": spec.hint}
            raise UnfitError("pattern", pattern=spec.pattern, **shown, **hint) from None
    return text


@lru_cache(maxsize=256)
def _regex(pattern: str) -> TypeAdapter[str]:
    """Compile a pattern. Pydantic's regular expressions take linear time, whatever they match."""
    return TypeAdapter(Annotated[str, StringConstraints(pattern=whole(pattern))])


def _email(spec: FieldSpec, text: str) -> str:
    if text:
        try:
            text = canonical(text)
        except AddressError:
            raise UnfitError("not_email") from None
    return _patterned(spec, text)


def _person(spec: FieldSpec, text: str) -> str:
    if not text.strip():
        raise UnfitError("not_person")
    try:
        return canonical(text)
    except AddressError:
        raise UnfitError("not_person") from None


def _url(spec: FieldSpec, text: str) -> str:
    if text:
        try:
            url = urlsplit(text)
            fine = url.scheme in ("http", "https") and bool(url.hostname) and url.username is None and url.port != 0
        except ValueError:
            fine = False
        if not fine or any(letter.isspace() for letter in text):
            raise UnfitError("not_url")
    return _patterned(spec, text)


_READ_TEXT: dict[str, Callable[[FieldSpec, str], str]] = {
    "string": _patterned,
    "text": _patterned,
    "email": _email,
    "person": _person,
    "url": _url,
    "tool": _patterned,
    "said": _patterned,
    "id": _patterned,
}


def _enum(spec: FieldSpec, given: Any) -> str:
    allowed = spec.values or ()
    if isinstance(given, str) and given in allowed:
        return given
    near = difflib.get_close_matches(given[:100], allowed, n=1) if isinstance(given, str) else []
    raise UnfitError("not_listed", values=list(allowed), near=near[0] if near else None)


def _boolean(given: Any) -> bool:
    if not isinstance(given, bool):
        raise UnfitError("not_boolean")
    return given


def _date(given: Any) -> date:
    if isinstance(given, str) and _DATE.fullmatch(given):
        try:
            return date.fromisoformat(given)
        except ValueError:
            pass
    raise UnfitError("not_date")


def _datetime(given: Any) -> datetime:
    if isinstance(given, str) and len(given) <= 40 and given.isascii():
        try:
            moment = datetime.fromisoformat(given)
            if moment.tzinfo is not None and len(given) > 10:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise UnfitError("not_datetime")


def _duration(given: Any) -> timedelta:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 315_360_000:
        return timedelta(seconds=given)
    if isinstance(given, str):
        try:
            return parse_duration(given)
        except ValueError:
            pass
    raise UnfitError("not_duration")


_READ_BOUNDED: dict[str, Callable[[Any], Any]] = {
    "integer": read_integer,
    "decimal": read_decimal,
    "date": _date,
    "datetime": _datetime,
    "duration": _duration,
}


def _json(spec: FieldSpec, given: Any) -> Any:
    value = parse_typed(given) if isinstance(given, TypedText) else given
    if not isinstance(value, list if spec.type == "array" else dict):
        raise UnfitError("not_list" if spec.type == "array" else "not_object")
    if spec.type == "arguments":
        check_json(value, depth=1)
        check_whole_size(value)
    else:
        check_json(value)
    return value


def _list(spec: FieldSpec, given: Any) -> tuple[Any, ...]:
    """Read a list. Each fault has its place; a list of people, files or an enum's values has none twice."""
    if not isinstance(given, list | tuple):
        raise UnfitError("not_list")
    if not given and fewest(spec):
        raise UnfitError("required")
    if len(given) < fewest(spec):
        raise UnfitError("too_few", min=fewest(spec))
    most = MOST_ITEMS if spec.max is None else int(spec.max)
    if len(given) > most:
        raise UnfitError("too_many", max=most)
    item, found, seen = item_of(spec), list[Any](), set[Any]()
    for at, each in enumerate(given):
        try:
            value = read(item, each)
            if isinstance(value, str) and ("\n" in value or value != value.strip()):
                raise UnfitError("not_one_line")
            if spec.of != "string" and value in seen:
                raise UnfitError("twice")
        except UnfitError as error:
            raise error.at((str(at), *error.path)) from None
        found.append(value)
        seen.add(value)
    check_whole_size(write(spec, tuple(found)))
    return tuple(found)


def fewest(spec: FieldSpec) -> int:
    """Return how many items a list has at least: one, if it is required and nothing else is said."""
    return int(spec.required) if spec.min is None else int(spec.min)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > MOST_ITEMS:
        raise UnfitError("no_count", most=MOST_ITEMS)
    return int(text)


def _bounded(spec: FieldSpec, value: Any) -> Any:
    if spec.min is not None and value < read_text(spec.type, spec.min):
        raise UnfitError("below_min", min=spec.min)
    if spec.max is not None and value > read_text(spec.type, spec.max):
        raise UnfitError("above_max", max=spec.max)
    return value


_SCHEMA: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "text": {"type": "string"},
    "email": {"type": "string", "format": "email"},
    "person": {"type": "string", "format": "email", "description": "The address of a person who is known here."},
    "url": {"type": "string", "format": "uri"},
    "enum": {"type": "string"},
    "file": {"type": "string", "description": "The id of an uploaded file."},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "decimal": {"type": ["string", "number"]},
    "money": {"type": ["string", "number"]},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "duration": {"type": ["string", "integer"], "examples": ["1h30m", 5400]},
    "list": {"type": "array"},
    "array": {"type": "array"},
    "object": {"type": "object"},
    "tool": {"type": "string"},
    "said": {"type": "string"},
    "arguments": {"type": "object"},
    "id": {"type": "string"},
}


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def shown_value(value: Any) -> str:
    """Format a typed value for people."""
    match value:
        case None:
            return NOT_GIVEN
        case bool():
            return "yes" if value else "no"
        case Money():
            return shown_money(value)
        case Decimal():
            return decimal_text(value)
        case datetime():
            return shown_moment(value)
        case date():
            return shown_date(value)
        case timedelta():
            return shown_duration(value)
        case list() | dict():
            return shown_json(value)
        case tuple():
            return ", ".join(map(shown_value, value)) or NOT_GIVEN
        case StoredFile():
            return shown_file(value)
        case _:
            return str(value)


def shown_date(day: date) -> str:
    """Format as "5 Nov 2026": day and month can't be mistaken for each other anywhere."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def shown_duration(span: timedelta) -> str:
    """Format as "1 h 30 min"."""
    seconds, parts = int(span.total_seconds()), []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


def duration_in_words(span: timedelta) -> str:
    """Format as "1 hour 30 minutes"."""
    words = {"d": "day", "h": "hour", "min": "minute", "s": "second"}
    parts = shown_duration(span).split()
    counted = zip(parts[::2], (words[unit] for unit in parts[1::2]), strict=True)
    return " ".join(f"{count} {word}{'' if count == '1' else 's'}" for count, word in counted)


def shown_moment(moment: datetime) -> str:
    """Format as "5 Nov 2026, 14:00 UTC", with the seconds where they aren't zero: "14:00:30.5 UTC"."""
    seconds = f":{moment:%S}" if moment.second or moment.microsecond else ""
    fraction = f".{moment:%f}".rstrip("0") if moment.microsecond else ""
    return f"{shown_date(moment.date())}, {moment:%H:%M}{seconds}{fraction} UTC"
