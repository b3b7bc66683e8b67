"""Message texts: the reply for each verdict, word for word."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Rejection, Reply, Word, answer_of, read_answer
from approvals_bot.approvals.ballot import Missing, tally
from approvals_bot.approvals.card_model import CardDelivery, CardSeat, FollowUp
from approvals_bot.approvals.text import reply_text

NINE = datetime(2026, 3, 2, 9, 42, tzinfo=UTC)

SAID = [
    (
        Reply("counted", params=tally("approve", "open", 1, 2, [Missing("SRE", 1)])),
        "Counted: 1 of 2. Waiting for one more from SRE.",
    ),
    (
        Reply("counted", params=tally("approve", "open", 1, 4, [Missing("Finance", 1), Missing("SRE", 2)])),
        "Counted: 1 of 4. Waiting for one more from Finance and two more from SRE.",
    ),
    (Reply("counted", params=tally("reject", "open", 1, 2)), "Counted: 1 of 2 rejections needed to end it."),
    (
        Reply("counted", params=tally("changes", "changes_requested", 0, 1)),
        "Counted: you requested changes. You'll be asked again once the request has been edited.",
    ),
    (
        Reply("decided", params=tally("approve", "filled", 1, 1)),
        "Approved. Everyone involved has been notified.",
    ),
    (
        Reply("decided", params=tally("reject", "rejected", 0, 1)),
        "Rejected. Everyone involved has been notified.",
    ),
    (
        Reply("already_voted", params=tally("approve", "open", 1, 2)),
        "You've already approved this, and your vote counts. Nothing was changed.",
    ),
    (
        Reply("changed", params=tally("reject", "open", 1, 2)),
        "Changed: your vote is now “Reject”. 1 of 2 rejections needed to end it.",
    ),
    (
        Reply("changed", params=tally("approve", "open", 1, 2, [Missing("SRE", 1)])),
        "Changed: your vote is now “Approve”. 1 of 2 so far. Waiting for one more from SRE.",
    ),
    (
        Reply("taken_back", params=tally("take_back", "open", 0, 1, [Missing("SRE", 1)])),
        "Undone: your vote no longer counts. 0 of 1 so far. Waiting for one more from SRE.",
    ),
    (
        Reply("not_an_approver"),
        "You're not an approver for this request. Nothing was changed.",
    ),
    (Reply("own_request"), "You can't approve your own request."),
    (
        Reply("group_unknown"),
        "We couldn't check your group just now, so your vote wasn't counted. Nothing was changed. Please try again.",
    ),
    (
        Reply("request_changed", params={"was": "a" * 64, "now": "b" * 64}),
        "The request has changed since you opened it (aaaaaaaaaaaa → bbbbbbbbbbbb), so your vote wasn't counted. "
        "Check it, then vote again.",
    ),
    (Reply("invalid", code="comment_missing"), "Please say why in a comment. Nothing was changed."),
    (
        Reply(
            "invalid", rejections=(Rejection(("count",), "below_min", {"min": "1"}), Rejection(("why",), "required"))
        ),
        "count: must be at least 1; why: is required. Nothing was changed.",
    ),
    (Reply("edited"), "Saved. The votes so far still count."),
    (
        Reply("reassigned", params={"person": "Bo", "instead_of": "Ann"}),
        "Bo now decides instead of Ann and has been notified.",
    ),
    (Reply("added", params={"person": "Bo", "instead_of": ""}), "Bo was added as an approver and has been notified."),
    (Reply("commented"), "Your comment was added. The others involved will be notified."),
    (Reply("claimed"), "You're on it, and everybody can see that. It's no vote yet."),
    (Reply("released"), "You're no longer on it, and everybody can see that."),
    (Reply("reminded", params={"people": ["Ann"]}), "Reminded Ann."),
    (Reply("reminded", params={"people": list("ABCDEFGH")}), "Reminded A, B, C, D, E, F and 2 more."),
    (
        Reply("snoozed", params={"at": NINE.isoformat(), "now": NINE.isoformat(), "zone": "Europe/Berlin"}),
        "No reminders for you until 10:42. The deadline stays as it is.",
    ),
    (
        Reply("received"),
        "Your choice is saved and is being counted. Check again in a moment; you don't need to press twice.",
    ),
    (Reply("unknown"), "This request can't be found. Nothing was changed."),
    (
        Reply("busy"),
        "Too much is waiting to be counted on this request. Nothing was changed. Please try again in a few minutes.",
    ),
    (Reply("bounced"), ""),
    (Reply("tried", changed=True), "It is being tried now."),
    (Reply("tried", code="decided_before_trying"), "The request is decided, so nothing was sent."),
    (Reply("revoked", changed=True), "The grant ends now and is being removed."),
    (Reply("revoked", code="grant_over", params={"state": "ended"}), "The grant is over already: ended."),
    (
        Reply("extending", changed=True),
        "The approvers are asked whether the grant may last longer. Until they approve, its end stays.",
    ),
    (Reply("no_grant"), "This request has no grant that could end. Nothing was changed."),
]


@pytest.mark.parametrize(("reply", "text"), SAID, ids=lambda given: given.verdict if isinstance(given, Reply) else "")
def test_replies_have_these_texts(reply: Reply, text: str) -> None:
    assert reply.text == text
    assert read_answer(json.dumps(answer_of(reply)).encode()) == reply, "it comes whole through the webhook"


def test_every_verdict_has_a_text() -> None:
    said = {reply.verdict for reply, _ in SAID}
    assert said | {"already_decided", "withdrawn", "expired"} == set(get_args(Word))


def test_a_vote_that_opens_the_next_stage_names_it() -> None:
    params = {**tally("approve", "filled", 2, 2), "next_stage": "Finance"}
    assert Reply("counted", params=params).text == "Counted: 2 of 2. Next: Finance."


def ended(state: str, by: str, now: datetime, zone: str) -> str:
    moment = {"at": NINE.isoformat(), "now": now.isoformat(), "zone": zone}
    return reply_text("ended", {"state": state, "by": by, **moment})


def test_late_replies_use_the_readers_zone() -> None:
    later = NINE + timedelta(minutes=5)
    assert ended("approved", "Ann Ode", later, "Europe/Berlin") == (
        "Already decided by Ann Ode at 10:42. Nothing was changed."
    )
    assert ended("approved", "Ann Ode", later, "nowhere") == (
        "Already decided by Ann Ode at 09:42 UTC. Nothing was changed."
    )
    assert ended("rejected", "", NINE + timedelta(days=1), "UTC") == (
        "Already decided at 09:42 UTC on 2 March. Nothing was changed."
    )
    assert ended("expired", "", NINE + timedelta(days=365), "UTC") == (
        "This request expired at 09:42 UTC on 2 March 2026. Nothing was changed."
    )
    assert (
        ended("withdrawn", "Bo Lund", later, "UTC")
        == "This request was withdrawn by Bo Lund at 09:42 UTC. Nothing was changed."
    )


@pytest.mark.parametrize(
    ("attempts", "text"),
    [
        (1, "✓ erp called: 200"),
        (2, "✓ erp called: 200, second try"),
        (21, "✓ erp called: 200, after 21 tries"),
    ],
)
def test_a_finished_follow_up_says_how_many_tries_it_took(attempts: int, text: str) -> None:
    assert card_text.follow_up(FollowUp("call erp", "done", attempts, status=200, target="erp")) == text


def test_a_seat_begins_with_a_capital_but_an_address_stays() -> None:
    labels = ("release managers", "di@acme.eu, cy or Eve", "Ann Ode")
    said = [card_text.seat_label(CardSeat(label, 1, ())) for label in labels]
    assert said == ["Release managers", "di@acme.eu, cy or Eve", "Ann Ode"]


@pytest.mark.parametrize(
    ("copy", "text"),
    [
        (CardDelivery("#ops", "slack", "delivered", 1), "✓ #ops in Slack"),
        (CardDelivery("#ops", "slack", "delivered", 3), "✓ #ops in Slack, third try"),
        (
            CardDelivery("a@acme.eu", "email", "retrying", 2, "no route"),
            "⏳ a@acme.eu by email, will be tried again: no route",
        ),
        (CardDelivery("a@acme.eu", "email", "sending"), "⏳ a@acme.eu by email, on its way"),
        (CardDelivery("a@acme.eu", "email", "not_delivered", 2, "full"), "⚠ Not delivered to a@acme.eu by email: full"),
        (CardDelivery("room", "chat", "delivered", 1), "✓ room by chat"),
    ],
)
def test_each_message_has_its_state_in_words(copy: CardDelivery, text: str) -> None:
    assert card_text.delivery(copy) == text
