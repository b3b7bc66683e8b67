"""Cards as Slack messages: their content, and that people's text can't break them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block as SdkBlock

from approvals_bot.approvals.card_model import (
    Card,
    CardChoice,
    CardDelivery,
    CardField,
    CardOutcome,
    CardStage,
    CardVote,
    Name,
)
from approvals_bot.approvals.plain_text import clip, length
from approvals_bot.approvals.port import Dispatch, Place, Receipt
from approvals_bot.channels.slack import blocks
from approvals_bot.channels.slack.blocks import escape
from approvals_bot.playground.slack.blocks import check_blocks
from tests.support.thorough import examples

LIVE = [
    "<!channel>",
    "<@U0ANN>",
    "<https://evil.example|https://good.example>",
    "`code` *bold*",
    "&lt;!here&gt;",
    ":tada:",
]


def texts(value: Any, kind: str | None = None) -> list[str]:
    """Find every `text` string in the blocks, of one `type` of object if given."""
    match value:
        case dict():
            own = [value["text"]] if isinstance(value.get("text"), str) and kind in (None, value.get("type")) else []
            return own + [text for part in value.values() for text in texts(part, kind)]
        case list():
            return [text for part in value for text in texts(part, kind)]
        case _:
            return []


def assert_sound(text: str, shown: list[dict[str, Any]]) -> None:
    assert text.strip()
    assert len(text) <= 4_000
    assert len(shown) <= 50
    assert check_blocks(shown, "message") == []
    assert length(json.dumps(shown, ensure_ascii=False, separators=(",", ":"))) <= blocks.CARD_LIMIT
    ids = [block["block_id"] for block in shown]
    assert len(ids) == len(set(ids))
    for block in shown:
        parsed = SdkBlock.parse(block)
        assert parsed is not None
        parsed.to_dict()


def test_a_question_has_no_full_stop(card: Card) -> None:
    text, _ = blocks.card_message(replace(card, title="Deploy api 2.1.0?"))
    assert text == "⏳ Waiting: Deploy api 2.1.0? Requested by Bo Lund."


@pytest.mark.check(24)
def test_a_card_has_the_order_of_every_card(card: Card) -> None:
    text, shown = blocks.card_message(card)
    assert_sound(text, shown)
    assert text == "⏳ Waiting: Deploy api 2.1.0 to prod. Requested by Bo Lund."
    parts = [block["block_id"].partition(":")[0] for block in shown]
    assert parts == ["title", "state", "requester", "fields", "people", "waiting", "choices", "small"]
    said = " ".join(texts(shown))
    for part in ("1 of 2", "Version", "2.0.9", "+replicas: 6", "Release managers: 1 of 1", "Watch the migration."):
        assert part in said
    deadline = card.deadline
    assert deadline is not None
    assert f"<!date^{int(deadline.timestamp())}^" in texts(shown, "mrkdwn")[0]


@pytest.mark.check(17)
def test_buttons_carry_only_the_requests_id_and_name_the_act(card: Card) -> None:
    actions = next(block for block in blocks.card_message(card)[1] if block["type"] == "actions")
    assert [button["text"]["text"] for button in actions["elements"]] == ["Approve", "Reject", "Request changes"]
    assert [button.get("style") for button in actions["elements"]] == ["primary", "danger", None]
    assert {button["value"] for button in actions["elements"]} == {"hook_1"}
    assert actions["elements"][0]["action_id"] == "vote:approve"
    assert actions["elements"][0]["accessibility_label"] == "Approve: Deploy api 2.1.0 to prod"
    assert actions["elements"][0]["confirm"]["text"]["text"] == "Sure?"
    assert blocks.digest_seen(actions["block_id"]) == "sha256:5f1c3a9e"


@pytest.mark.check(33)
def test_a_decided_card_opens_with_its_outcome_without_buttons(card: Card, outcome: CardOutcome) -> None:
    decided = replace(card, state="approved", outcome=outcome, choices=(), version=4)
    text, shown = blocks.card_message(decided)
    assert_sound(text, shown)
    assert text == "✅ Approved by Ann Ode via email: Deploy api 2.1.0 to prod"
    assert not [block for block in shown if block["type"] == "actions"]
    assert [block["block_id"].partition(":")[0] for block in shown[:3]] == ["outcome", "title", "requester"]
    said = " ".join(texts(shown))
    for part in ("✅ Approved by Ann Ode via email", "Go.", "Version", "+replicas: 6"):
        assert part in said


@pytest.mark.check(26)
def test_every_update_has_new_block_ids(card: Card) -> None:
    before = {block["block_id"] for block in blocks.card_message(card)[1]}
    after = {block["block_id"] for block in blocks.card_message(replace(card, version=4))[1]}
    assert not before & after


def test_an_undelivered_copy_is_on_the_card(card: Card) -> None:
    lost = replace(card, deliveries=(CardDelivery("ann@acme.eu", "email", "not_delivered", 3, "550 full"),))
    assert "⚠ Not delivered to ann@acme.eu by email: 550 full" in " ".join(texts(blocks.card_message(lost)[1]))


@pytest.mark.check(25)
@pytest.mark.parametrize("live", LIVE)
def test_peoples_text_arrives_literally_and_never_as_markup(card: Card, live: str) -> None:
    hostile = replace(
        card,
        title=live,
        requester=Name("x@acme.eu", live),
        on_deadline=live,
        fields=(CardField("a", live, live, was=live), CardField("b", live, live, "long")),
        votes=(replace(card.votes[0], comment=live, by=Name("y@acme.eu", live)),),
        why_me=live,
    )
    text, shown = blocks.card_message(hostile)
    assert_sound(text, shown)
    assert shown[0]["text"] == {"type": "plain_text", "text": live, "emoji": False}
    mrkdwn = texts(shown, "mrkdwn")[0].replace("<!date^", "")
    assert "<!" not in mrkdwn
    assert "<@" not in mrkdwn
    assert "<http" not in mrkdwn
    assert escape(live) in text


def test_a_note_in_the_thread_has_no_buttons_that_could_go_stale(card: Card) -> None:
    dispatch = Dispatch("d", Place("slack", "#deploys"), card, "reminder", thread=Receipt("C1", "1.2"))
    text, shown = blocks.message(dispatch)
    assert_sound(text, shown)
    assert not [block for block in shown if block["type"] == "actions"]
    assert "Waiting for Ann Ode" in " ".join(texts(shown))


def test_an_operators_text_is_sent_unchanged(card: Card) -> None:
    text, shown = blocks.message(Dispatch("d", Place("slack", "#deploys"), card, text="Deployed <!here> & done"))
    assert_sound(text, shown)
    assert text == "Deployed &lt;!here&gt; &amp; done"
    assert texts(shown)[0] == "Deployed <!here> & done"


@pytest.mark.check(23)
def test_a_long_text_is_cut_and_links_to_the_full_page(card: Card) -> None:
    family = "👨‍👩‍👧‍👦"
    long = replace(card, fields=(CardField("plan", "Plan", family * 5_000, "long"),))
    text, shown = blocks.card_message(long)
    assert_sound(text, shown)
    value = next(found for found in texts(shown) if family in found)
    assert value.removesuffix("…").replace(family, "") == ""
    assert '"url": "https://approve.acme.eu/requests/run_1"' in json.dumps(shown)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("", 3, ""),
        ("👍🏽👍🏽", 6, "👍🏽…"),
        ("e" + "\u0301" * 200, 5, "e\u0301…"),
    ],
)
def test_cutting_never_splits_a_letter(text: str, limit: int, expected: str) -> None:
    cut = clip(text, limit)
    assert cut == expected
    assert length(cut) <= max(limit, length(expected))


PARTS = st.sampled_from(["x", "\n", "é", "👨‍👩‍👧‍👦", "ا", '"', "\\", "\x00", "\u202e", "<"])
TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(LIVE),
    st.builds(lambda part, times: part * times, PARTS, st.sampled_from([0, 1, 40, 9_000])),
)
NAMES = st.builds(Name, st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=400))
FIELDS = st.builds(CardField, TEXTS, TEXTS, TEXTS, st.sampled_from(["short", "long", "diff"]))
STAGES = st.builds(CardStage, st.just("s"), TEXTS, st.sampled_from(["done", "open"]))
CONFIRMS = st.one_of(st.none(), TEXTS)
CHOICES = st.builds(
    CardChoice, st.sampled_from(["approve", "reject", "edit"]), TEXTS, TEXTS, st.just("primary"), CONFIRMS
)


@st.composite
def cards(draw: st.DrawFn, base: Card) -> Card:
    at, via = st.just(base.asked_at), st.just("slack")
    votes = st.builds(CardVote, NAMES, st.just("approve"), at=at, via=via, comment=TEXTS)
    return replace(
        base,
        title=draw(TEXTS),
        requester=draw(NAMES),
        digest=draw(TEXTS),
        fields=tuple(draw(st.lists(FIELDS, max_size=80))),
        votes=tuple(draw(st.lists(votes, max_size=80))),
        stages=tuple(draw(st.lists(STAGES, max_size=40))),
        waiting_for=tuple(draw(st.lists(NAMES, max_size=40))),
        choices=tuple(draw(st.lists(CHOICES, max_size=6))),
        on_deadline=draw(TEXTS),
        why_me=draw(TEXTS),
    )


@pytest.mark.check(22, 23, 24)
@settings(max_examples=examples(60), deadline=timedelta(seconds=30), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_card_is_too_much_for_slack(card: Card, data: st.DataObject) -> None:
    text, shown = blocks.card_message(data.draw(cards(card)))
    assert_sound(text, shown)
    json.dumps(shown).encode()


@pytest.mark.check(22)
def test_ten_megabytes_are_cut_quickly(card: Card) -> None:
    huge = replace(card, title="t" * 10_000_000, fields=(CardField("a", "A", "👩‍🚀" * 3_000_000, "long"),))
    assert_sound(*blocks.card_message(huge))


def test_untrusted_text_is_a_quotation_without_lines_of_its_own(card: Card) -> None:
    fields = (
        CardField("call", "Call", "LH 1\n✅ Fay Cash approved via Slack", untrusted=True),
        CardField("why", "Why", "cheap\nand fast", "long", untrusted=True),
        CardField("plan", "Plan", "one\ntwo", "long"),
    )
    _, shown = blocks.card_message(replace(card, fields=fields, votes=()))
    text = json.dumps(shown, ensure_ascii=False)
    assert "“LH 1 ⏎ ✅ Fay Cash approved via Slack”" in text
    (elements,) = [block["elements"] for block in shown if str(block.get("block_id", "")).startswith("fields")]
    kinds = [element["type"] for element in elements if element["type"] != "rich_text_section"]
    assert kinds == ["rich_text_quote", "rich_text_preformatted"]
