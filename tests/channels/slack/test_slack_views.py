"""Modals and the Home tab are valid for Slack, whatever people typed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals_bot.approvals.acts import Rejection, Reply
from approvals_bot.approvals.card_model import Card, CardChoice, CardOutcome, FormField, Name
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.channels.slack import home as home_tab
from approvals_bot.channels.slack import modals as views
from approvals_bot.playground.slack.blocks import check_view
from tests.support.thorough import examples

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
CARD = Card(
    run_id="run_1",
    hook_id="hook_1",
    workflow="deploy",
    version=3,
    state="waiting",
    title="Deploy api 2.1.0 to prod",
    requester=Name("bo@acme.eu", "Bo Lund"),
    asked_at=NOW,
    digest="sha256:5f1c",
    deadline=NOW + timedelta(hours=1),
    choices=(CardChoice("approve", "Approve: Deploy", "Approve", "primary"),),
)
REJECT = CardChoice("reject", "Reject: Deploy", "Reject", "danger", comment="required")
OPENED = views.Opened("hook_1", "reject", "sha256:5f1c", "C0DEPLOYS")

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
    "person",
]
TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(["<!channel>", "x" * 9_000, "👩‍🚀" * 500, "\x00", " "]))
NAMES = st.text("abcdefghij_", min_size=1, max_size=30)
ASKS = st.builds(
    FormField,
    NAMES,
    TEXTS,
    st.builds(
        FieldSpec.model_construct,
        type=st.sampled_from(TYPES),
        required=st.booleans(),
        values=st.lists(TEXTS, unique=True, max_size=120).map(tuple),
        hint=st.none() | TEXTS,
        example=st.none() | TEXTS,
    ),
    TEXTS,
)


@pytest.mark.check(17)
def test_a_required_reason_is_asked_for_and_the_view_has_no_secret() -> None:
    view = views.vote_modal(CARD, REJECT, OPENED)
    assert check_view(view) == []
    (comment,) = [block for block in view["blocks"] if block["type"] == "input"]
    assert (comment["block_id"], comment["optional"]) == ("comment", False)
    assert comment["label"]["text"] == "Why are you rejecting this?"
    assert json.loads(view["private_metadata"]) == {"h": "hook_1", "c": "reject", "d": "sha256:5f1c", "ch": "C0DEPLOYS"}
    assert views.Opened.load(view["private_metadata"]) == OPENED


@pytest.mark.check(22)
@settings(max_examples=examples(80), suppress_health_check=list(HealthCheck), deadline=None)
@given(asks=st.lists(ASKS, max_size=12, unique_by=lambda ask: ask.name), title=TEXTS, short=TEXTS)
def test_slack_accepts_every_modal(asks: list[FormField], title: str, short: str) -> None:
    choice = replace(REJECT, short=short, asks=tuple(asks))
    view = views.vote_modal(replace(CARD, title=title), choice, OPENED)
    assert check_view(view) == []
    assert len(json.dumps(view)) < 250_000


@pytest.mark.check(22)
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(title=TEXTS, name=TEXTS, count=st.integers(0, 40))
def test_slack_accepts_every_home_tab(title: str, name: str, count: int) -> None:
    card = replace(CARD, title=title, requester=Name("x", name))
    ended = replace(card, choices=(), outcome=CardOutcome("approved", Name("x", name), at=NOW, via="slack"))
    found = home_tab.Cards([card] * count, count, True, [title])
    over = home_tab.Cards([ended] * count, 5 * count, False)
    assert check_view(home_tab.home(home_tab.Inbox(found, found, over, found))) == []
    assert check_view(views.reply_modal(title)) == []
    assert check_view(home_tab.stranger_home("You are a guest here.")) == []


def test_input_is_read_by_the_kind_of_element() -> None:
    asks = [
        FormField(name, name, FieldSpec.model_validate(kind))
        for name, kind in (("code", "string"), ("ok", "boolean"), ("on", "date"), ("at", "datetime"))
    ]
    values = {
        "comment": {"value": {"type": "plain_text_input", "value": "Fine."}},
        "ask:code": {"value": {"type": "plain_text_input", "value": "AB"}},
        "ask:ok": {"value": {"type": "static_select", "selected_option": {"value": "false"}}},
        "ask:on": {"value": {"type": "datepicker", "selected_date": "2026-11-05"}},
        "ask:at": {"value": {"type": "datetimepicker", "selected_date_time": 1793872800}},
        "ask:foreign": {"value": {"type": "plain_text_input", "value": "not asked for"}},
    }
    comment, answers = views.filled_in(values, asks)
    assert comment == "Fine."
    assert answers == {"code": "AB", "ok": "false", "on": "2026-11-05", "at": "2026-11-05T10:00:00Z"}


def test_empty_and_broken_inputs_are_left_out() -> None:
    asks = [
        FormField("a", "A", FieldSpec(type="string")),
        FormField("b", "B", FieldSpec(type="enum", values=("x",))),
        FormField("c", "C", FieldSpec(type="string")),
    ]
    values = {"ask:a": {"value": {"value": None}}, "ask:b": {"value": {"selected_option": None}}, "ask:c": None}
    assert views.filled_in(values, asks) == ("", {})


REQUIRED = Rejection(("code",), "required")
TOO_SMALL = Rejection(("cost",), "below_min", {"min": "1"})


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("invalid", rejections=(REQUIRED,)), {"ask:code": "Is required. Nothing was changed."}),
        (
            Reply("invalid", rejections=(REQUIRED, TOO_SMALL)),
            {
                "ask:code": "Is required. Nothing was changed.",
                "ask:cost": "Must be at least 1. Nothing was changed.",
            },
        ),
        (
            Reply("invalid", code="comment_missing"),
            {"comment": "Please say why in a comment. Nothing was changed."},
        ),
        (
            Reply("invalid", rejections=(Rejection(("other",), "unknown_field"),)),
            {"comment": "other: no such field. Nothing was changed."},
        ),
    ],
)
def test_errors_are_shown_where_they_belong(reply: Reply, expected: dict[str, str]) -> None:
    asks = [
        FormField("code", "Budget code", FieldSpec(type="string")),
        FormField("cost", "Cost", FieldSpec(type="integer")),
    ]
    values: dict[str, object] = {"ask:code": {}, "ask:cost": {}, "comment": {}}
    assert views.complaint(reply, values, asks) == expected
    assert views.complaint(reply, {}, asks) is None
