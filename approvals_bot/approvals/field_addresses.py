"""Addresses that depend on a field's value: `@team-{{ team }}`, where `team` is an enum. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from approvals_bot.approvals.field_specs import FieldSpec

_FIELD = re.compile(r"\{\{\s*([A-Za-z]\w*)\s*\}\}")
TAKING = ("@", "slack:@", "oncall:")
"""What an address begins with that takes fields."""

MOST_VARIANTS = 1_000  # addresses that one stands for


def fields_of(address: str) -> tuple[str, ...]:
    """Return the fields whose values are part of this address."""
    return tuple(dict.fromkeys(_FIELD.findall(address))) if "{{" in address else ()


def filled(address: str, values: Mapping[str, Any]) -> str | None:
    """Return the address for these values; None if one that it needs isn't given."""
    if "{{" not in address:
        return address
    if any(values.get(name) is None for name in fields_of(address)):
        return None
    return _FIELD.sub(lambda found: str(values[found[1]]), address)


def variants(address: str, of: Mapping[str, FieldSpec]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every address that this one stands for, with the values of the fields in it."""
    names = fields_of(address)
    values = [of[name].values or () if name in of else () for name in names]
    for combination in islice(product(*values), MOST_VARIANTS):
        given = dict(zip(names, combination, strict=True))
        yield filled(address, given) or address, given
