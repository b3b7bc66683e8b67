"""Canonical JSON is what the library of RFC 8785 says, for every value and against what isn't JSON."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from approvals_bot.client.digests import canonical_json

NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53) + 1, 2**53 - 1))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=9
)


@given(VALUES)
@example({"\U0001f600": 1, "\ufb33": 2, "\x80": 3})  # by UTF-16, an emoji comes before U+FB33
@example([1e21, 1e20, 123456789012345680000.0, 1e-6, 1e-7, 5e-324, -0.0, 1.7976931348623157e308, 100.0, 0.1])
@example(['"\\\x08\x0c\n\r\t\x00\x1f\x7f\u2028'])
@example(((1.0, True), {"a": ()}))
def test_every_value_is_written_as_rfc_8785_says(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {1: 2}, {1, 2}, object(), b"a"]
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    for given_as in (value, [value], {"a": [value]}):
        with pytest.raises(ValueError):
            rfc8785.dumps(given_as)
        with pytest.raises(ValueError):
            canonical_json(given_as)


def test_what_is_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="too deep"):
        canonical_json(value)
