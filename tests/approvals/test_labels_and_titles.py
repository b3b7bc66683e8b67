"""Labels, hints, titles, group names and instructions from the workflow's file."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from approvals_bot import Stage
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.card_text import comment_needed
from approvals_bot.approvals.fields import form_field
from approvals_bot.approvals.policy import Definition, Labels
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.rules import Rules
from approvals_bot.approvals.stages import described, request_of
from approvals_bot.channels.slack.modals import ask_input

BO, CY, DI = "bo@acme.eu", "cy@acme.eu", "di@acme.eu"
DELETION = """
[workflow]
id = "deletion"
title = "Delete {{ what }}"
request = ["*"]
description = "Deletes data for good."
instructions = "Check that nobody needs {{ what }} any more.\\nAsk its owner if in doubt."
[fields]
what = { type = "string", label = "What is deleted" }
size = { type = "decimal", label = "Size in GB", hint = "As the bucket's page says", example = 12.5 }
reason = { type = "text", required = false, example = "Moved to the archive", editable = true }
[[stage]]
id = "owners-ok"
title = "Owners agree"
when = "size >= 10"
from = ["@release-managers"]
[[stage]]
id = "big"
when = "size > 1000"
from = ["@sre"]
[policy]
outcomes = ["approve", "reject", "edit"]
[labels]
approve = "Approve deletion"
reject = "Keep it"
[deliver]
slack = "#data"
"""
FIELDS: dict[str, Any] = {"what": "old logs", "size": 640}


async def test_the_card_shows_labels_and_titles_of_the_file(office: Any) -> None:
    office.people.group_names["release-managers"] = "Release team"
    async with office.open():
        opened = await office.ask(DELETION, FIELDS)
        request = await opened.view()
        card = card_of(request, BO, office.clock.now())
    assert card.instructions == "Check that nobody needs old logs any more.\nAsk its owner if in doubt."
    assert [field.label for field in card.fields] == ["What is deleted", "Size in GB", "Reason"]
    owners, big = card.stages
    assert (owners.title, owners.because) == ("Owners agree", "the size in GB is 640 (10 or more)")
    assert (big.title, big.state, big.because) == ("Big", "skipped", "the size in GB is 640 (1,000 or less)")
    assert [(choice.short, choice.label) for choice in card.choices] == [
        ("Approve deletion", "Approve deletion"),
        ("Keep it", "Keep it"),
        ("Approve with changes", "Approve with changes"),
    ]
    assert card.choices[0].confirm == "Approve deletion “Delete old logs”? This decides it."
    assert comment_needed(card) == "required for “Keep it”"
    assert card.why_me == "You're an approver because you're in Release team."


async def test_a_decided_card_has_no_instructions(office: Any) -> None:
    async with office.open():
        opened = await office.ask(DELETION, FIELDS)
        assert await opened.vote(CY) == "decided"
        request = await opened.view()
        assert request.instructions
        assert card_of(request, BO, office.clock.now()).instructions == ""


async def test_broken_instructions_are_left_out(office: Any) -> None:
    async with office.open():
        opened = await office.ask(DELETION.replace("{{ what }} any", "{{ 1 / (size - 640) }} any"), FIELDS)
        assert (await opened.view()).instructions == ""
        assert await opened.vote(CY) == "decided"


def test_seats_show_group_names_from_the_start() -> None:
    definition = Definition.model_validate(tomllib.loads(DELETION))
    named = definition.with_group_names({"release-managers": "Release team", "sre": "Site reliability", "other": "X"})
    assert named.group_names == {"release-managers": "Release team", "sre": "Site reliability"}
    rules, opening = Rules(named), Opening({"what": "x", "size": "2000"}, DI)

    request = described(request_of(rules, opening, at=datetime(2026, 3, 2, tzinfo=UTC)), rules)
    assert [seat.label for stage in request.stages for seat in stage.seats] == ["Release team", "Site reliability"]


def test_a_form_in_slack_shows_hint_and_example() -> None:
    definition = Definition.model_validate(tomllib.loads(DELETION))

    opened = ask_input("field:size", form_field("size", definition.fields["size"]))
    assert opened["label"]["text"] == "Size in GB"
    assert opened["hint"]["text"] == "As the bucket's page says"
    assert opened["element"]["placeholder"]["text"] == "12.5"


@pytest.mark.parametrize("text", ["", "two\nlines", " padded", "x" * 76])
def test_a_label_is_one_short_line(text: str) -> None:
    with pytest.raises(ValidationError):
        Labels(approve=text)
    with pytest.raises(ValidationError):
        Stage(id="go", title=text, from_=["ann@acme.eu"])


def test_a_file_cannot_name_groups_itself() -> None:
    table = tomllib.loads(DELETION) | {"group_names": {"sre": "Us"}}
    with pytest.raises(ValidationError, match="unknown key"):
        Definition.model_validate(table, context={})
    assert "group_names" not in json.dumps(Definition.model_json_schema())
