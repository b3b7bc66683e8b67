"""Messages that can't be answered any more, because a channel is archived or a card deleted: people still hear of it.

And what a decision finds on its way: it isn't needed any more, but its requester gets the outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from approvals_bot.approvals import card_text
from approvals_bot.approvals.port import Dispatch, Place, Refused, Result, TryAgain
from tests.approvals.conftest import ANN, BO, CY, DI, Office, place_of

FILE = """
[workflow]
id = "lost"
title = "Deploy"
request = ["*"]
[[stage]]
id = "go"
from = ["ann@acme.eu", "bo@acme.eu"]
need = 2
outcomes = ["approve", "reject", "changes"]
[deliver]
{deliver}
[clock]
deadline = "4h"
remind = ["1h", "2h"]
"""
IN_PLACE = FILE.format(deliver='slack = "#deploys"')
DIRECT = FILE.format(deliver="dm = true")
MAILED = FILE.format(deliver="email = true")
GONE = Refused("the channel is archived")


def refused(when: Callable[[Dispatch], bool]) -> Callable[[Dispatch], Result | None]:
    return lambda dispatch: GONE if when(dispatch) else None


def notes(sent: list[Dispatch]) -> list[tuple[str, str]]:
    return [(place_of(one), one.occasion) for one in sent]


async def test_a_reminder_comes_although_the_channel_is_archived(office: Office) -> None:
    async with office.open():
        opened = await office.ask(IN_PLACE, {})
        await opened.vote(ANN)
        office.slack.answer = refused(lambda dispatch: isinstance(dispatch.to, Place))
        office.slack.answer_update = refused(lambda dispatch: isinstance(dispatch.to, Place))
        await office.clock.advance("1h")
        assert notes(office.slack.sent) == [("#deploys", "request"), (BO, "request")]  # Ann has voted
        shown = {one.to: (one.state, one.error) for one in (await opened.view()).deliveries}
        assert shown == {"#deploys": ("not_delivered", GONE.error), BO: ("delivered", "")}
        await office.clock.advance("1h")
        assert notes(office.slack.sent)[2:] == [(BO, "reminder")]


async def test_a_reminder_of_a_deleted_card_is_a_new_card(office: Office) -> None:
    async with office.open():
        opened = await office.ask(IN_PLACE, {})
        office.slack.answer = refused(lambda dispatch: dispatch.thread is not None and dispatch.thread.id == "slack-1")
        office.slack.answer_update = refused(lambda dispatch: True)
        await office.clock.advance("1h")
        assert notes(office.slack.sent) == [("#deploys", "request"), ("#deploys", "reminder")]
        assert office.slack.sent[1].thread is None
        assert [person.address for person in office.slack.sent[1].mention] == [ANN, BO]
        office.slack.answer_update = lambda dispatch: None
        await opened.act(kind="comment", by=ANN, text="Soon", via="api")
        assert office.slack.updated[-1][0].id == "slack-2"


async def test_a_thread_that_takes_no_reply_makes_no_second_card(office: Office) -> None:
    """The card is still there, so its people are notified directly."""
    async with office.open():
        await office.ask(IN_PLACE, {})
        office.slack.answer = refused(lambda dispatch: dispatch.thread is not None)
        await office.clock.advance("1h")
        assert notes(office.slack.sent) == [("#deploys", "request"), (ANN, "request"), (BO, "request")]


async def test_a_reminder_refused_on_one_channel_comes_by_the_other(office: Office) -> None:
    async with office.open():
        await office.ask(DIRECT, {})
        office.slack.answer = office.slack.answer_update = refused(lambda dispatch: place_of(dispatch) == BO)
        await office.clock.advance("1h")
        assert notes(office.email.sent) == [(BO, "request")]
        assert notes(office.slack.sent)[2:] == [(ANN, "reminder")]
    office.slack.sent.clear()
    office.email.sent.clear()
    office.slack.answer = office.slack.answer_update = lambda dispatch: None
    async with office.open():
        await office.ask(MAILED, {})
        office.email.answer = refused(lambda dispatch: place_of(dispatch) == BO)
        await office.clock.advance("1h")
        assert (BO, "request") in notes(office.slack.sent)


async def test_a_queued_card_that_is_not_needed_is_no_failure(office: Office) -> None:
    async with office.open():
        office.slack.answer = lambda dispatch: TryAgain("its turn", timedelta(hours=1), held=True)
        opened = await office.ask(IN_PLACE, {})
        office.slack.answer = lambda dispatch: None
        await opened.vote(ANN, "reject")
        said = [card_text.delivery(one) for one in (await opened.view()).deliveries]
        assert said[0] == "– Not sent to #deploys in Slack: it was decided before this could be delivered"
        assert notes(office.slack.to("#deploys")) == []


async def test_a_requester_whose_card_was_queued_gets_the_outcome(office: Office) -> None:
    async with office.open():
        opened = await office.ask(DIRECT, {}, by=CY)
        office.slack.answer = lambda dispatch: (
            TryAgain("its turn", timedelta(hours=1), held=True) if place_of(dispatch) == CY else None
        )
        await opened.vote(ANN, "changes")  # back to the requester, whose card has to wait
        office.slack.answer = lambda dispatch: None
        await opened.act(kind="stop", by=DI, comment="No longer needed", via="api")
        assert notes(office.slack.to(CY)) == [(CY, "outcome")]
