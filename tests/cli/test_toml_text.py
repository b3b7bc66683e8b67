"""TOML that we write is read back as the same values."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.cli.toml_text import document, inline

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=9,
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(document(table)) == table


def test_tables_have_headers_and_lists_are_inline() -> None:
    given: dict[str, Any] = {
        "server": {"port": 8000, "keys": ["a", {"key": 'q"\x7f'}]},
        "people": {"bo@acme.eu": {"name": "Bo", "until": date(2026, 12, 24), "at": time(9, 30)}, "empty": {}},
    }
    assert document(given) == (
        '[server]\nport = 8000\nkeys = ["a", { key = "q\\"\\u007f" }]\n\n'
        '[people."bo@acme.eu"]\nname = "Bo"\nuntil = 2026-12-24\nat = 09:30:00\n\n[people.empty]\n'
    )
    assert inline(datetime(2026, 12, 24, tzinfo=UTC)) == "2026-12-24T00:00:00+00:00"


def test_none_has_no_form_in_toml() -> None:
    with pytest.raises(TypeError, match="TOML has no NoneType"):
        inline(None)
