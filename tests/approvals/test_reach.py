"""Reach: what a file's stages leave out is found by an example, and what can't be decided is passed over in silence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.reach import gaps_of
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import uncovered
from tests.support.thorough import examples

HEAD = '[workflow]\nid = "t"\ntitle = "T"\nrequest = ["*"]\n[fields]\n'
EXAMPLES = Path(__file__).parents[2] / "workflows"


def stage(when: str = "", id: str = "s") -> str:
    return f'[[stage]]\nid = "{id}"\nfrom = ["@a"]\n' + (f"when = '''{when}'''\n" if when else "")


def auto(when: str) -> str:
    return f"[[auto]]\ndecision = \"approve\"\nwhen = '''{when}'''\n"


def definition(text: str) -> Definition:
    return Definition.model_validate(tomllib.loads(HEAD + text))


UNCOVERED = "no stage applies to {}: such a request can't be opened; add a stage for it"
KIND = 'kind = { type = "enum", values = ["a", "b", "c"] }\n'
AMOUNT = 'amount = { type = "money", currency = "EUR", min = "0.01" }\n'
COUNT = 'count = "integer"\n'
NEVER = "never applies where its stage does, as with {}"

GAPS: list[tuple[str, dict[str, str]]] = [
    (KIND + stage("kind in ['a', 'b']"), {"stage": UNCOVERED.format('kind = "c"')}),
    (AMOUNT + stage("amount >= 1000") + stage("amount < 500", "t"), {"stage": UNCOVERED.format('amount = "500.00"')}),
    (AMOUNT + stage("amount >= 1000") + stage("amount < 1000", "t"), {}),
    (
        COUNT + stage("count > 5 and count < 3") + stage(id="t"),
        {"stage.0.when": "never applies: no values make it true"},
    ),
    (
        COUNT + auto("count < 10") + auto("count < 5") + stage("count < 7") + stage(id="t"),
        {
            "auto.1.when": "never decides: [[auto]] 1 decides first, as with count = 4",
            "stage.0.when": "never applies: [[auto]] 1 decides first, as with count = 4",
        },
    ),
    ('x = "string"\n' + stage("x == 'a'"), {"stage": UNCOVERED.format('x = "something else"')}),
    ('x = { type = "string", pattern = "A+" }\n' + stage("x == 'A'"), {}),  # whether another value fits isn't tried
    (
        'x = { type = "string", required = false }\n' + stage("x == null"),
        {"stage": UNCOVERED.format('x = "something else"')},
    ),
    ('day = "date"\n' + stage('day > d"2026-01-01"'), {"stage": UNCOVERED.format('day = "2025-12-31"')}),
    ('ok = "boolean"\n' + stage("ok"), {"stage": UNCOVERED.format("ok = false")}),
    (
        'x = "integer"\ny = "integer"\n' + stage("x > y and y > x") + stage(id="t"),
        {},
    ),  # fields with each other: no claim
    (
        KIND + '[[request]]\nfrom = ["*"]\nwhen = \'kind != "c"\'\n' + stage("kind in ['a', 'b']"),
        {},  # nobody may request the rest
    ),
    (
        KIND + stage('requester.in("@x") and kind == "a"') + stage('not requester.in("@x")', "t"),
        {"stage": UNCOVERED.format('kind = "b", “the requester is in @x” true')},
    ),
    (KIND + '[policy]\nwhen_nobody = "reject"\n' + stage("kind == 'a'"), {}),
]


@pytest.mark.parametrize(("text", "found"), GAPS, ids=[str(number) for number in range(len(GAPS))])
def test_gaps_are_found_with_an_example(text: str, found: dict[str, str]) -> None:
    assert {".".join(map(str, gap.path)): gap.message for gap in gaps_of(definition(text))} == found


@pytest.mark.parametrize("name", ["deploy", "expense", "prod-access", "book-flight"])
def test_the_samples_have_no_gaps(name: str) -> None:
    assert list(gaps_of(Definition.model_validate(tomllib.loads((EXAMPLES / f"{name}.toml").read_text())))) == []


def anyway(*alternatives: str) -> str:
    """Return a stage with these alternatives, each written as its seats."""
    return '[[stage]]\nid = "s"\n' + "".join(f"[[stage.any]]\nseats = [{seats}]\n" for seats in alternatives)


def seat(who: str, need: str = "1", when: str = "", more: str = "") -> str:
    return f'{{ from = ["@{who}"], need = {need}' + (f', when = "{when}"' if when else "") + f"{more} }}"


def complete(first: int, example: str = "") -> str:
    found = f"never decides: alternative {first} is complete whenever this one is"
    return f"{found}, as with {example}" if example else found


ALTERNATIVES: list[tuple[str, dict[str, str]]] = [
    (anyway(seat("a"), seat("b")), {}),
    (anyway(seat("a"), seat("a", "2")), {"stage.0.any.1": complete(1)}),
    (anyway(seat("a", "2"), seat("a")), {"stage.0.any.0": complete(2)}),
    (anyway(seat("a"), seat("a")), {"stage.0.any.1": complete(1)}),  # of equals, the second
    (anyway(seat("a"), f"{seat('a')}, {seat('b')}"), {"stage.0.any.1": complete(1)}),
    (anyway(f"{seat('a')}, {seat('b')}", f"{seat('b')}, {seat('c')}"), {}),
    (anyway(seat("a"), f"{seat('b')}, {seat('c')}, {seat('a', '3')}"), {"stage.0.any.1": complete(1)}),
    (anyway(f"{seat('a')}, {seat('a')}", seat("a", "2")), {}),  # one seat of two isn't two seats here: no claim
    (anyway(seat('a", "@b'), seat("a")), {"stage.0.any.1": complete(1)}),
    (anyway(seat("a"), seat('a", "@b')), {"stage.0.any.0": complete(2)}),
    (anyway(seat("a", '"50%"'), seat("a", '"majority"')), {"stage.0.any.1": complete(1)}),
    (anyway(seat("a", '"51%"'), seat("a", '"majority"')), {"stage.0.any.0": complete(2)}),
    (anyway(seat("a", '"all"'), seat('a", "@b', '"all"')), {}),
    (anyway(seat("a", "2"), seat("a", '"50%"')), {}),  # as long as nobody knows how many they are
    (anyway(seat("a", more=", pick = 2"), seat("a", "2")), {}),  # others than those picked may be two
    (anyway(seat("a"), seat("a", "2", more=", pick = 2")), {"stage.0.any.1": complete(1)}),
    # With conditions
    (
        COUNT + anyway(seat("a"), seat("b", when="count > 5 and count < 3")),
        {"stage.0.any.1": NEVER.format("count = 2")},
    ),
    (COUNT + anyway(seat("a", when="count > 5"), seat("b", when="count < 9")), {}),
    (
        COUNT + anyway(seat("a", when="count < 9"), seat("a", "2", when="count < 5"), seat("c")),
        {"stage.0.any.1": complete(1, "count = 4")},
    ),
    (COUNT + anyway(seat("a", when="count < 5"), seat("a", "2", when="count < 9"), seat("c")), {}),
    (
        COUNT + anyway(f"{seat('a')}, {seat('b', when='count < 5')}", f"{seat('a')}, {seat('b', when='count < 9')}"),
        {"stage.0.any.1": complete(1, "count = 4")},
    ),
    (
        COUNT + auto("count < 5") + anyway(f"{seat('a')}, {seat('b', when='count < 3')}", seat("c")),
        {"stage.0.any.0.seats.1.when": NEVER.format("count = 5")},
    ),
    (
        COUNT
        + stage("count > 5")
        + '[[stage]]\nid = "t"\nseat = ['
        + f"{seat('a')}, {seat('b', when='count < 3 and count > 4')}]\n",
        {"stage.1.seat.1.when": NEVER.format("count = 2")},
    ),
    # What can't be decided is passed over, but for what no value changes
    ('x = "integer"\ny = "integer"\n' + anyway(seat("a"), seat("b", when="x > y and y > x")), {}),
    (
        'x = "integer"\ny = "integer"\n' + anyway(seat("a"), seat("b", when="x > y"), seat("a", "2")),
        {"stage.0.any.2": complete(1)},
    ),
]


@pytest.mark.parametrize(("text", "found"), ALTERNATIVES, ids=[str(number) for number in range(len(ALTERNATIVES))])
def test_alternatives_that_never_matter_are_found(text: str, found: dict[str, str]) -> None:
    assert {".".join(map(str, gap.path)): gap.message for gap in gaps_of(definition(text))} == found


comparisons = st.tuples(st.sampled_from(["<", "<=", "==", "!=", ">=", ">"]), st.integers(0, 6)).map(
    lambda parts: f"count {parts[0]} {parts[1]}"
)
conditions = st.one_of(
    comparisons,
    st.tuples(comparisons, st.sampled_from(["and", "or"]), comparisons).map(" ".join),
    st.sampled_from(["kind == 'a'", "kind in ['a', 'b']", "not (kind == 'c')"]),
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(conditions, max_size=2), st.lists(conditions, min_size=1, max_size=3))
def test_gaps_are_those_that_all_values_show(autos: list[str], whens: list[str]) -> None:
    """Against each of the 27 requests there can be; `count` has the values -1 to 7."""
    bounded = 'count = { type = "integer", min = -1, max = 7 }\n' + KIND
    text = bounded + "".join(map(auto, autos)) + "".join(stage(when, f"s{at}") for at, when in enumerate(whens))
    rules = rules_of(definition(text))
    every = [rules.ruling({"count": count, "kind": kind}) for count in range(-1, 8) for kind in "abc"]
    expected: set[Any] = {("stage",)} if any(map(uncovered, every)) else set()
    decided = {ruling.automatic[0] - 1 for ruling in every if ruling.automatic is not None}
    expected |= {("auto", at, "when") for at in range(len(autos)) if at not in decided}
    people = [ruling.plan for ruling in every if ruling.automatic is None]
    expected |= {("stage", at, "when") for at in range(len(whens)) if not any(plan[at][0] for plan in people)}
    assert {gap.path for gap in gaps_of(rules.definition)} == expected
