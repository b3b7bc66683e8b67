"""Slack messages of every kind, in every state: Slack takes them, and they read well."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from approvals_bot.approvals.port import SLACK, Dispatch, ToPerson
from approvals_bot.channels.slack.blocks import NOBODY, message
from approvals_bot.playground.slack.blocks import check_blocks
from tests.support import card_kinds, slack_kinds

RAW = re.compile(r"\b(run_1|hook_1|rule:0|app:\w+|grant:\w+|None|P?T\d+[HMS])\b|\d{4}-\d\d-\d\dT|\b1 \w+s (are|were)\b")


def texts(value: Any) -> list[str]:
    """List what people read in these blocks, in order."""
    match value:
        case {"text": str(text)}:
            return [text]
        case {"user_id": str(user)} | {"usergroup_id": str(user)}:
            return [f"@{user}"]
        case dict():
            return [text for key, part in value.items() if key != "value" for text in texts(part)]
        case list():
            return [text for part in value for text in texts(part)]
        case _:
            return []


def read(dispatch: Dispatch, name: str = "") -> str:
    text, shown = message(dispatch, slack_kinds.MENTIONED.get(name, NOBODY))
    return "".join((text, *texts(shown)))


@pytest.fixture
def kinds(card: Card, outcome: CardOutcome) -> dict[str, Dispatch]:
    return slack_kinds.cards(card, outcome) | slack_kinds.notes(card, outcome)


def test_slack_takes_every_kind_of_message(kinds: dict[str, Dispatch]) -> None:
    for name, dispatch in kinds.items():
        text, shown = message(dispatch, slack_kinds.MENTIONED.get(name, NOBODY))
        assert check_blocks(shown, "message") == [], name
        assert text.strip(), name
        assert RAW.search(read(dispatch, name)) is None, (name, RAW.search(read(dispatch, name)))


def test_a_decided_card_has_no_choice_and_says_who(kinds: dict[str, Dispatch]) -> None:
    for name, dispatch in kinds.items():
        ended = dispatch.card.outcome
        if ended is None or dispatch.text or dispatch.thread:
            continue
        _, shown = message(dispatch)
        assert not any("vote:" in str(block) or "'why'" in str(block) for block in shown), name
        assert ended.by.text in "".join(texts(shown)[:2]) or ended.via == "clock", name


def test_a_comments_note_quotes_it_before_all_else(kinds: dict[str, Dispatch]) -> None:
    said = read(kinds["note-comment"], "note-comment")
    assert "Ann Ode commented:Is the backup done?\nI can't see it.Deploy api 2.1.0 to prod\ncc @U0ANN" in said
    assert "Waiting for" not in said  # a reader may have voted


def test_the_requester_reads_that_it_is_their_turn(card: Card) -> None:
    back = card_kinds.changes_requested(card)
    to = {person: ToPerson(SLACK, person) for person in (card_kinds.ANN, card_kinds.BO)}
    to_ann, to_bo = (
        read(Dispatch("d", to[person], back, "change", thread=slack_kinds.THREAD))
        for person in (card_kinds.ANN, card_kinds.BO)
    )
    assert "You'll be asked again once Bo Lund has edited" in to_ann
    assert "It's your turn: edit the request or withdraw it." in to_bo
    assert "asked again" not in to_bo


def test_only_an_open_tool_call_asks_for_a_decision(card: Card, outcome: CardOutcome) -> None:
    to = ToPerson(SLACK, card_kinds.ANN)
    open_call = card_kinds.tool_call(card)
    decided = replace(open_call, outcome=outcome, state="approved", choices=())
    assert "Written by a model. Your decision covers exactly these values." in read(Dispatch("d", to, open_call))
    assert "Written by a model." in read(Dispatch("d", to, decided))
    assert "Your decision" not in read(Dispatch("d", to, decided))


def test_a_decision_that_is_held_says_its_state_once(card: Card) -> None:
    held = replace(card_kinds.waiting(card)["waiting"], waiting_for=(), choices=())
    said = "".join(texts(message(Dispatch("d", ToPerson(SLACK, card_kinds.ANN), held))[1]))
    assert (said.count("Waiting"), "No more votes are needed" in said) == (1, True), said
