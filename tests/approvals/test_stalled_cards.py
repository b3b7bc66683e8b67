"""Messages of a stalled run: marked from outside, kept through a restart, and redrawn once the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from approvals_bot.approvals.acts import Reply, Vote
from approvals_bot.approvals.port import Dispatch, TryAgain
from approvals_bot.durable.core.registry import registry
from approvals_bot.service.act import perform
from approvals_bot.service.stalls import StalledCards
from tests.approvals.conftest import ANN, BO

pytestmark = pytest.mark.drifts


@contextmanager
def broken_release() -> Iterator[None]:
    """Run without the code of approvals, as a release that has lost it."""
    code = registry._kept.pop(("approval", None))
    registry.additions += 1
    try:
        yield
    finally:
        registry._kept["approval", None] = code
        registry.additions += 1


async def vote(office: Any, opened: Any, by: str = ANN) -> Reply:
    return await perform(office.engine, await opened.view(), Vote(by), timeout=0.2)


async def stall(office: Any, opened: Any) -> Reply:
    office.engine.scheduler.cache.by_hook.clear()
    reply = await vote(office, opened)
    await office.settle()
    assert (await opened.record()).status == "stalled"
    return reply


async def go_on(office: Any) -> None:
    await office.engine.scheduler._stalled.retry()
    await office.settle()


def newest(office: Any) -> tuple[str, bool]:
    card = office.slack.newest("#deploys").card
    return card.state, card.is_stalled


async def test_cards_of_a_stalled_run_are_marked_and_redrawn(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), StalledCards(office.engine)
        with broken_release():
            reply = await stall(office, opened)
            assert (reply.verdict, reply.changed) == ("received", True)
            assert "Your vote is kept and counts once it is fixed" in reply.text
            mails = len(office.email.sent)
            await cards.look()
            assert office.slack.updated == [], "it may go on at once elsewhere"
            await cards.look(settled=0)
            assert newest(office) == ("waiting", True)
            await cards.look(settled=0)
            assert len(office.slack.updated) == 1, "once is enough"
        await go_on(office)
        await cards.look()
        assert newest(office) == ("approved", False)
        assert not any(dispatch.card.is_stalled for dispatch in office.email.sent[mails:])


async def test_a_restart_remembers_which_cards_are_marked(office: Any) -> None:
    async with office.open():
        opened = await office.ask()
        with broken_release():
            await stall(office, opened)
            await StalledCards(office.engine).look(settled=0)
            assert newest(office) == ("waiting", True)
            after = StalledCards(office.engine)  # of the process that comes next
            await after.remember()
        await go_on(office)
        office.slack.updated.clear()
        await after.look()
        assert newest(office) == ("approved", False)


async def test_a_stalled_run_that_is_cancelled_says_so_on_its_cards(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), StalledCards(office.engine)
        with broken_release():
            await stall(office, opened)
            await cards.look(settled=0)
            await office.engine.cancel(opened.run.id, "not worth the repair")
            await cards.look()
        assert newest(office) == ("cancelled", False)


async def test_a_channel_that_is_down_is_tried_again(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), StalledCards(office.engine)
        is_down = True

        def answer(dispatch: Dispatch) -> TryAgain | None:
            return TryAgain("rate limited") if is_down else None

        office.slack.answer_update = answer
        with broken_release():
            await stall(office, opened)
            await cards.look(settled=0)
            assert office.slack.updated == []
            is_down = False
            await cards.look(settled=0)
            assert newest(office) == ("waiting", True)
            assert (await vote(office, opened, BO)).verdict == "received"
