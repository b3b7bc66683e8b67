"""A post whose answer was lost is found again, even by a process that doesn't remember it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from approvals_bot.approvals.card_model import Card
from approvals_bot.approvals.port import Delivered, Dispatch, Place, Receipt, TryAgain
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.channels.slack.reasons import LOST

if TYPE_CHECKING:
    from tests.channels.conftest import Stage

DEPLOYS = Place("slack", "C0DEPLOYS")


@pytest.mark.check(29)
async def test_a_lost_post_to_a_name_is_found_by_the_next_process(stage: Stage, card: Card) -> None:
    stage.fault("drop_after", "chat.postMessage")
    to, tried = Place("slack", "#deploys"), datetime.now(UTC)
    assert await stage.out.send(Dispatch("d1", to, card)) == TryAgain(LOST, timedelta(seconds=3), lost=True)
    after = SlackOut(stage.client, stage.people, now=lambda: datetime.now(UTC))  # remembers nothing
    again = await after.send(Dispatch("d1", to, card, lost_at=tried))
    (message,) = stage.messages
    assert again == Delivered(Receipt("C0DEPLOYS", str(message["ts"]), 0))


@pytest.mark.check(29)
async def test_a_lost_note_in_a_thread_is_found_by_the_next_process(stage: Stage, card: Card) -> None:
    sent = await stage.out.send(Dispatch("d1", DEPLOYS, card))
    assert isinstance(sent, Delivered)
    stage.monotonic.at += 2
    stage.fault("drop_after", "chat.postMessage")
    tried = datetime.now(UTC)
    note = Dispatch("d2", DEPLOYS, card, "reminder", thread=sent.receipt, lost_at=tried)
    assert isinstance(await stage.out.send(replace(note, lost_at=None)), TryAgain)
    after = SlackOut(stage.client, stage.people, now=lambda: datetime.now(UTC))
    again = await after.send(note)
    assert isinstance(again, Delivered)
    assert again.receipt.id == stage.messages[1]["ts"]
    assert len(stage.messages) == 2
