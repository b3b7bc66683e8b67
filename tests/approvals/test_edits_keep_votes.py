"""Edits: votes stay if nothing depends on the field, and the card says what became of them."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest

from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.rules import rules_of
from approvals_bot.approvals.text import edit_text
from tests.approvals.conftest import ANN, BO, CY, DI

FILE = """
[workflow]
id = "buy"
title = "Buy for {{ team }}"
instructions = "Look at {{ note }}"
request = ["*"]
[fields]
item = { type = "string", pinned = true }
amount = "integer"
risk = "integer"
team = "string"
account = "string"
author = "email"
code = "string"
place = "string"
room = "string"
note = "string"
remark = { type = "string", required = false }
[policy]
exclude = ["field:author"]
[[auto]]
when = "amount < 0"
decision = "reject"
[[stage]]
id = "go"
  [[stage.seat]]
  from = ["@release-managers"]
  need = 3
  [[stage.seat]]
  when = "risk > 3"
  from = ["owner-of:account"]
[deliver]
slack = "#{{ room }}"
[[on.approved]]
http = "shop"
json = { list = [{ code = "{{ code }}" }] }
[[on.approved]]
slack = "#{{ place }}"
text = "{{ remark }}"
"""
VALUES = {
    **dict.fromkeys(("item", "team", "account", "code", "place", "room", "note"), "x"),
    "amount": 1,
    "risk": 1,
    "author": "eve@acme.eu",
}


def file(**policy: Any) -> Definition:
    content = tomllib.loads(FILE)
    content["policy"] |= policy
    return Definition.model_validate(content, context={})


@pytest.mark.parametrize("name", file().fields)
def test_only_what_nothing_depends_on_keeps_votes(name: str) -> None:
    kept = "keep" if name in ("note", "remark") else "reset"
    assert rules_of(file()).on_change_of(name) == kept
    assert rules_of(Definition.model_validate(json.loads(json.dumps(pinned(file()))))).on_change_of(name) == kept
    assert rules_of(file(on_change="reset")).on_change_of(name) == "reset"
    assert rules_of(file(on_change="keep")).on_change_of(name) == "keep"
    some = rules_of(file(on_change={"item": "keep", "note": "reset"}))
    assert some.on_change_of(name) == {"item": "keep", "note": "reset"}.get(name, kept)


async def test_the_card_says_what_an_edit_did_to_votes(office: Any) -> None:
    async with office.open():
        opened = await office.ask(FILE, VALUES)

        async def notes() -> tuple[str, ...]:
            return card_of(await opened.view(), ANN, datetime(2026, 3, 2, tzinfo=UTC)).notes

        await opened.act(kind="edit", by=DI, fields={"note": "a"})
        assert await notes() == ()
        assert [await opened.vote(by) for by in (ANN, BO)] == ["counted", "counted"]
        said = await opened.act(kind="edit", by=DI, fields={"note": "b"})
        assert said["text"] == "Saved. The votes so far still count."
        assert await notes() == ("✎ Edited by Di Ops: 2 votes kept",)
        said = await opened.act(kind="edit", by=DI, fields={"note": "c", "amount": 2})
        assert said["text"] == "Saved. The votes were reset, and the approvers have been notified."
        assert await notes() == ("✎ Edited by Di Ops: 2 votes reset",)
        assert [await opened.vote(by) for by in (ANN, BO, CY)] == ["counted", "counted", "decided"]


def test_one_vote_is_no_votes() -> None:
    assert edit_text("Bo", 1, 1) == "Edited by Bo: 1 vote kept, 1 vote reset"
