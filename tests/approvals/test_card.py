"""Cards of a published request, reader by reader."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.apply import apply, decided
from approvals_bot.approvals.card import asks_of, card_of, needs_form
from approvals_bot.approvals.eligibility import Resolution, ResolvedSeat
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening, Request, dumped
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.stages import described, opened, presented, request_of
from approvals_bot.people import Person

ANN, BO, CFO, FIN = (f"{address}@acme.eu" for address in ("ann", "bo", "cfo", "fin"))
NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
SAMPLES = Path(__file__).parents[2] / "workflows"
PEOPLE = {
    address: Person(address, name)
    for address, name in ((ANN, "Ann Ode"), (BO, "Bo Lund"), (CFO, "Fay Cash"), (FIN, "Fin"))
}


def found(*eligible: str) -> Resolution:
    return Resolution((ResolvedSeat(0, dict.fromkeys(eligible, "in finance"), eligible),), PEOPLE)


RULES = rules_of(Definition.model_validate(tomllib.loads((SAMPLES / "expense.toml").read_text())))


def expense(amount: str) -> Request:
    fields: dict[str, Any] = {"amount": amount, "purpose": "a desk", "team": "eng"}
    request = described(request_of(RULES, Opening(fields, BO), run_id="run_1", at=NINE), RULES).but(
        hook_id="hook_1", recipients={"1": ANN}
    )
    return opened(request, RULES, request.stages[0], found(ANN), NINE)


def vote(request: Request, act: Vote) -> Request:
    return apply(request, act, NINE, rules=RULES, found=found(ANN))[0]


def view(request: Request) -> Request:
    made = presented(request, RULES).but(title="A desk")
    assert Request.model_validate(dumped(made)) == made, "a request is lossless as JSON"
    assert Request.model_validate(made.model_dump(mode="json")) == made
    return made


def choices(request: Request, reader: str | None) -> list[str]:
    return [choice.choice for choice in card_of(view(request), reader, NINE).choices]


def test_a_card_shows_title_requester_and_pinned_fields_first() -> None:
    card = card_of(view(expense("80")), ANN, NINE, "https://x/requests/1")
    assert (card.title, card.requester.text, card.state, card.url) == (
        "A desk",
        "Bo Lund",
        "waiting",
        "https://x/requests/1",
    )
    assert [(field.label, field.value, field.pinned) for field in card.fields] == [
        ("Amount", "80.00 EUR", True),
        ("Purpose", "a desk", False),
        ("Team", "eng", False),
    ]
    assert [(stage.title, stage.state) for stage in card.stages][1:] == [("Finance", "skipped"), ("Board", "skipped")]
    assert (card.have, card.need, [name.text for name in card.waiting_for]) == (0, 1, ["Ann Ode"])
    assert card.why_me == "You're an approver because you're in finance."


def test_only_eligible_people_have_choices() -> None:
    request = expense("80")
    assert choices(request, ANN) == ["approve", "reject", "changes"]
    assert choices(request, BO) == choices(request, "eve@else.eu") == []
    assert choices(request, None) == ["approve", "reject", "changes"]


def test_a_deciding_choice_is_confirmed_unless_it_has_a_form() -> None:
    approve, reject, changes = card_of(view(expense("80")), ANN, NINE).choices
    assert (approve.label, approve.style, approve.confirm) == (
        "Approve: A desk",
        "primary",
        "Approve “A desk”? This decides it.",
    )
    assert (reject.style, reject.comment, reject.confirm) == ("danger", "required", None)
    assert (changes.style, changes.comment) == ("link", "required")
    assert card_of(view(expense("2000")), ANN, NINE).choices[0].confirm is None


def test_questions_are_shown_with_the_choice() -> None:
    request = expense("2000")
    request = vote(request, Vote(ANN))
    request = opened(request, RULES, request.stages[1], found(CFO, FIN), NINE)
    approve, reject, _ = card_of(view(request), FIN, NINE).choices
    assert [(ask.name, ask.label, ask.spec.pattern) for ask in approve.asks] == [
        ("budget_code", "Budget code", "[A-Z]{2}-[0-9]{4}")
    ]
    assert reject.asks == ()
    assert [(vote.by.text, vote.choice) for vote in card_of(view(request), FIN, NINE).votes] == [("Ann Ode", "approve")]


def test_a_comment_or_questions_need_a_form() -> None:
    request = expense("80")
    assert [needs_form(request, choice) for choice in ("approve", "reject", "changes")] == [False, True, True]
    request = vote(expense("2000"), Vote(ANN))
    request = opened(request, RULES, request.stages[1], found(CFO, FIN), NINE)
    assert (needs_form(request, "approve"), [ask.name for ask in asks_of(request, "approve")]) == (
        True,
        ["budget_code"],
    )
    assert asks_of(request, "reject") == ()
    assert not needs_form(decided(request, "expired", "deadline", NINE, "clock"), "reject")


@pytest.mark.parametrize("choice", ["approve", "reject"])
def test_a_decided_card_keeps_everything_but_the_choices(choice: Any) -> None:
    request = expense("80")
    request = vote(request, Vote(ANN, choice, via="slack", comment="well"))
    card = card_of(view(request), ANN, NINE)
    assert (card.choices, card.waiting_for) == ((), ())
    assert card.outcome is not None
    assert (card.outcome.by.text, card.outcome.via, card.outcome.comment) == ("Ann Ode", "slack", "well")
    assert len(card.fields) == 3


@pytest.mark.parametrize("state", ["rejected", "expired", "withdrawn"])
def test_an_unfilled_stage_ends_in_the_state_of_its_request(state: Any) -> None:
    request = decided(expense("80"), state, ANN, NINE, "api")
    assert [stage.state for stage in card_of(view(request), None, NINE).stages] == [state, "skipped", "skipped"]


@pytest.mark.parametrize("state", ["rejected", "expired", "withdrawn"])
def test_a_filled_stage_stays_done(state: Any) -> None:
    request = vote(expense("2000"), Vote(ANN))
    request = opened(request, RULES, request.stages[1], found(CFO, FIN), NINE)
    request = decided(request, state, CFO, NINE, "api")
    assert [stage.state for stage in card_of(view(request), None, NINE).stages] == ["done", state, "skipped"]
