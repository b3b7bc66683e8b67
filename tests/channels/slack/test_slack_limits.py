"""Everything we show in Slack stays within Slack's documented limits, and no pinned field gets lost on the way.

The limits are written down here once more, from docs.slack.dev (reference of blocks, elements, composition objects and
views), so that neither our constants nor the playground's checks are judges of themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardComment,
    CardDelivery,
    CardField,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    FormField,
    Name,
)
from approvals_bot.approvals.delivery import LONGEST_VALUE, shortened
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.plain_text import length
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.port import Dispatch, Place, Receipt
from approvals_bot.channels.slack import blocks, home, modals, opening, reassignment
from approvals_bot.people import Person
from tests.support.thorough import examples

Json = dict[str, Any]
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)  # not shrunk: that would take minutes
TEXT = {"section": 3_000, "header": 150, "button": 75, "context": 3_000, "label": 2_000, "hint": 2_000}
IDS = {"block_id": 255, "action_id": 255, "callback_id": 255, "private_metadata": 3_000, "url": 3_000}
MANY = {"message": 50, "modal": 100, "home": 100}


def walk(value: Any) -> Iterator[Json]:
    """Yield every object in there."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


def said(obj: Json) -> int:
    return length(obj["text"])


def is_option(obj: Json) -> bool:
    return "value" in obj and "type" not in obj


def faults(obj: Json) -> Iterator[str]:
    """Yield the limits that one object breaks."""
    kind = obj.get("type")
    for name, most in IDS.items():
        if isinstance(obj.get(name), str) and not 1 <= length(obj[name]) <= most:
            yield f"{kind}.{name} {obj[name]!r:.60}"
    if kind in ("plain_text", "mrkdwn", "text") and not obj["text"]:
        yield f"an empty {kind}"
    match kind:
        case "section" | "header" if "text" in obj and said(obj["text"]) > TEXT[kind]:
            yield f"{kind} {said(obj['text'])}"
        case "context" if not 1 <= len(obj["elements"]) <= 10 or any(said(one) > 3_000 for one in obj["elements"]):
            yield f"context of {len(obj['elements'])}"
        case "actions" if not 1 <= len(obj["elements"]) <= 25 or len({e["action_id"] for e in obj["elements"]}) < len(
            obj["elements"]
        ):
            yield f"actions of {len(obj['elements'])}"
        case "button":
            if said(obj["text"]) > 75 or length(obj.get("value", "")) > 2_000:
                yield "button"
            if not 1 <= length(obj.get("accessibility_label", "x")) <= 75:
                yield "accessibility_label"
        case "input" if said(obj["label"]) > 2_000 or said(obj.get("hint", {"text": ""})) > 2_000:
            yield "input"
        case "plain_text_input" if not 1 <= obj.get("max_length", 1) <= 3_000 or length(
            obj.get("initial_value", "")
        ) > obj.get("max_length", 3_000):
            yield "plain_text_input"
        case "static_select":
            groups = obj.get("option_groups", [{"options": obj.get("options")}])
            if len(groups) > 100 or not all(1 <= len(group["options"]) <= 100 for group in groups):
                yield "static_select"
        case "modal" if not all(1 <= said(obj.get(name, {"text": "x"})) <= 24 for name in ("title", "submit", "close")):
            yield "modal"
    if said(obj.get("placeholder", {"text": ""})) > 150:
        yield "placeholder"
    if is_option(obj) and (said(obj["text"]) > 75 or not 1 <= length(obj["value"]) <= 150):
        yield f"option {obj}"
    if "deny" in obj:
        sizes = [said(obj[part]) for part in ("title", "text", "confirm", "deny")]
        if any(size > most for size, most in zip(sizes, (100, 300, 30, 30), strict=True)):
            yield f"confirm {sizes}"


def assert_within(shown: list[Json], where: str) -> None:
    found = [fault for obj in walk(shown) for fault in faults(obj)]
    assert found == []
    assert 1 <= len(shown) <= MANY[where]
    ids = [block["block_id"] for block in shown if "block_id" in block]
    assert len(ids) == len(set(ids))
    assert all(len(block["fields"]) <= 10 for block in shown if "fields" in block)


def assert_view(view: Json) -> None:
    assert_within(view["blocks"], view["type"])
    assert list(faults({name: value for name, value in view.items() if name != "blocks"})) == []
    assert len(json.dumps(view)) < 250_000


PARTS = st.sampled_from(["x", "\n", "é", "👨‍👩‍👧‍👦", '"', "\x00", "\u202e", "<", "word "])
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["<!channel>", "  ", ""]),
    st.builds(lambda part, times: part * times, PARTS, st.sampled_from([1, 40, 400, 2_000])),
)
NAMES = st.builds(Name, st.text("abc@.", min_size=1, max_size=200), TEXTS, st.none() | st.just("U0ANN"))
KINDS = st.sampled_from(["short", "short", "long", "diff", "json", "file"])
FIELDS = st.builds(
    CardField, TEXTS, TEXTS, TEXTS, KINDS, st.booleans(), was=st.none() | TEXTS, untrusted=st.booleans(),
    file=st.sampled_from(["", "f" * 26]),
)  # fmt: skip
CHOICES = st.builds(
    CardChoice, st.sampled_from(["approve", "reject", "edit", "changes", "answer", "take_back"]), TEXTS, TEXTS,
    st.sampled_from(["primary", "danger", "link"]), st.none() | TEXTS,
)  # fmt: skip
SEATS = st.builds(CardSeat, TEXTS, st.integers(1, 9), st.lists(NAMES, max_size=3).map(tuple))
STAGES = st.builds(
    CardStage, st.just("s"), TEXTS, st.sampled_from(["done", "open"]), st.lists(SEATS, max_size=30).map(tuple)
)


@st.composite
def cards(draw: st.DrawFn, base: Card) -> Card:
    at, via = st.just(base.asked_at), st.just("slack")
    votes = st.builds(CardVote, NAMES, st.just("approve"), at=at, via=via, comment=TEXTS)
    comments = st.builds(CardComment, NAMES, at=at, via=via, comment=TEXTS)
    failed = st.builds(CardDelivery, TEXTS, st.just("email"), st.just("not_delivered"), error=TEXTS)
    outcome = st.none() | st.builds(
        CardOutcome, st.sampled_from(["approved", "expired"]), NAMES, TEXTS, at=at, via=via, comment=TEXTS
    )
    made = replace(
        base,
        title=draw(TEXTS),
        requester=draw(NAMES),
        on_behalf_of=draw(st.none() | NAMES),
        fields=tuple(replace(field, name=f"f{n}") for n, field in enumerate(draw(st.lists(FIELDS, max_size=40)))),
        votes=tuple(draw(st.lists(votes, max_size=30))),
        comments=tuple(draw(st.lists(comments, max_size=12))),
        stages=tuple(draw(st.lists(STAGES, max_size=20))),
        waiting_for=tuple(draw(st.lists(NAMES, max_size=40))),
        choices=tuple(draw(st.lists(CHOICES, max_size=6, unique_by=lambda choice: choice.choice))),
        talk=tuple(draw(st.sets(st.sampled_from(["comment", "claim", "unclaim", "snooze", "remind"])))),
        claimed_by=draw(st.none() | NAMES),
        deliveries=tuple(draw(st.lists(failed, max_size=10))),
        notes=tuple(draw(st.lists(TEXTS, max_size=10))),
        outcome=draw(outcome),
        instructions=draw(TEXTS),
        on_deadline=draw(TEXTS),
        why_me=draw(TEXTS),
        is_stalled=draw(st.booleans()),
    )
    return shortened(made, LONGEST_VALUE)


MENTIONED = st.builds(
    blocks.Mentions, st.dictionaries(st.text("ab@", min_size=1), st.just("U0ANN"), max_size=30), st.just(("S0SRE",))
)


def words(shown: list[Json]) -> str:
    return "\n".join(obj["text"] for obj in walk(shown) if isinstance(obj.get("text"), str))


@pytest.mark.check(22, 23)
@settings(max_examples=examples(45), deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_message_is_within_slacks_limits(card: Card, data: st.DataObject) -> None:
    made = data.draw(cards(card))
    text, shown = blocks.card_message(made, data.draw(st.just(blocks.NOBODY) | MENTIONED))
    assert_within(shown, "message")
    assert 1 <= length(text) <= 4_000
    assert len(words(shown)) <= 8_000  # Slack counts texts, and refuses a message at about 13,200
    assert len(json.dumps(shown, ensure_ascii=False)) <= 16_000
    pinned = sum(field.pinned for field in made.fields)
    found = words(shown)
    left = 0 if " of them pinned" not in found else int(found.split(" of them pinned")[0].rpartition(", ")[2])
    assert found.count(" (pinned)") + left == pinned  # each is there, or counted
    cut = [obj for obj in walk(shown) if str(obj.get("text", "")).endswith("…")]
    assert left == 0 or "Open the full request" in found, cut
    for occasion in ("reminder", "comment", "change", "reassigned"):
        thread = Receipt("C1", "1.2")
        note = Dispatch("d", Place("slack", "#x"), made, occasion, thread=thread, comments=made.comments)
        text, shown = blocks.message(note)
        assert_within(shown, "message")
        assert 1 <= length(text) <= 4_000
    text, shown = blocks.message(Dispatch("d", Place("slack", "#x"), made, text=data.draw(TEXTS) or "x"))
    assert_within(shown, "message")


TYPES = [
    "string",
    "text",
    "integer",
    "decimal",
    "money",
    "boolean",
    "enum",
    "date",
    "datetime",
    "duration",
    "email",
    "url",
]
SPECS = st.builds(
    FieldSpec.model_construct,
    type=st.sampled_from(TYPES),
    required=st.booleans(),
    values=st.lists(TEXTS, unique=True, max_size=120).map(tuple),
    hint=st.none() | TEXTS,
    example=st.none() | TEXTS,
)
ASKS = st.builds(FormField, st.text("abcdefghij_", min_size=1, max_size=300), TEXTS, SPECS, TEXTS)


@pytest.mark.check(22)
@settings(max_examples=examples(30), deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_modal_and_home_tab_is_within_slacks_limits(card: Card, data: st.DataObject) -> None:
    made = data.draw(cards(card))
    choice = replace(
        data.draw(CHOICES), asks=tuple(data.draw(st.lists(ASKS, max_size=60, unique_by=lambda ask: ask.name)))
    )
    assert_view(modals.vote_modal(made, choice, modals.Opened("hook_1", "approve", "sha256:" + "0" * 64, "C0DEPLOYS")))
    assert_view(modals.reply_modal(data.draw(TEXTS)))
    assert_view(reassignment.reassign_modal(made, "ann@acme.eu", "C0DEPLOYS"))
    assert_view(
        opening.chooser(data.draw(st.lists(st.text("ab-", min_size=1, max_size=60), max_size=200, unique=True)))
    )
    assert_within(modals.with_undo_button(data.draw(TEXTS), made), "message")
    assert_within(opening.opened(data.draw(TEXTS), made.url), "message")
    listed = home.Cards([made] * data.draw(st.integers(0, 30)), 99, False, [data.draw(TEXTS)])
    view = home.home(home.Inbox(listed, listed, listed, listed, may_ask=True))
    assert_view(view)


def test_a_form_of_any_file_is_within_slacks_limits() -> None:
    fields = {
        f"field_{n}": {"type": kind, "label": "L" * 75, "required": n % 2 == 0}
        | ({"values": [f"{v} " + "v" * 70 for v in range(250)]} if kind == "enum" else {})
        | ({"currency": "EUR"} if kind == "money" else {})
        for n, kind in enumerate(TYPES * 3)
    }
    file = Definition.model_validate(
        {
            "workflow": {
                "id": "a-very-long-id-of-a-workflow",
                "title": "t",
                "request": ["*"],
                "description": "d" * 500,
            },
            "fields": fields,
            "stage": [{"id": "go", "from": ["ann@acme.eu"]}],
        }
    )
    view = opening.form(file, opening.Form(file.workflow.id or "", "C0DEPLOYS"), Person("bo@acme.eu", "B" * 300))
    assert_view(view)
    assert len([block for block in view["blocks"] if block["type"] == "input"]) == len(fields) + 1  # on behalf of


def test_a_home_tab_of_long_texts_shows_fewer_requests(card: Card) -> None:
    fields = tuple(CardField(f"f{n}", "ラベル", "値" * 149, pinned=True) for n in range(8))
    choice = CardChoice("approve", "承認" * 70, "承認", "primary", confirm="承認" * 200)
    made = replace(card, title="題" * 300, fields=fields, choices=(choice, replace(choice, choice="reject")))
    listed = home.Cards([made] * 18, 40)
    view = home.home(home.Inbox(listed, listed, listed, listed))
    assert_view(view)
    assert "… and 24 more" not in words(view["blocks"])  # that would be all that a tab has room for
    assert "… and 3" in words(view["blocks"])


def test_all_pinned_fields_are_there_beside_long_texts(card: Card) -> None:
    short = tuple(CardField(f"f{n}", f"Pinned {n}", "v" * 40, pinned=True) for n in range(12))
    long = tuple(CardField(f"t{n}", f"Text {n}", "word " * 2_000, "long") for n in range(6))
    _, shown = blocks.card_message(shortened(replace(card, fields=(*long, *short)), LONGEST_VALUE))
    assert [n for n in range(12) if f"Pinned {n}" not in words(shown)] == []


def test_a_cut_pinned_value_names_its_whole_length_and_hash(card: Card) -> None:
    whole = "word " * 6_000
    field = CardField("plan", "Plan", whole, "long", pinned=True)
    _, shown = blocks.card_message(shortened(replace(card, fields=(field,)), LONGEST_VALUE))
    mark = f"… (30,000 characters, SHA-256 {hashlib.sha256(whole.encode()).hexdigest()[:32]})"
    assert [obj["text"] for obj in walk(shown) if mark in str(obj.get("text", ""))]
    assert words(shown).count("SHA-256") == 1
    assert "Open the full request" in words(shown)
