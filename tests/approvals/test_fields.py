"""Fields: strict parsing, canonical JSON, formatting, digests."""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from approvals_bot.approvals import fields
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.numbers import Money, from_format, in_format, shown_money
from approvals_bot.approvals.text import short_digest
from approvals_bot.client.digests import LARGEST_INTEGER, digest_of
from approvals_bot.errors import InvalidPayloadError
from tests.support.thorough import examples


def specs(**written: Any) -> dict[str, FieldSpec]:
    return {name: FieldSpec.model_validate(spec) for name, spec in written.items()}


def faults_of(of: Mapping[str, FieldSpec], given: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidPayloadError) as refused:
        fields.values(of, given)
    return {each["loc"][1]: each["msg"] for each in refused.value.errors}


EVERY = specs(
    title="string",
    why={"type": "text", "required": False},
    count="integer",
    ratio="decimal",
    amount={"type": "money", "currency": "EUR", "min": "0.01"},
    urgent="boolean",
    env={"type": "enum", "values": ["staging", "prod"], "default": "prod"},
    day="date",
    at="datetime",
    span={"type": "duration", "max": "8h", "default": "1h"},
    mail="email",
    link="url",
)
GIVEN = {
    "title": "Release\n2.1",
    "count": 3,
    "ratio": "1.50",
    "amount": "1250",
    "urgent": True,
    "day": "2026-11-05",
    "at": "2026-11-05T15:00:00+01:00",
    "mail": "Ann@Acme.eu",
    "link": "https://acme.eu/a?b=c",
}


def test_every_type_is_parsed_with_its_default() -> None:
    assert fields.values(EVERY, GIVEN) == {
        "title": "Release\n2.1",
        "why": None,
        "count": 3,
        "ratio": Decimal("1.5"),
        "amount": Decimal(1250),
        "urgent": True,
        "env": "prod",
        "day": date(2026, 11, 5),
        "at": datetime(2026, 11, 5, 14, tzinfo=UTC),
        "span": timedelta(hours=1),
        "mail": "ann@acme.eu",
        "link": "https://acme.eu/a?b=c",
    }


def test_canonical_json_round_trips() -> None:
    typed = fields.values(EVERY, GIVEN)
    dumped = json.loads(json.dumps(fields.dump(EVERY, typed)))
    assert dumped == GIVEN | {
        "why": None,
        "ratio": "1.5",
        "amount": "1250.00",
        "env": "prod",
        "at": "2026-11-05T14:00:00Z",
        "span": "1h",
        "mail": "ann@acme.eu",
    }
    assert fields.values(EVERY, dumped) == typed


def test_values_are_formatted_for_people() -> None:
    typed = fields.values(EVERY, GIVEN)
    assert {name: fields.shown(EVERY, name, value) for name, value in typed.items()} == {
        "title": "Release\n2.1",
        "why": "not given",
        "count": "3",
        "ratio": "1.5",
        "amount": "1,250.00 EUR",
        "urgent": "yes",
        "env": "prod",
        "day": "5 Nov 2026",
        "at": "5 Nov 2026, 14:00 UTC",
        "span": "1 h",
        "mail": "ann@acme.eu",
        "link": "https://acme.eu/a?b=c",
    }


def test_every_fault_is_reported_with_its_path() -> None:
    wrong = {
        "titel": "x",
        "title": 5,
        "count": "3",
        "ratio": "1,5",
        "amount": "0",
        "urgent": "yes",
        "env": "prd",
        "day": "5.11.2026",
        "at": "2026-11-05T15:00:00",
        "span": "9h",
        "mail": "ann",
    }
    found = faults_of(EVERY, wrong)
    assert set(found) == {*wrong, "link"}
    assert found["titel"] == 'no such field (did you mean "title"?)'
    assert found["link"] == "is required"
    assert found["amount"] == "must be at least 0.01"
    assert found["env"] == 'must be one of "staging", "prod" (did you mean "prod"?)'
    assert "offset" in found["at"]


BAD = [
    ("string", True),
    ("string", ["x"]),
    ("string", "   "),
    ("string", "a\x00b"),
    ("string", "a\x1b[31m"),
    ("string", "a\x85b"),
    ("string", "half \ud83d"),
    ("string", "x" * 501),
    ("text", "x" * 50_001),
    ("integer", True),
    ("integer", 1.0),
    ("integer", LARGEST_INTEGER + 1),
    ("integer", 10**400),
    ("decimal", float("nan")),
    ("decimal", float("inf")),
    ("decimal", "NaN"),
    ("decimal", "1e5"),
    ("decimal", 1e300),
    ("decimal", "1" * 16),
    ("decimal", "٣"),
    ("decimal", " 1"),
    ("decimal", True),
    ("boolean", 1),
    ("boolean", "true"),
    ("date", "2026-02-30"),
    ("date", "20260203"),
    ("date", 20260203),
    ("datetime", "2026-11-06"),
    ("datetime", "0001-01-01T00:00:00+14:00"),
    ("datetime", 1700000000),
    ("duration", -5),
    ("duration", 1.5),
    ("duration", True),
    ("duration", "9" * 60 + "d"),
    ("email", "a@b\nBcc: c@d"),
    ("email", "Ann <ann@acme.eu>"),
    ("email", "ann@acme.eu\u200b "),
    ("url", "javascript:alert(1)"),
    ("url", "https://acme.eu@evil.example/"),
    ("url", "https://[::1"),
    ("url", "https:///path"),
    ("url", "https://acme.eu/a b"),
]


@pytest.mark.parametrize(("type_", "value"), BAD, ids=lambda value: ascii(value)[:40])
def test_invalid_values_are_refused(type_: str, value: Any) -> None:
    message = faults_of(specs(a=type_), {"a": value})["a"]
    assert message
    if isinstance(value, str) and len(value) > 10:
        assert value not in message, "a value is not repeated"


def test_line_breaks_and_tabs_are_allowed_and_normalized() -> None:
    assert fields.values(specs(a="text"), {"a": "a\r\n\tb"}) == {"a": "a\n\tb"}


def test_a_money_amount_is_exact_and_never_rounded() -> None:
    of = specs(eur={"type": "money", "currency": "EUR"}, jpy={"type": "money", "currency": "JPY"})
    for given_, written, read_by_people in (
        ("0.1", "0.10", "0.10 EUR"),
        (0.1, "0.10", "0.10 EUR"),
        (1000000, "1000000.00", "1,000,000.00 EUR"),
        (Decimal("12.5000"), "12.50", "12.50 EUR"),
        ("1,250.00 EUR", "1250.00", "1,250.00 EUR"),
        ("1,250,000.50", "1250000.50", "1,250,000.50 EUR"),
        ("-0", "0.00", "0.00 EUR"),
        ("-7.5", "-7.50", "-7.50 EUR"),
    ):
        value = fields.values(of, {"eur": given_, "jpy": 5})
        assert fields.dump(of, value)["eur"] == written
        assert fields.shown(of, "eur", value["eur"]) == read_by_people
        assert fields.shown(of, "jpy", value["jpy"]) == "5 JPY"


@pytest.mark.parametrize(
    ("currency", "amount", "readings"),
    [
        ("EUR", "12.345", ("12.345 EUR", "12345.00", "12.35")),
        ("EUR", "12.000", ("12.000 EUR", "12000.00", "12.00")),
        ("EUR", "1,250", ("1,250 EUR", "1250.00", "1.25")),
        ("EUR", "1,250 EUR", ("1,250 EUR", "1250.00", "1.25")),
        ("EUR", 12.345, ("12.345 EUR", "12345.00", "12.35")),
        ("EUR", "12.3456", ("12.3456 EUR", "12.35")),
        ("EUR", "1234.567", ("1234.567 EUR", "1234.57")),
        ("JPY", "12.345", ("12.345 JPY", "12345", "12")),
        ("JPY", "12.5", ("12.5 JPY", "13")),
        ("KWD", "1,250", ("1,250 KWD", "1250.000", "1.250")),
        ("KWD", "1.2345", ("1.2345 KWD", "1.235")),
        ("EUR", "1.234.567", ('"1250.00"',)),
        ("EUR", "1.234,56", ('"1250.00"',)),
        ("EUR", "1,25.00", ('"1250.00"',)),
        ("EUR", "1,250.00 USD", ('"1250.00"',)),
        ("JPY", "x", ('"1250"',)),
    ],
)
def test_an_amount_that_could_mean_two_is_refused(currency: str, amount: Any, readings: tuple[str, ...]) -> None:
    fault = faults_of(specs(a={"type": "money", "currency": currency}), {"a": amount})["a"]
    assert all(reading in fault for reading in readings), fault


@given(st.decimals(-(10**12), 10**12, places=3), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_an_amount_as_people_read_it_is_accepted_back(amount: Decimal, currency: str) -> None:
    of = specs(a={"type": "money", "currency": currency})
    decimals = {"EUR": 2, "JPY": 0, "KWD": 3}[currency]
    value = fields.values(of, {"a": str(round(amount, decimals) if decimals else int(amount))})
    assert fields.values(of, {"a": fields.shown(of, "a", value["a"])}) == value
    assert fields.values(of, fields.dump(of, value)) == value


@pytest.mark.parametrize("number_format", ["1.234,56", "1,234.56", "1 234,56"])
@given(st.decimals(-(10**12), 10**12, places=2))
def test_what_is_shown_in_a_format_is_read_in_it(number_format: str, amount: Decimal) -> None:
    ours = shown_money(Money(amount, "EUR"))
    plain = f"{Money(amount, 'EUR')} EUR"
    assert from_format(in_format(ours, number_format), number_format) == plain
    assert from_format(in_format(plain, number_format), number_format) == plain


def test_what_is_no_number_in_a_format_stays_as_it_is() -> None:
    for text in ("1250.00", "12.34", "1.2.3", "1.234.5", "x", "", "1,234,567"):
        assert from_format(text, "1.234,56") == text
    assert from_format("12.345", "1.234,56") == "12345"
    assert from_format("1 234\u202f567,8", "1 234,56") == "1234567.8"


def test_money_keeps_its_currency_when_copied() -> None:
    money = Money("12.5", "EUR")
    for same in (copy.copy(money), copy.deepcopy(money), pickle.loads(pickle.dumps(money))):  # noqa: S301 - our own
        assert (same, same.currency, str(same)) == (money, "EUR", "12.50")


def test_a_pattern_matches_the_whole_value_in_linear_time() -> None:
    of = specs(code={"type": "string", "pattern": "[A-Z]{2}-[0-9]{4}|X"}, evil={"type": "text", "pattern": "(a+)+"})
    good = {"code": "AB-1234", "evil": "a"}
    assert fields.values(of, good) == good
    for bad in ("AB-12345", "xAB-1234", "AB-1234\n", "XX"):
        assert "form" in faults_of(of, good | {"code": bad})["code"]
    started = time.process_time()
    assert "form" in faults_of(of, good | {"evil": "a" * 40_000 + "!"})["evil"]
    assert time.process_time() - started < 0.5
    hinted = specs(code={"type": "string", "pattern": "[A-Z]{2}-[0-9]{4}", "hint": "two letters, four digits"})
    assert faults_of(hinted, {"code": "x"})["code"].endswith("right form: two letters, four digits")


def test_optional_fields_may_be_absent_or_null() -> None:
    of = specs(a={"type": "string", "required": False}, b={"type": "integer", "required": False, "default": 4})
    assert fields.values(of, {}) == fields.values(of, {"a": None, "b": None}) == {"a": None, "b": 4}


def test_the_digest_covers_only_pinned_values() -> None:
    of = specs(a={"type": "money", "currency": "EUR", "pinned": True}, b="string")
    one = fields.digest("pay", "1f", of, fields.values(of, {"a": "5", "b": "x"}))
    assert one == fields.digest("pay", "1f", of, fields.values(of, {"a": 5.0, "b": "y"}))
    assert one != fields.digest("pay", "1f", of, fields.values(of, {"a": "5.01", "b": "x"}))
    assert len(one) == 64
    assert one.startswith(short_digest(one))
    assert fields.digest("pay", "1f", specs(b="string"), {"b": "x"}) == ""


def test_the_digest_belongs_to_one_workflow_and_version() -> None:
    of = specs(a={"type": "string", "pinned": True})
    some = {fields.digest(id, version, of, {"a": "7"}) for id in ("deploy", "sandbox") for version in ("1f", "2f")}
    assert len(some) == 4


def test_fields_named_like_a_tool_call_have_another_digest() -> None:
    of = specs(tool={"type": "string", "pinned": True}, arguments={"type": "object", "pinned": True})
    given = {"tool": "pay", "arguments": {"price": 640}}
    assert fields.digest("pay", "1f", of, given) != digest_of("pay", {"price": 640})
    call = specs(tool={"type": "tool", "pinned": True}, arguments={"type": "arguments", "pinned": True})
    assert fields.digest("pay", "1f", call, given) == digest_of("pay", {"price": 640})


def test_typed_in_text_is_converted() -> None:
    texts = {"title": "x", "count": "12", "urgent": "on", "amount": " 5.00 ", "why": " ", "env": "", "span": "90m"}
    given_ = fields.from_texts(EVERY, texts)
    assert given_ == {"title": "x", "count": 12, "urgent": True, "amount": "5.00", "span": "90m"}
    assert fields.from_texts(specs(urgent="boolean", n="integer"), {"n": "²"}) == {"urgent": False, "n": "²"}


@given(st.dictionaries(st.sampled_from(list(EVERY)), st.text(max_size=30)))
@settings(max_examples=examples(200), deadline=None)
def test_any_typed_in_text_is_accepted_or_refused(texts: dict[str, str]) -> None:
    try:
        typed = fields.values(EVERY, fields.from_texts(EVERY, texts))
    except InvalidPayloadError:
        return
    assert fields.values(EVERY, fields.dump(EVERY, typed)) == typed


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*EVERY, "x"]), anything))
@settings(max_examples=examples(300), deadline=None)
def test_both_models_accept_and_refuse_the_same_values(given_: dict[str, Any]) -> None:
    model = fields.input_model(EVERY)
    try:
        typed = fields.values(EVERY, given_)
    except InvalidPayloadError:
        with pytest.raises(ValidationError):
            model.model_validate(given_)
    else:
        assert model.model_validate(given_).model_dump() == typed


def test_fields_may_have_names_of_pydantics_attributes() -> None:
    of = specs(json="string", copy="integer", model_dump="boolean")
    assert fields.input_model(of).model_validate({"json": "x", "copy": 1, "model_dump": True}).model_dump() == {
        "json": "x",
        "copy": 1,
        "model_dump": True,
    }


def test_the_json_schema_accepts_valid_values() -> None:
    for schema in (fields.json_schema(EVERY), fields.input_model(EVERY).model_json_schema()):
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        assert validator.is_valid(GIVEN)
        assert not validator.is_valid(GIVEN | {"env": "prd"})
        assert not validator.is_valid(GIVEN | {"more": 1})
        assert not validator.is_valid({"title": "x"})


def test_an_example_is_a_value_of_any_type() -> None:
    fit = specs(
        name={"type": "string", "example": "Initech"},
        to={"type": "email", "example": "sales@initech.example"},
        env={"type": "enum", "values": ["dev", "prod"], "example": "prod"},
        count={"type": "integer", "example": 3},
        cost={"type": "money", "currency": "EUR", "example": "12.50"},
    )
    assert list(fields.faults(fit)) == []
    unfit = specs(to={"type": "email", "example": "nobody"}, env={"type": "enum", "values": ["dev"], "example": "qa"})
    assert [path for path, _ in fields.faults(unfit)] == [("to", "example"), ("env", "example")]


def test_bounds_and_defaults_must_be_valid() -> None:
    wrong = specs(
        a={"type": "integer", "min": "x"},
        b={"type": "duration", "min": "2h", "max": "1h"},
        c={"type": "date", "default": "yesterday"},
        d={"type": "enum", "values": ["x"], "default": "y"},
        e={"type": "integer", "max": 5, "default": 6},
        f={"type": "money", "currency": "EUR", "min": "0.01", "default": "1.00"},
    )
    assert [path for path, _ in fields.faults(wrong)] == [
        ("a", "min"),
        ("b", "min"),
        ("c", "default"),
        ("d", "default"),
        ("e", "default"),
    ]


def test_raising_and_lowering_edits_differ() -> None:
    assert fields.raised(Decimal(5), Decimal(6))
    assert not fields.raised(Decimal(6), Decimal(5))
    assert not fields.raised(Decimal(5), Decimal(5))
    assert fields.raised(None, Decimal(1))
    assert not fields.raised(Decimal(1), None)
