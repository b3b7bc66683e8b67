"""Mails under SpamAssassin's offline rules, where it is installed."""

from __future__ import annotations

import mailbox
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from approvals_bot.approvals.card_model import Card, CardOutcome
from approvals_bot.channels.email.message import Address, OutgoingMail, compose, compose_together
from tests.support.mail_kinds import digest, dispatches

SPAMASSASSIN = shutil.which("spamassassin")
SENDER = Address.parse_sender("Approvals <approvals@acme.eu>")
RECEIVED = "Received: from mx.acme.eu (mx.acme.eu [93.184.216.34]) by mx.example.org with ESMTPS id x; {}\r\n"
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"  # SpamAssassin's own test
KINDS = ("request", "everything", "tool-call", "text", "rejected")


def judged(mails: dict[str, OutgoingMail], folder: Path) -> dict[str, str]:
    """Return each mail's `X-Spam-Status`. One start of SpamAssassin for all: it takes seconds."""
    box = mailbox.mbox(folder / "mails")
    for mail in mails.values():
        box.add(RECEIVED.format(format_datetime(datetime.now(UTC))).encode() + mail.content)
    box.close()
    command = [str(SPAMASSASSIN), "--local", "--mbox", str(folder / "mails")]
    env = os.environ | {"HOME": str(folder)}  # where it would learn from them
    done = subprocess.run(command, capture_output=True, check=True, timeout=300, env=env)
    (folder / "judged").write_bytes(done.stdout)
    answers = mailbox.mbox(folder / "judged")
    found = {message["Message-ID"]: message["X-Spam-Status"] for message in answers}
    answers.close()
    return {name: found[f"<{mail.message_id}>"] for name, mail in mails.items()}  # they come in any order


@pytest.mark.skipif(SPAMASSASSIN is None, reason="spamassassin is not installed: mails were not judged by it")
def test_no_mail_scores_a_point_as_spam(card: Card, now: datetime, outcome: CardOutcome, tmp_path: Path) -> None:
    today = datetime.now(UTC)
    kinds = dispatches(card, outcome)
    kinds = {name: kinds[name] for name in KINDS} | {
        "the control": replace(kinds["text"], delivery_id="control", text=GTUBE)
    }
    mails = {name: compose(kind, sender=SENDER, now=today) for name, kind in kinds.items()}
    mails["digest"] = compose_together(digest(card, outcome, now), sender=SENDER, now=today)
    found = judged(mails, tmp_path)
    scores = {name: float(status.partition("score=")[2].split()[0]) for name, status in found.items()}
    assert scores.pop("the control") > 900
    assert {name: found[name] for name, score in scores.items() if score > 0.05} == {}
