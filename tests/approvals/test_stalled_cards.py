"""Messages that their run can't redraw, because it has stalled or ended too early: redrawn from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from approvals_bot import request_approval, workflow
from approvals_bot.approvals.acts import Reply, Vote
from approvals_bot.approvals.card import REPLACED
from approvals_bot.approvals.delivery import sent_cards
from approvals_bot.approvals.port import Dispatch, Receipt, Refused, TryAgain
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.engine import Engine, activation
from approvals_bot.durable.store import connect
from approvals_bot.durable.tokens import Tokens
from approvals_bot.service.act import perform
from approvals_bot.service.read import requests_of
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


# ── runs that ended too early ──


BUDGET = {"is_closed": True}


@workflow
async def audited_purchase() -> None:
    def audited(_: Any) -> None:
        if BUDGET["is_closed"]:
            raise ValueError("the budget is closed")  # outside any task, it ends the run on the spot

    auditing = asyncio.create_task(asyncio.sleep(60))
    auditing.add_done_callback(audited)
    await request_approval("Buy a desk", approvers=ANN)
    await request_approval("Buy a chair", approvers=ANN)


def follower(office: Any) -> StalledCards:
    """Return a follower that the engine wakes for runs that are cut off, as in the service."""
    cards = StalledCards(office.engine)
    office.engine.scheduler._watch_cut_off = cards.wake
    return cards


async def failed_purchase(office: Any) -> Any:
    """Open two requests after each other, approve the first, and let the run fail beside the second."""
    run = await office.engine.start(audited_purchase)
    await office.settle()
    (desk,) = requests_of(await office.engine.record(run.id))
    await perform(office.engine, desk, Vote(ANN))
    await office.settle()
    await office.clock.advance(61)
    assert (await office.engine.record(run.id)).status == "failed"
    return run


def states(office: Any) -> dict[str, str]:
    """Return what each card shows now, by title."""
    shown = {dispatch.card.title: dispatch.card.state for dispatch in office.slack.sent}
    return shown | {dispatch.card.title: dispatch.card.state for _, dispatch in office.slack.updated}


async def test_open_cards_of_a_failed_run_say_so(office: Any) -> None:
    async with office.open():
        cards = follower(office)
        await failed_purchase(office)
        assert states(office) == {"Buy a desk": "approved", "Buy a chair": "waiting"}
        await cards.look()
        assert states(office)["Buy a chair"] == "waiting", "an edit of its own may be on the way"
        office.slack.updated.clear()
        await cards.look(settled=0)
        assert [(each.card.title, each.card.state) for _, each in office.slack.updated] == [("Buy a chair", "failed")]
        assert office.slack.updated[0][1].card.choices == ()
        await cards.look(settled=0)
        assert len(office.slack.updated) == 1, "once is enough"


async def test_a_limit_that_ends_a_run_shows_on_its_card(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office.open():
        opened, cards = await office.ask(), follower(office)
        monkeypatch.setattr(activation, "MAX_EVENTS", (await opened.record()).seq)
        await office.clock.advance(3600)
        assert (await opened.record()).status == "failed"
        await cards.look(settled=0)
        assert newest(office) == ("failed", False)


async def test_a_restart_closes_cards_of_runs_that_had_failed(office: Any) -> None:
    async with office.open():
        await failed_purchase(office)  # the process dies before it has redrawn anything
    office.slack.updated.clear()
    async with office.open():
        cards = StalledCards(office.engine)
        await cards.remember()
        await cards.look()
        assert states(office)["Buy a chair"] == "failed"
        assert len(office.slack.updated) == 1
    await office.clock.advance(25 * 3600)
    async with office.open():
        cards = StalledCards(office.engine)
        await cards.remember()
        await cards.look()
        assert len(office.slack.updated) == 1, "only what ended lately is looked at"


async def test_a_forced_end_closes_cards_once_slack_is_back(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), follower(office)
        office.slack.answer_update = lambda dispatch: TryAgain("no answer")
        await office.engine.cancel(opened.run.id, "not needed")
        await office.clock.advance(60)  # the run can't redraw its card, and is ended by force
        assert (await opened.record()).status == "cancelled"
        await cards.look(settled=0)
        assert office.slack.updated == []
        office.slack.answer_update = lambda dispatch: None
        await cards.look(settled=0)
        assert newest(office) == ("cancelled", False)


async def test_a_run_cancelled_by_another_process_is_noticed(office: Any) -> None:
    store = await connect(office.url)
    terminal = Engine(store, clock=office.clock, tokens=Tokens(["k" * 40], installation=store.installation))
    async with office.open(), terminal.running(work=False):
        opened, cards = await office.ask(), follower(office)
        is_back = asyncio.Event()

        async def update(receipt: Receipt, dispatch: Dispatch) -> Refused:
            await is_back.wait()
            return Refused("too late", "other")

        redrawn, office.slack.update = office.slack.update, update
        await terminal.cancel(opened.run.id, "not needed")
        await office.clock.advance(60)
        async with asyncio.timeout(60):
            while not cards._cut_off:
                await asyncio.sleep(0.05)
        is_back.set()
        office.slack.update = redrawn
        await cards.look(settled=0)
        assert newest(office) == ("cancelled", False)


async def test_a_reset_opens_the_cards_of_a_failed_run_again(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office.open():
        cards = follower(office)
        failed = await failed_purchase(office)
        await cards.look(settled=0)
        assert states(office)["Buy a chair"] == "failed"
        monkeypatch.setitem(BUDGET, "is_closed", False)
        again = await office.engine.reset(failed.id, to=len(await office.engine.events(failed.id)))
        await office.settle()
        await cards.look(settled=0)
        assert states(office)["Buy a chair"] == "waiting"
        assert office.slack.updated[-1][1].card.run_id == f"{again.id}.2"
        assert office.slack.updated[-1][1].card.choices
        after = StalledCards(office.engine)
        await after.remember()
        office.slack.updated.clear()
        await after.look()
        assert {sent.card.run_id for _, sent in office.slack.updated} <= {f"{again.id}.2"}, "it is the new run's card"


async def test_a_reset_closes_the_cards_it_replaces(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), follower(office)
        log = await office.engine.events(opened.run.id)
        before = [receipt for receipt, _ in sent_cards(log)]
        to = next(event.seq for event in log if event.type == "hook_created")
        again = await office.engine.reset(opened.run.id, to=to)
        await office.settle()
        new = [receipt for receipt, _ in sent_cards(await office.engine.events(again.id))]
        office.slack.answer_update = lambda dispatch: TryAgain("no answer")
        await cards.look(settled=0)
        assert office.slack.updated == []
        office.slack.answer_update = lambda dispatch: None
        await cards.look(settled=0)
        shown = {at.id: (bool(sent.card.choices), REPLACED in sent.card.notes) for at, sent in office.slack.updated}
        assert shown == {old.id: (False, True) for old in before} | {one.id: (True, False) for one in new}
        office.slack.updated.clear()
        await cards.look(settled=0)
        assert office.slack.updated == [], "once is enough"


async def test_a_crash_at_a_reset_leaves_no_card_with_buttons(office: Any) -> None:
    async with office.open():  # this process dies before it looks at the run
        opened = await office.ask()
        log = await office.engine.events(opened.run.id)
        (old,) = [receipt.id for receipt, _ in sent_cards(log)]
        await office.engine.reset(opened.run.id, to=next(one.seq for one in log if one.type == "hook_created"))
        await office.settle()
    async with office.open():
        cards = StalledCards(office.engine)
        await cards.remember()
        await cards.look()
        shown = {at.id: (bool(sent.card.choices), REPLACED in sent.card.notes) for at, sent in office.slack.updated}
        assert shown.pop(old) == (False, True)
        assert set(shown.values()) == {(True, False)}


async def test_nothing_is_read_while_nothing_fails(office: Any) -> None:
    async with office.open():
        opened, cards = await office.ask(), follower(office)
        assert await opened.vote(ANN) == "decided"
        assert not cards._cut_off
        assert not cards._woken.is_set()
