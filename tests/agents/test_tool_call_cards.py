"""A tool call as people see it: what a model wrote stays text on every surface."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from approvals_bot.approvals import tool_call
from approvals_bot.approvals.card_model import Card, CardChoice, FormField, Name
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.fields import shown_fields, values
from approvals_bot.approvals.port import Dispatch, ToPerson
from approvals_bot.channels.email import letter
from approvals_bot.channels.slack import blocks, modals
from approvals_bot.cli.show import card_lines
from approvals_bot.people import Person
from approvals_bot.playground.slack.blocks import check_blocks, check_view

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
URL = "https://approve.acme.eu/requests/run_1"
BY_MODEL = "Written by a model."


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


ARGUMENTS: dict[str, dict[str, Any]] = {
    "nested": {"items": [{"sku": "a", "n": 2}], "to": {"city": "Oslo"}},
    "none": {},
    "null": {"note": None, "list": [None]},
    "64 kB": {"rows": ["x" * 60] * 1_000},
    "64 kB of keys": {"k" * 30_000: {str(n): n for n in range(1_500)}},
    "depth 20": nested(20),
    "emoji": {"👩‍💻": "❤️ 🇳🇴", "deep": ["👩‍💻"]},
    "mention": {"text": "<!channel> <@U0ANN> @here", "<!here>": ["<!channel>"]},
    "script": {"text": "</script><script>alert(1)</script><img src=x onerror=alert(1)>", "a": ["</pre><b>"]},
    "bidi": {"file": "\u202egpj.exe", "\u2066x": ["a\u200bb\u0000".replace("\u0000", "\x1b")]},
    "link": {"text": "[click](https://evil.example) <https://evil.example|x> *bold*", "in": ["https://evil.example"]},
    "long": {"text": "word " * 10_000},
}


def card_of_call(arguments: dict[str, Any], tool: str = "pay") -> Card:
    said = tool_call.values(tool, arguments, agent="<b>bot", why="because *I* <!channel> \u202e", tool_call_id="id_1")
    of = {name: FieldSpec.model_validate(spec) for name, spec in tool_call.specs().items()}
    typed = values(of, said)
    fields = tool_call.with_lines(shown_fields(of, typed, {}), typed, {})
    return Card(
        run_id="run_1.1",
        hook_id="hook",
        workflow="calls",
        version=1,
        state="waiting",
        title=tool_call.title_of(said),
        requester=Name("app:calls", "calls"),
        asked_at=NOW,
        digest="d" * 64,
        fields=fields,
        choices=(CardChoice("approve", "Approve", "Approve", "primary"),),
        url=URL,
    )


def parts_of(block: Any) -> Iterator[dict[str, Any]]:
    match block:
        case dict():
            yield block
            for value in block.values():
                yield from parts_of(value)
        case list():
            for value in block:
                yield from parts_of(value)


CASES = [pytest.param(arguments, id=name) for name, arguments in ARGUMENTS.items()]


@pytest.mark.agents(14)
@pytest.mark.parametrize("arguments", CASES)
def test_slack_shows_any_arguments_as_plain_text(arguments: dict[str, Any]) -> None:
    text, shown = blocks.card_message(card_of_call(arguments))
    assert check_blocks(shown, "message") == []
    assert "<!" not in text
    parts = list(parts_of(shown))
    assert not [part for part in parts if part.get("type") in ("user", "usergroup", "broadcast", "channel", "emoji")]
    assert {part["url"] for part in parts if part.get("type") == "link"} <= {URL}
    written = json.dumps([part for part in parts if part.get("type") == "mrkdwn"])
    assert "evil" not in written
    assert "<!channel" not in written
    whole = json.dumps(shown, ensure_ascii=False)
    assert BY_MODEL in whole
    assert {"type": "text", "text": "pay", "style": {"code": True}} in parts
    assert "\u202e" not in whole
    if len(json.dumps(arguments)) > 5_000:
        assert "Open the full request" in whole


@pytest.mark.agents(14)
@pytest.mark.parametrize("arguments", CASES)
def test_mail_shows_any_arguments_as_plain_text(arguments: dict[str, Any]) -> None:
    to = ToPerson("email", Person("ann@acme.eu", "Ann Ode"))
    written = letter.write(Dispatch("d1", to, card_of_call(arguments), link=URL), NOW)
    assert len(written.html.encode()) <= letter.HTML_LIMIT
    assert len(written.text.encode()) <= letter.TEXT_LIMIT
    assert {unescape(url).partition("?")[0] for url in re.findall(r'href="([^"]+)"', written.html)} <= {URL}
    for tag in ("<script", "<img", "<b>", "</pre>"):
        assert tag not in written.html.lower()
    assert "\u202e" not in written.html + written.text
    assert BY_MODEL in written.html
    assert BY_MODEL in written.text
    assert "<code" in written.html


@pytest.mark.agents(14)
@pytest.mark.parametrize("arguments", CASES)
def test_the_terminal_shows_any_arguments_as_plain_text(arguments: dict[str, Any]) -> None:
    lines = card_lines(card_of_call(arguments), NOW)
    assert BY_MODEL in "\n".join(lines)
    assert all(character.isprintable() or character in "\t\x1b\u200d\ufe0f" for line in lines[1:] for character in line)


def test_leaves_have_addresses_and_null_is_empty() -> None:
    card = card_of_call({"items": [{"sku": "a", "n": 2}], "a.b": {"c": None}, "note": None, "on": True})
    assert [(field.label, field.value) for field in card.fields] == [
        ("Tool", "pay"),
        ("Items", 'items.0.n: 2\nitems.0.sku: "a"'),
        ("a.b", '"a.b".c: empty'),
        ("Note", "empty"),
        ("On", "yes"),
        ("Agent", "<b>bot"),
        ("Why", "because *I* <!channel> ⟨U+202E⟩"),
    ]


def test_a_keys_text_cant_pass_for_another_leaf() -> None:
    card = card_of_call({"x": {"amount: 1\nx.amount": 1000, "amount": 5}})
    assert card.fields[1].value.splitlines() == ["x.amount: 5", 'x."amount: 1\\nx.amount": 1000']


def test_slacks_modal_edits_each_leaf_and_takes_any_address() -> None:
    arguments: dict[str, Any] = {
        "price": 640,
        "on": False,
        "note": None,
        "long key " * 40: {"a": 1},
        "rows": list(range(80)),
    }
    field = FormField("arguments", "Arguments", FieldSpec(type="arguments"))
    asks = tool_call.inputs_of(field, arguments)
    modal = modals.vote_modal(
        card_of_call(arguments), CardChoice("edit", "Edit", "Edit", asks=asks), modals.Opened("hook", "edit", None)
    )
    assert check_view(modal) == []
    inputs = [block for block in modal["blocks"] if block["type"] == "input"]
    assert [block["label"]["text"] for block in inputs][:4] == ["Price", "On", "Note", "rows.0"]
    assert "34 more values have no room in Slack" in json.dumps(modal)
    untouched = {
        modals.ASK + ask.name: {modals.VALUE: {"value": ask.value}} for ask in asks if ask.spec.type == "decimal"
    }
    assert modals.edits(untouched, asks) == {}
    typed = untouched | {modals.ASK + "price": {modals.VALUE: {"value": "600"}}}
    assert modals.edits(typed, asks) == {"price": "600"}


def test_an_edited_card_shows_what_was() -> None:
    of = {name: FieldSpec.model_validate(spec) for name, spec in tool_call.specs().items()}
    before = {"price": 640, "items": [1, 2], "gone": [1], "same": [3]}
    after = {"price": 600, "items": [1, 5, 6], "gone": [], "same": [3]}
    typed = values(of, tool_call.values("pay", after, agent=None, why=None, tool_call_id=None))
    was: dict[str, Any] = {"arguments": before}
    shown = tool_call.with_lines(shown_fields(of, typed, was), typed, was)
    assert [(field.name, field.value, field.was) for field in shown[1:]] == [
        ("price", "600", "640"),
        ("items", "items.0: 1\nitems.1: 5 (was 2)\nitems.2: 6 (new)", None),
        ("gone", "gone: [] (new)", None),
        ("same", "same.0: 3", None),
    ]
    assert replace(shown[1], was=None).value == "600"
