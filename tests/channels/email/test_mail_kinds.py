"""Mails of every kind: their subjects, and that both parts are complete and read well."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from approvals_bot.channels.email.letter import Letter
from tests.support.mail_kinds import LINK, dispatches, mails, notices

RAW = re.compile(
    r"\b(run_1|hook_1|rule:0|app:\w+|grant:\w+|None|P?T\d+[HMS])\b|\d{4}-\d\d-\d\dT|\b1 (requests|votes)\b"
)

SUBJECTS = {
    "request": "Please decide: Deploy api 2.1.0 to prod",
    "voted-by-reply": "Please decide: Deploy api 2.1.0 to prod",  # in practice, "Re: " and the thread's
    "changes-requested": "Changes requested: Deploy api 2.1.0 to prod",
    "code": "Your code: Deploy api 2.1.0 to prod",
    "approved": "Approved: Deploy api 2.1.0 to prod",
    "expired": "Expired: Deploy api 2.1.0 to prod",
    "break-glass": "Approved: Deploy api 2.1.0 to prod",
    "grant-overdue": "Not removed yet: Read access to the billing database for Bo Lund",
    "grant-ended": "Ended: Read access to the billing database for Bo Lund",
    "sign-in-code": "Your code: Sign in to Approvals",
    "digest": "4 requests are waiting for you",
}


@pytest.fixture
def letters(card: Card, outcome: CardOutcome, now: datetime) -> dict[str, Letter]:
    return mails(card, outcome, now)


def test_every_subject_says_what_the_mail_is_about(letters: dict[str, Letter]) -> None:
    assert {name: letters[name].subject for name in SUBJECTS} == SUBJECTS


def test_every_text_part_is_complete(card: Card, outcome: CardOutcome, letters: dict[str, Letter]) -> None:
    about_requests = dispatches(card, outcome).keys() - notices(card).keys()
    for name, letter in letters.items():
        assert RAW.search(letter.text) is None, (name, RAW.search(letter.text))
        if name in about_requests:
            assert "Requested by " in letter.text, name
            assert name == "code" or f"\n\n{LINK}\n" in letter.text, name  # a code's page is open already


def test_people_who_voted_are_offered_another_choice(letters: dict[str, Letter]) -> None:
    assert 'class="button filled' in letters["request"].html
    for name in ("voted", "voted-by-reply"):
        assert "To change your vote (Reject, Request changes, Undo vote), open this page:" in letters[name].text
        assert "choice=approve" not in letters[name].html
        assert "choice=take_back" in letters[name].html
        assert 'class="button filled' not in letters[name].html  # nothing more to do


def test_a_requester_reads_that_it_is_their_turn(letters: dict[str, Letter]) -> None:
    written = letters["changes-requested"]
    for part in (written.text, written.html.replace("&#39;", "'")):
        assert "It's your turn: edit the request or withdraw it." in part
    assert ">Edit or withdraw the request</a>" in written.html


def test_a_break_glass_mail_says_what_is_left_to_do(letters: dict[str, Letter]) -> None:
    for part in (letters["break-glass"].text, letters["break-glass"].html):
        assert "Review needed by 5 Nov 2026, 10:05 UTC." in part


def test_a_short_comment_comes_first_and_a_long_one_below_the_choices(letters: dict[str, Letter]) -> None:
    short, long = letters["short-comment"].html, letters["comment"].html
    assert short.index("Bo Lund commented:") < short.index("Is the backup done?") < short.index("<h1")
    assert long.index("choice=reject") < long.index("Stop the workers.")
