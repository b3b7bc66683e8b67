"""An open request of a run that has stalled, failed or been cut off: what every channel says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.acts import Vote
from approvals_bot.approvals.apply import late_reply
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.port import EMAIL, Dispatch, ToPerson
from approvals_bot.approvals.request import Request, dumped
from approvals_bot.channels.email.letter import write
from approvals_bot.channels.slack.blocks import card_message
from approvals_bot.durable.engine import RunRecord
from approvals_bot.people import Person
from approvals_bot.service.act import received
from approvals_bot.service.read import api_request, request_of

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
ANN = Person("ann@acme.eu", "Ann Ode")
OPEN = Request(
    run_id="run_1", hook_id="hook_1", workflow="deploy", definition="", title="Deploy", requester="bo@acme.eu",
    asked_at=NINE,
)  # fmt: skip


def request(status: Any, ending: dict[str, Any] | None = None) -> Request:
    """Return the open request as a reader of the row of its run sees it."""
    ended_at = NINE if status in ("completed", "failed", "cancelled") else None
    row = RunRecord.new("run_1", "deploy", "approval", None, NINE, kind="request")
    view = request_of(row._replace(status=status, ended_at=ended_at, ending=ending, parts=[dumped(OPEN)]))
    assert view is not None
    return view


def said(view: Request) -> list[str]:
    """Return what Slack, a mail and the API say about it, and the reply to a vote."""
    card = card_of(view, None, NINE)
    letter = write(Dispatch("run_1-1-1", ToPerson(EMAIL, ANN), card), NINE)
    reply = received(view, Vote(ANN.address)) if view.is_open else late_reply(view, Vote(ANN.address), NINE)
    text, blocks = card_message(card)
    return [
        text + json.dumps(blocks, ensure_ascii=False),
        letter.subject + letter.text,
        letter.html,
        json.dumps(api_request(view)),
        reply.text,
    ]


FAILED = {"error": {"type": "OSError", "message": "the disk is full"}}


@pytest.mark.parametrize(
    ("status", "ending"),
    [("running", None), ("stalled", None), ("failed", FAILED), ("cancelled", {"reason": "cleaning up"})],
)
def test_nobody_withdrew_it_in_any_channel(status: Any, ending: Any) -> None:
    for text in said(request(status, ending)):
        assert "Withdrawn" not in text
        assert "withdrawn" not in text.replace(".withdrawn", "")  # a class of the mail's stylesheet


def test_a_stalled_request_waits_for_a_fix_and_keeps_votes() -> None:
    view = request("stalled")
    slack, text, html, _, reply = said(view)
    for shown in (slack, text, html):
        assert "Waiting for a fix" in shown
        assert "Votes are kept meanwhile, and count once it is fixed" in shown, "there is none yet"
    assert "Your vote is kept and counts once it is fixed" in reply
    assert received(view, Vote(ANN.address)).verdict == "received"
    assert card_text.state(card_of(view, None, NINE)) == "⚠ Waiting for a fix"
    assert view.is_open, "it still takes votes"


def test_a_failed_request_says_that_an_error_ended_it() -> None:
    slack, text, html, shown, reply = said(request("failed", FAILED))
    for each in (slack, text, html):
        assert "⚠ Failed" in each
        assert "An error ended the workflow" in each
        assert "the disk is full" not in each, "an error's message is the operator's"
    assert json.loads(shown)["outcome"] == "cancelled"
    assert reply == "An error ended this request at 09:00 UTC, and nobody decided it. Nothing was changed."


def test_a_cancelled_run_shows_its_request_as_cancelled() -> None:
    slack, text, _, shown, reply = said(request("cancelled", {"reason": "cleaning up"}))
    for each in (slack, text):
        assert "✖ Cancelled" in each
        assert "cleaning up" in each
    assert json.loads(shown)["state"] == "cancelled"
    assert reply == "This request was cancelled at 09:00 UTC. Nothing was changed."
