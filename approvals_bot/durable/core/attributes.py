"""Attributes: small values that runs are found by. A run gets some at its start, and its body sets more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args

from approvals_bot.durable.core.events import Event
from approvals_bot.durable.core.serialization import decode
from approvals_bot.errors import InvalidArgumentError, LimitExceededError

Attribute = str | int | float | Decimal | bool
"""The value of an attribute, as it is kept and given back."""

Settable = Attribute | date | None
"""What may be given as a value: also dates, which are kept as ISO text. None removes the attribute."""

MAX_ATTRIBUTES, MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTE_VALUE = 64, 256, 256
"""Attributes of a run, characters of a name, characters of a value. They are for finding runs, not for data."""

FOR_WHOM = ("requester", "on_behalf_of")
"""Attributes that say for whom a run was started. Its children have them, too: what they ask for is asked for these."""

OF_THE_START = frozenset((*FOR_WHOM, "opener"))
"""Attributes that a run's start alone gives. If its body could, it would decide who may approve and who may read."""

MAX_MAGNITUDE = 1_000
"""The power of ten up to which numbers are kept, and down to which. Floats need 324."""


def checked_attributes(attributes: Mapping[str, Settable]) -> dict[str, Attribute | None]:
    """Return the attributes as they are kept. Raises InvalidArgumentError or LimitExceededError."""
    if not isinstance(attributes, Mapping):
        raise InvalidArgumentError(f"attributes are values by their names, like {{'team': 'red'}}, not {attributes!r}")
    return {_checked_name(name): checked_value(name, value) for name, value in attributes.items()}


def attributes_of_body(attributes: Mapping[str, Settable]) -> dict[str, Attribute | None]:
    """Return the attributes that a body sets as they are kept. Raises InvalidArgumentError or LimitExceededError."""
    for name in OF_THE_START.intersection(attributes):
        raise InvalidArgumentError(f"attribute {name!r} is given at a run's start, and its body can't set it")
    return checked_attributes(attributes)


def with_changes(current: Mapping[str, Attribute], changes: Mapping[str, Attribute | None]) -> dict[str, Attribute]:
    """Return the attributes after these changes. Raises LimitExceededError if they are too many."""
    both = {**current, **changes}
    after = {name: value for name, value in both.items() if value is not None}
    if len(after) > MAX_ATTRIBUTES:
        raise LimitExceededError("number of attributes", MAX_ATTRIBUTES, len(after), "attributes")
    return after


def checked_value(name: str, value: Settable) -> Attribute | None:
    """Return the value of an attribute as it is kept. Raises InvalidArgumentError or LimitExceededError."""
    match value:
        case None | bool():
            return value
        case str():
            text = str.__str__(value)
        case int() if -(10**MAX_ATTRIBUTE_VALUE) < value < 10**MAX_ATTRIBUTE_VALUE:
            return int(value)
        case int():
            raise LimitExceededError(_length_of(name), MAX_ATTRIBUTE_VALUE, value.bit_length() * 3 // 10, "characters")
        case float() if isfinite(value):
            return float(value)
        case Decimal() if value.is_finite():
            power = value.adjusted() if value else 0
            if abs(power) > MAX_MAGNITUDE:
                raise LimitExceededError(f"size of attribute {name!r}", MAX_MAGNITUDE, power, "powers of ten")
            if len(str(value)) > MAX_ATTRIBUTE_VALUE:
                raise LimitExceededError(_length_of(name), MAX_ATTRIBUTE_VALUE, len(str(value)), "characters")
            return value
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        case datetime():
            raise InvalidArgumentError(f"attribute {name!r}: a datetime needs a time zone")
        case date():
            return value.isoformat()
        case float() | Decimal():
            raise InvalidArgumentError(f"attribute {name!r}: {value} is not a number that can be compared")
        case _:
            raise InvalidArgumentError(
                f"attribute {name!r}: a value is a string, a number, a boolean, a date or None, "
                f"not {type(value).__name__}"
            )
    if len(text) > MAX_ATTRIBUTE_VALUE:
        raise LimitExceededError(_length_of(name), MAX_ATTRIBUTE_VALUE, len(text), "characters")
    return text


def _checked_name(name: str) -> str:
    if not isinstance(name, str):
        raise InvalidArgumentError(f"attribute {name!r}: a name must be a string")
    if name.startswith("$"):
        raise InvalidArgumentError(f"attribute {name!r}: names that start with $ are reserved")
    if len(name) > MAX_ATTRIBUTE_NAME:
        raise LimitExceededError("length of an attribute's name", MAX_ATTRIBUTE_NAME, len(name), "characters")
    return name


def _length_of(name: str) -> str:
    return f"length of attribute {name!r}"


# ── in the log ──


def decoded_attributes(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """Decode attributes. Of their values, only Decimals have a tag."""
    return {name: decode(value) if type(value) is dict else value for name, value in encoded.items()}


def attributes_after(log: Iterable[Event]) -> dict[str, Attribute]:
    """Return the attributes of a run after the events of this log."""
    found: dict[str, Attribute] = {}
    for event in log:
        if event.type == "attributes_set" or (event.type == "run_created" and "attributes" in event.data):
            found = with_changes(found, decoded_attributes(event.data["attributes"]))
    return found


# ── of projections ──


class Placed(NamedTuple):
    """A value of a projection's attribute, with its run's place in the lists by it.

    `at`: microseconds since 1970, in place of the run's begin.
    """

    value: str
    at: int


Findable = str | Placed
"""A value that a projection's run is found by. Lists by a plain one have the order in which their runs began."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What readers and lists see of a run, apart from the value that its author publishes.

    `parts` is what the run consists of, as JSON. `attributes` holds the values that find it, by name.
    """

    parts: list[Any]
    attributes: Mapping[str, Sequence[Findable]]


PROJECTED = "$"
"""The beginning of the names under which the store keeps a projection's attributes. Authors' may not begin so."""


def projected(name: str) -> str:
    """Return the name under which the store keeps an attribute of a projection."""
    return PROJECTED + name


# ── in filters ──

Operator = Literal["eq", "in", "gt", "gte", "lt", "lte"]
OPERATORS: tuple[Operator, ...] = get_args(Operator)
RANGES: frozenset[str] = frozenset({"gt", "gte", "lt", "lte"})

Wanted = Settable | Sequence[Settable] | Mapping[str, Settable | Sequence[Settable]]
"""What an attribute must be: a value, one of several, or within a range, such as `{"gte": 100, "lt": 500}`."""

MAX_WANTED, MAX_CHOICES = 10, 20
"""Attributes that a filter may name, and values that one may have. Each value of the first is a list of its own."""


class Comparison(NamedTuple):
    """A condition on the value of an attribute. Only `in` has several values, or none."""

    operator: Operator
    values: tuple[Attribute, ...]


def conditions_of(wanted: Mapping[str, Wanted]) -> dict[str, list[Comparison]]:
    """Return the conditions of a filter, by the attributes' names. All of them must hold.

    Raises InvalidArgumentError or LimitExceededError, which name the attribute.
    """
    if len(wanted) > MAX_WANTED:
        raise LimitExceededError("attributes of a filter", MAX_WANTED, len(wanted), "attributes")
    return {name: [*_conditions(name, each)] for name, each in wanted.items()}


def _conditions(name: str, wanted: Wanted) -> Iterator[Comparison]:
    match wanted:
        case str() if name.startswith("$"):  # of a projection, whose values may be longer
            yield Comparison("eq", (wanted,))
        case Mapping() if not wanted:
            raise InvalidArgumentError(f"attribute {name!r}: there is no condition")
        case Mapping():
            for operator, value in wanted.items():
                yield _condition(name, operator, value)
        case list() | tuple() | set() | frozenset():
            yield _condition(name, "in", wanted)
        case _:
            yield _condition(name, "eq", wanted)


def _condition(name: str, operator: str, wanted: Any) -> Comparison:
    if operator not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise InvalidArgumentError(f"attribute {name!r}: unknown operator {operator!r}; one of: {known}")
    given = list(wanted) if operator == "in" and not isinstance(wanted, str) else [wanted]
    if len(given) > MAX_CHOICES:
        raise LimitExceededError(f"values of attribute {name!r} in a filter", MAX_CHOICES, len(given), "values")
    values = [value for one in given if (value := checked_value(name, one)) is not None]
    if len(values) < len(given):
        raise InvalidArgumentError(f"attribute {name!r}: None is no value to look for")
    if operator in RANGES and isinstance(values[0], bool):
        raise InvalidArgumentError(f"attribute {name!r}: booleans have no order, so {operator} has no meaning")
    if name.startswith("$") and operator != "eq":
        raise InvalidArgumentError(f"attribute {name!r}: attributes of projections have no {operator}")
    return Comparison(operator, tuple(values))
