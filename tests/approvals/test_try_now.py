"""Deliveries that an operator wants tried now, in every state in which they can be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from approvals_bot.approvals.card_model import CardDelivery
from approvals_bot.approvals.port import Dispatch, Refused, TryAgain
from approvals_bot.approvals.published import IN_TROUBLE
from approvals_bot.durable.core.attributes import projected
from approvals_bot.durable.store.protocol import Filter
from tests.approvals.conftest import ANN, Office, OpenedRequest

MAILED = """
[workflow]
id = "mailed"
title = "Deploy"
request = ["*"]
[[stage]]
id = "go"
from = ["ann@acme.eu"]
[deliver]
email = true
"""


async def try_now(opened: OpenedRequest, to: str = ANN, channel: str = "email") -> bool:
    changed: bool = (await opened.act(kind="try_now", by="di@acme.eu", channel=channel, to=to))["changed"]
    return changed


async def copy(opened: OpenedRequest) -> CardDelivery:
    """Return the state of the approver's mail."""
    return next(each for each in (await opened.view()).deliveries if (each.to, each.channel) == (ANN, "email"))


async def found(office: Office, word: str) -> int:
    page = await office.engine.list_runs(Filter(attributes={projected(IN_TROUBLE): word}))
    return len(page.records)


async def test_a_mail_that_came_back_is_sent_again(office: Office) -> None:
    async with office.open():
        opened = await office.ask(MAILED, {})
        assert await found(office, "any") == 0
        office.slack.answer = lambda dispatch: Refused("no account", "no_account")
        await opened.act(kind="bounced", copy=1, reason="550 no such mailbox")
        assert (await copy(opened)).state == "not_delivered"
        assert [await found(office, w) for w in ("any", "not_delivered email", "any slack", "held")] == [1, 1, 0, 0]
        assert await try_now(opened)
        assert (await copy(opened)).state == "delivered"
        assert not await try_now(opened)
        assert not await try_now(opened, "nobody@acme.eu")
        assert await found(office, "any") == 0
        assert len(office.email.to(ANN)) == 2
        await opened.act(kind="bounced", copy=1, reason="550 no such mailbox")  # and it may come back once more
        assert (await copy(opened)).state == "not_delivered"
        await opened.vote(ANN)
        assert len(office.email.to(ANN)) == 2
        assert await found(office, "any") == 0


async def test_a_mail_with_a_turn_keeps_it(office: Office) -> None:
    answers: list[Any] = [TryAgain("its turn comes", timedelta(hours=1), held=True), TryAgain("down")]

    def answer(dispatch: Dispatch) -> Any:
        return answers.pop(0) if answers else None

    async with office.open():
        office.email.answer = answer
        opened = await office.ask(MAILED, {})
        assert ((await copy(opened)).state, (await copy(opened)).attempts) == ("held", 0)
        assert await found(office, "held email") == 1
        assert not await try_now(opened)
        await office.clock.advance("1h")
        assert ((await copy(opened)).state, (await copy(opened)).attempts) == ("retrying", 1)
        assert await found(office, "retrying") == 1
        assert await try_now(opened)
        assert ((await copy(opened)).state, (await copy(opened)).attempts) == ("delivered", 2)
        await office.clock.advance("1h")
        assert len(office.email.to(ANN)) == 1


async def test_a_message_of_the_file_waits_for_its_turn(office: Office) -> None:
    """A message after the decision may have to wait, too. Its follow-up is on its way, not in trouble."""

    def answer(dispatch: Dispatch) -> Any:
        return TryAgain("its turn comes", timedelta(minutes=1), held=True) if held and dispatch.text else None

    held = True
    async with office.open():
        office.email.answer = answer
        opened = await office.ask(MAILED + '[[on.approved]]\nemail = "cy@acme.eu"\ntext = "Done."\n', {})
        await opened.vote(ANN)
        (message,) = (await opened.view()).follow_ups
        assert (message.state, message.what) == ("sending", "mail to cy@acme.eu")
        held = False
        await office.clock.advance("1m")
        assert [each.state for each in (await opened.view()).follow_ups] == ["done"]
