"""Texts about time and progress, as people would say them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card_model import Card, CardDelivery, CardGrant, CardStage, GrantState, Name

NOW = datetime(2026, 11, 4, 10, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("0:00:00", "now"),
        ("0:00:10", "in less than a minute"),
        ("0:00:59", "in 1 minute"),
        ("0:09:58", "in 10 minutes"),
        ("0:59:59", "in 1 hour"),
        ("1:00:00", "in 1 hour"),
        ("1:31:00", "in 1½ hours"),
        ("3:30:00", "in 3½ hours"),
        ("3:59:58", "in 4 hours"),
        ("4:00:00", "in 4 hours"),
        ("23:59:58", "in 24 hours"),
        ("30:00:00", "in 30 hours"),
        ("47:59:58", "in 2 days"),
        ("119:59:58", "in 5 days"),
    ],
)
def test_the_time_left_reads_as_people_would_say_it(left: str, said: str) -> None:
    hours, minutes, seconds = map(int, left.split(":"))
    assert card_text.until(NOW + timedelta(hours=hours, minutes=minutes, seconds=seconds), NOW) == said


@given(st.integers(0, 60 * 86_400))
def test_a_rounded_span_is_never_far_off(seconds: int) -> None:
    """Off by a third at most, and never by more than half a day."""
    said, unit = (card_text.span(timedelta(seconds=seconds)).replace("less than a minute", "0 minutes")).split()
    size = {"minute": 60, "hour": 3_600, "day": 86_400}[unit.rstrip("s")]
    span = (float(said.replace("½", ".5"))) * size
    assert abs(span - seconds) <= max(45, min(seconds / 3, 43_200))


CARD = Card(
    run_id="run_1",
    hook_id="hook_1",
    workflow="deploy",
    version=1,
    state="changes_requested",
    title="Deploy",
    requester=Name("bo@acme.eu", "Bo Lund"),
    asked_at=datetime(2026, 3, 2, tzinfo=UTC),
    digest="",
)


@pytest.mark.parametrize(("open_at", "row"), [(1, "✓ 0 → ● 1 → ○ 2 → …"), (15, "… → ✓ 14 → ● 15 → ○ 16 → …")])
def test_of_many_stages_those_around_the_open_one_are_shown(open_at: int, row: str) -> None:
    def state(at: int) -> Any:
        return "done" if at < open_at else "open" if at == open_at else "ahead"

    stages = tuple(CardStage(str(at), str(at), state(at), ()) for at in range(30))
    assert card_text.steps(replace(CARD, stages=stages), most=3) == row


def test_a_returned_request_does_not_claim_to_have_changed() -> None:
    assert card_text.changed(CARD) == ("Changes requested. You'll be asked again once Bo Lund has edited the request.")
    assert card_text.changed(replace(CARD, state="waiting")) == "The request has changed. Please check it again."


@pytest.mark.parametrize(
    ("retried", "said"),
    [
        ("", "⏳ #deploys in Slack, will be tried again: wait"),
        ("update", "⏳ The card for #deploys in Slack shows an older state; its update will be tried again: wait"),
        ("reply", "⏳ #deploys in Slack has the card; a message about it will be tried again: wait"),
    ],
)
def test_a_delivery_says_what_will_be_tried_again(retried: Any, said: str) -> None:
    held = CardDelivery("#deploys", "slack", "held", retried="update")
    assert card_text.delivery(held).endswith("shows an older state; its update waits for its turn")
    assert card_text.delivery(CardDelivery("#deploys", "slack", "retrying", 2, "wait", retried=retried)) == said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("active", "🔑 Active until"),
        ("ended", "⌛ Ended"),
        ("revoked", "✖ Revoked by Bo Lund (“done ⏎ with it”)"),
        ("overdue", "⚠ Not removed yet, ended by Bo Lund (“done ⏎ with it”): it answered 503; still trying"),
        ("not_given", "⚠ Not given: it answered 503"),
    ],
)
def test_a_grants_line_says_what_became_of_it(state: GrantState, said: str) -> None:
    error = "it answered 503" if state in ("overdue", "not_given") else ""
    grant = CardGrant(state, NOW, Name("bo@acme.eu", "Bo Lund"), "done\nwith it", error)
    assert card_text.grant(grant) == said
