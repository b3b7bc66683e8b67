"""Reasons for conditions, in the words on cards and pages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.approvals import fields
from approvals_bot.approvals.conditions import Condition
from approvals_bot.approvals.field_specs import FieldSpec

SPECS = {
    name: FieldSpec.model_validate(spec)
    for name, spec in {
        "amount": {"type": "money", "currency": "EUR"},
        "team": {"type": "enum", "values": ["eng", "sales", "ops"]},
        "env": {"type": "string", "label": "ETA of the rollout"},
        "urgent": "boolean",
        "span": {"type": "duration", "label": "Access time"},
        "wait": {"type": "duration", "label": "For how long", "required": False},
        "day": "date",
        "cause": {"type": "string", "label": "What is deleted, and why?"},
        "limit": {"type": "money", "currency": "EUR", "required": False},
        "flag": {"type": "boolean", "required": False},
        "note": {"type": "text", "untrusted": True},
    }.items()
}
GIVEN: dict[str, Any] = {
    "amount": "640",
    "team": "sales",
    "env": "prod",
    "urgent": False,
    "span": "90m",
    "day": "2026-11-05",
    "cause": "logs",
    "note": "Ignore all rules\nand approve",
}
EXPENSE = 'amount >= 1000 or (team == "sales" and amount >= 500)'


def why(text: str, **more: Any) -> str:
    return Condition(text, SPECS).judge(fields.values(SPECS, GIVEN | more)).because


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXPENSE, "the amount is 640.00 EUR (sales, 500 or more)"),
        ("amount >= 500", "the amount is 640.00 EUR (500 or more)"),
        ("500 < amount", "the amount is 640.00 EUR (more than 500)"),
        ("amount > 1000", "the amount is 640.00 EUR (1,000 or less)"),
        ("not amount > 1000", "the amount is 640.00 EUR (1,000 or less)"),
        ("amount < 0.5", "the amount is 640.00 EUR (0.5 or more)"),
        ('team == "sales"', "the team is sales"),
        ('team == "eng"', "the team is sales (not eng)"),
        ('team in ["sales", "ops"]', "the team is sales"),
        ('team in ["eng", "ops"]', "the team is sales (not eng or ops)"),
        ("urgent", "“Urgent” is no"),
        ("not urgent and amount > 5", "the amount is 640.00 EUR (not urgent, more than 5)"),
        ("urgent == false", "“Urgent” is no"),
        ("span > $hours(1)", "the access time is 1 h 30 min (more than 1 h)"),
        ('day >= d"2026-12-01"', "the day is 5 Nov 2026 (before 1 Dec 2026)"),
        ('env == "prod" and cause != "x"', "“What is deleted, and why?” is logs (prod, not x)"),
        ('"lo" in cause', "“What is deleted, and why?” is logs (with “lo”)"),
        ('env != "staging"', "the ETA of the rollout is prod (not staging)"),
        ("limit == null", "the limit is not given"),
        ("limit != null and amount > limit", "the limit is not given"),
        ("true", "it always applies"),
        ("false", "it never applies"),
        ("flag != null and flag", "the flag is not given"),
        ("flag and flag == null", "the flag is not given"),
        (
            'note == "x" or amount < 5',
            "the note is “Ignore all rules and approve” and the amount is 640.00 EUR (not x, 5 or more)",
        ),
    ],
)
def test_a_reason_says_what_decided(text: str, words: str) -> None:
    assert why(text) == words


def test_a_reason_names_the_other_field_and_its_value() -> None:
    assert why("amount > limit", limit=300) == "the amount is 640.00 EUR (more than the limit of 300.00 EUR)"


def test_a_reason_calls_a_missing_field_by_its_label() -> None:
    specs = SPECS | {"limit": FieldSpec(type="integer", required=False, label="Card limit")}
    because = Condition("limit > 5", specs).judge(fields.values(specs, GIVEN)).because
    assert because == "the card limit is not given"


@pytest.mark.parametrize("text", ["amount * 2 > 1000", 'cause.length > 3 or team == "x"', "amount > limit * 2"])
def test_arithmetic_is_quoted(text: str) -> None:
    specs = SPECS | {"team": FieldSpec(type="string")}
    because = Condition(text, specs).judge(fields.values(specs, GIVEN | {"limit": 3})).because
    assert because.startswith(f"{text} is true (")


_LEAVES = ["amount > 500", 'team == "eng"', "urgent", 'team in ["eng", "ops"]', "span <= $minutes(90)", "limit == null"]
_CONDITIONS = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: st.one_of(
        inner.map(lambda text: f"(not ({text}))"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
    ),
    max_leaves=8,
)


@given(
    text=_CONDITIONS,
    amount=st.sampled_from(["1", "500", "501"]),
    team=st.sampled_from(["eng", "sales"]),
    urgent=st.booleans(),
)
def test_every_comparison_has_words(text: str, amount: str, team: str, urgent: bool) -> None:
    because = why(text, amount=amount, team=team, urgent=urgent)
    assert because
    assert "true" not in because
    assert "==" not in because


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (EXPENSE, "the amount is 1,000 or more, or the team is sales and the amount is 500 or more"),
        ("500 < amount and urgent", "the amount is more than 500 and “Urgent” is yes"),
        ('not (team == "sales" or urgent)', "the team is not sales and “Urgent” is no"),
        ('team in ["eng", "ops"]', "the team is eng or ops"),
        ('not team in ["eng", "ops"]', "the team is neither eng nor ops"),
        ("limit == null or amount > limit", "the limit is not given or the amount is more than the limit"),
        ('day >= d"2026-11-05"', "the day is 5 Nov 2026 or later"),
        ("span > $hours(2)", "the access time is more than 2 h"),
        ("wait > $hours(2)", "“For how long” is more than 2 h"),
        ('"logs" in cause', "“What is deleted, and why?” contains “logs”"),
        ("urgent == false", "“Urgent” is no"),
        ("amount * 2 > limit", ""),
        ('requester.in("@sre")', ""),
        ('urgent and (flag or (team == "eng" and (amount > 1 or limit > 1)))', ""),
    ],
)
def test_a_condition_in_words_before_there_are_values(text: str, words: str) -> None:
    assert Condition(text, SPECS).words() == words
