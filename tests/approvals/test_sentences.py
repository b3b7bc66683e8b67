"""What people read: each verdict's sentence, word for word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from approvals_bot.approvals import text as sentences
from approvals_bot.approvals.ballot import Missing, Verdict, Word

NINE = datetime(2026, 3, 2, 9, 42, tzinfo=UTC)

SAID = [
    (
        Verdict("counted", have=1, need=2, missing=(Missing("SRE", 1),)),
        "Counted: 1 of 2. Waiting for one more from SRE.",
    ),
    (
        Verdict("counted", have=1, need=4, missing=(Missing("Finance", 1), Missing("SRE", 2))),
        "Counted: 1 of 4. Waiting for one more from Finance and two more from SRE.",
    ),
    (Verdict("counted", "reject", have=1, need=2), "Counted: 1 of 2 rejections that end it."),
    (
        Verdict("counted", "changes"),
        "Counted: you ask for changes. You are asked again once the request has been edited.",
    ),
    (Verdict("decided", standing="filled"), "Approved. Your vote decided it, and everyone is told."),
    (Verdict("decided", standing="rejected"), "Rejected. Your vote decided it, and everyone is told."),
    (Verdict("already_voted", "approve"), "You have already approved this, and it counts. Nothing was changed."),
    (
        Verdict("changed", "reject", have=1, need=2),
        "Changed: your vote is now “Reject”. 1 of 2 rejections that end it.",
    ),
    (
        Verdict("changed", "approve", have=1, need=2, missing=(Missing("SRE", 1),)),
        "Changed: your vote is now “Approve”. 1 of 2 so far. Waiting for one more from SRE.",
    ),
    (
        Verdict("taken_back", "take_back", have=0, need=1, missing=(Missing("SRE", 1),)),
        "Taken back: your vote no longer counts. 0 of 1 so far. Waiting for one more from SRE.",
    ),
    (
        Verdict("not_an_approver"),
        "You are not one of the people who are asked here, so your vote can't count. Nothing was changed.",
    ),
    (Verdict("own_request"), "You asked for this yourself, so somebody else decides."),
    (
        Verdict("group_unknown"),
        "Your group could not be checked just now, so your vote could not count. Nothing was changed. "
        "Please try again.",
    ),
    (
        Verdict("request_changed", was="a" * 64, now="b" * 64),
        "The request has changed since you looked (aaaaaaaaaaaa → bbbbbbbbbbbb), so your vote was not counted. "
        "Look again, then vote.",
    ),
    (
        Verdict("invalid", detail="Please say why, in a comment."),
        "Please say why, in a comment. Nothing was changed.",
    ),
]


@pytest.mark.parametrize(("verdict", "text"), SAID, ids=lambda given: given.word if isinstance(given, Verdict) else "")
def test_a_verdict_has_one_sentence(verdict: Verdict, text: str) -> None:
    assert sentences.say(verdict) == text


def test_no_verdict_is_without_a_sentence() -> None:
    said = {verdict.word for verdict, _ in SAID}
    assert said | {"already_decided", "withdrawn", "expired"} == set(get_args(Word))


def test_a_vote_that_opens_the_next_stage_says_which() -> None:
    verdict = Verdict("counted", standing="filled", have=2, need=2)
    assert sentences.say(verdict, "Finance") == "Counted: 2 of 2. Next: Finance."


def test_who_comes_late_reads_who_decided_and_when_in_her_own_zone() -> None:
    later = NINE + timedelta(minutes=5)
    assert sentences.ended("approved", "Ann Ode", NINE, later, "Europe/Berlin") == (
        "Already decided by Ann Ode at 10:42. Nothing was changed."
    )
    assert sentences.ended("approved", "Ann Ode", NINE, later, "nowhere") == (
        "Already decided by Ann Ode at 09:42 UTC. Nothing was changed."
    )
    assert sentences.ended("rejected", "", NINE, NINE + timedelta(days=1), "UTC") == (
        "Already decided at 09:42 UTC on 2 March. Nothing was changed."
    )
    assert sentences.ended("expired", "", NINE, NINE + timedelta(days=365), "UTC") == (
        "The time to decide this ended at 09:42 UTC on 2 March 2026. Nothing was changed."
    )
    assert sentences.ended("withdrawn", "Bo Lund", NINE, later, "UTC") == (
        "Withdrawn by Bo Lund at 09:42 UTC, so there is nothing left to decide. Nothing was changed."
    )
