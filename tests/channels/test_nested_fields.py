"""Lists and objects on cards and in forms of Slack and mail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html import unescape
from typing import Any

import pytest

from approvals_bot.approvals.card_model import Card, CardChoice, CardField
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import form_field, shown_fields
from approvals_bot.approvals.json_values import MOST_BYTES
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.approvals.tool_call import with_lines
from approvals_bot.channels.email import letter
from approvals_bot.channels.slack import blocks, modals
from approvals_bot.people import Person
from approvals_bot.playground.slack.blocks import check_blocks, check_view

EVIL = ["<!channel>", "<@U0ANN>", "</script><b>", "\u202egpj.exe", "👩‍💻"]
ITEMS: Any = [{"sku": text, "n": 2} for text in EVIL]
LARGE: Any = {"rows": [f"row {number} <!here>" for number in range(3_000)]}
URL = "https://approve.acme.eu/requests/run_1"


def nested(value: Any, **spec: Any) -> CardField:
    kind = "array" if isinstance(value, list) else "object"
    shown = shown_fields({"items": FieldSpec(type=kind, pinned=True, **spec)}, {"items": value}, {})
    (field,) = with_lines(shown, {"items": value}, {})
    return field


def with_fields(card: Card, *fields: CardField) -> Card:
    return replace(card, fields=fields, url=URL)


def parts_of(block: Any) -> Iterator[dict[str, Any]]:
    match block:
        case dict():
            yield block
            for value in block.values():
                yield from parts_of(value)
        case list():
            for value in block:
                yield from parts_of(value)


def preformatted(shown: list[dict[str, Any]]) -> list[str]:
    found = [part for part in parts_of(shown) if part.get("type") == "rich_text_preformatted"]
    return [element["text"] for part in found for element in part["elements"]]


@pytest.mark.parametrize("untrusted", [False, True])
def test_slack_shows_leaves_as_code_and_nothing_in_them_is_live(card: Card, untrusted: bool) -> None:
    field = nested(ITEMS, untrusted=untrusted)
    _, shown = blocks.card_message(with_fields(card, field))
    assert check_blocks(shown, "message") == []
    (code,) = preformatted(shown)
    assert code == field.value
    assert 'items.0.n: 2\nitems.0.sku: "<!channel>"\n' in code
    assert 'items.3.sku: "⟨U+202E⟩gpj.exe"' in code
    assert "\u202e" not in code
    assert not any("channel" in part.get("text", "") for part in parts_of(shown) if part.get("type") == "mrkdwn")


def test_slack_cuts_a_large_value_and_links_to_the_whole(card: Card) -> None:
    assert len(json.dumps(LARGE)) < MOST_BYTES
    _, shown = blocks.card_message(with_fields(card, nested(LARGE)))
    assert check_blocks(shown, "message") == []
    (code,) = preformatted(shown)
    assert code.startswith('items.rows.0: "row 0 <!here>"\nitems.rows.1: ')
    assert re.search(r"… \([0-9,]+ characters, SHA-256 [0-9a-f]{32}\)$", code), "cut, but never for another"
    assert [part["url"] for part in parts_of(shown) if part.get("text") == "Open the full request"] == [URL]


def test_a_short_list_is_a_line_beside_its_label(card: Card) -> None:
    _, shown = blocks.card_message(with_fields(card, nested(["a"], untrusted=True), nested({})))
    assert preformatted(shown) == []
    text = "".join(part["text"] for part in parts_of(shown) if part.get("type") == "text")
    assert 'Items (pinned): items.0: "a"\nItems (pinned): {}' in text


def test_mail_shows_leaves_in_both_parts(card: Card, now: datetime) -> None:
    field = nested(ITEMS)
    dispatch = Dispatch("d1", ToPerson("email", Person("ann@acme.eu", "Ann Ode")), with_fields(card, field), link=URL)
    written = letter.write(dispatch, now)
    assert "\n".join(f"    {line}" for line in field.value.splitlines()) in written.text
    (code,) = re.findall(r'<td class="long[^>]*dir="ltr"[^>]*>(.*?)</td>', written.html, re.DOTALL)
    shown = unescape(code.replace("<br>", "")).replace("\xa0", " ").partition("…")[0]  # the first eight lines
    assert shown
    assert field.value.startswith(shown)
    assert "<b>" not in code
    large = letter.write(replace(dispatch, card=with_fields(card, nested(LARGE))), now)
    assert "Read the rest on the request" in large.html
    assert len(large.html.encode()) <= letter.HTML_LIMIT
    assert len(large.text.encode()) <= letter.TEXT_LIMIT
    short = letter.write(replace(dispatch, card=with_fields(card, nested(["a"]))), now)
    assert 'Items: items.0: "a" [pinned]' in short.text


def test_slacks_modal_takes_json_on_several_lines(card: Card) -> None:
    spec = FieldSpec(type="array", editable=True)
    ask = form_field("items", spec, ITEMS)
    choice = CardChoice("edit", "Approve with changes", "Approve with changes", asks=(ask,))
    modal = modals.vote_modal(card, choice, modals.Opened("hook_1", "edit", None))
    (element,) = (
        part for part in parts_of(modal) if part.get("type") == "plain_text_input" and "initial_value" in part
    )
    assert (element["multiline"], json.loads(element["initial_value"])) == (True, ITEMS)
    assert modals.edits({modals.ASK + "items": {modals.VALUE: {"value": ask.value}}}, [ask]) == {}
    typed = '[\n  "a b"\n]'
    assert modals.edits({modals.ASK + "items": {modals.VALUE: {"value": typed}}}, [ask]) == {"items": typed}


@pytest.mark.parametrize("name", ["from", "größe", "a b", '"><b>', "👍", "x" * 200])
def test_slack_takes_a_field_of_any_name(card: Card, name: str) -> None:
    ask = form_field(name, FieldSpec(type="array", editable=True), ["a"])
    choice = CardChoice("edit", "Approve with changes", "Approve with changes", asks=(ask,))
    modal = modals.vote_modal(card, choice, modals.Opened("hook_1", "edit", None))
    assert check_view(modal) == []
    values = {modals.ASK + name: {modals.VALUE: {"value": '["b"]'}}}
    assert modals.edits(values, [ask]) == {name: '["b"]'}
    fields = shown_fields({name: FieldSpec(type="array")}, {name: ["a"]}, {})
    assert check_blocks(blocks.card_message(with_fields(card, *fields))[1], "message") == []


def test_a_value_too_long_for_the_modal_is_left_to_the_page(card: Card) -> None:
    ask = form_field("rows", FieldSpec(type="object", editable=True), LARGE)
    choice = CardChoice("edit", "Approve with changes", "Approve with changes", asks=(ask,))
    modal = modals.vote_modal(card, choice, modals.Opened("hook_1", "edit", None))
    assert "too long to edit in Slack" in json.dumps(modal)
