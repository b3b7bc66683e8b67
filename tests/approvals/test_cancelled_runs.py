"""Approvals whose run is cancelled: they end their requests, notify everyone, and run their follow-ups."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from approvals_bot import RunCancelledError, request_approval, workflow
from approvals_bot.approvals.port import Dispatch, Receipt, Result, TryAgain
from approvals_bot.durable.engine import Engine
from approvals_bot.durable.store import connect
from approvals_bot.service.stalls import StalledCards
from tests.approvals.conftest import ANN, BO, CY, DEPLOY

FOLLOWED = (
    DEPLOY
    + """
[[on.cancelled]]
http = "ci"
json = { outcome = "{{ decision.outcome }}" }
"""
)


async def is_over(run: Any) -> tuple[str, str | None]:
    async with asyncio.timeout(60):
        with pytest.raises(RunCancelledError):
            await run.return_value()
    return await run.status(), (await run.events())[-1].data["reason"]


async def test_a_cancelled_approval_says_so_everywhere(office: Any) -> None:
    async with office.open():
        opened = await office.ask(FOLLOWED)
        await opened.run.cancel("not needed")
        await office.settle()
        assert await is_over(opened.run) == ("cancelled", "not needed")
        view = await opened.view()
        assert view.outcome is not None
        assert (view.state, view.outcome.by, view.outcome.comment) == ("cancelled", "app:service", "not needed")
        assert office.slack.newest("#deploys").card.state == "cancelled"
        assert [body for _, _, body in office.targets.calls] == [{"outcome": "cancelled"}]
        assert {sent.card.state for sent in office.email.sent[-2:]} == {"cancelled"}


async def test_a_cancellation_while_cards_are_sent_reaches_them(office: Any) -> None:
    may_arrive, real = asyncio.Event(), office.slack.send

    async def slow(dispatch: Dispatch) -> Result:
        await may_arrive.wait()
        result: Result = await real(dispatch)
        return result

    office.slack.send = slow
    async with office.open():
        opened = await office.ask(FOLLOWED)
        assert office.slack.sent == []
        await opened.run.cancel("too early")
        may_arrive.set()
        await office.settle()
        assert await is_over(opened.run) == ("cancelled", "too early")
        shown = [*(sent.card.state for sent in office.slack.sent), *(to.card.state for _, to in office.slack.updated)]
        assert shown[-1:] in ([], ["cancelled"]), "what arrived is brought up to date"
        assert len(office.targets.calls) == 1


async def test_a_cancellation_interrupts_the_search_for_people(office: Any) -> None:
    never, real = asyncio.Event(), office.live.read

    async def hangs() -> Any:
        await never.wait()

    office.live.read = hangs
    async with office.open():
        opened = await office.ask(FOLLOWED.replace('"@release-managers"', '"@live"'))
        await opened.run.cancel("nobody answers")
        assert await is_over(opened.run) == ("cancelled", "nobody answers")
        assert (await opened.view()).state == "cancelled"
        assert "step_cancelled" in [event.type for event in await opened.run.events()]
        assert len(office.targets.calls) == 1
    office.live.read = real


async def test_a_vote_in_hand_is_answered_when_the_run_is_cancelled(office: Any) -> None:
    never, real = asyncio.Event(), office.live.read

    async def hangs() -> Any:
        await never.wait()

    async with office.open():
        opened = await office.ask(FOLLOWED.replace('"@release-managers"', '"@live"'))
        office.live.read = hangs
        voting = asyncio.create_task(opened.vote(BO))
        async with asyncio.timeout(60):
            while "hook_received" not in [event.type for event in await opened.run.events()]:
                await asyncio.sleep(0.02)
        await opened.run.cancel("not needed")
        assert await voting == "withdrawn"
        assert await is_over(opened.run) == ("cancelled", "not needed")
    office.live.read = real


async def test_a_cancelled_approval_tidies_up_after_a_restart(office: Any) -> None:
    async with office.open():
        opened = await office.ask(FOLLOWED)
    terminal = Engine(await connect(office.url), clock=office.clock)
    async with terminal.running(work=False):
        await terminal.cancel(opened.run.id, "while it was down")
    async with office.open():
        run = office.engine.get_run(opened.run.id)
        assert await is_over(run) == ("cancelled", "while it was down")
        assert office.slack.newest("#deploys").card.state == "cancelled"
        assert len(office.targets.calls) == 1


async def test_several_requests_of_a_run_are_cancelled_at_once(office: Any) -> None:
    @workflow
    async def asks_two_and_is_cancelled() -> None:
        await asyncio.gather(*(request_approval(f"To {address}", approvers=address) for address in (ANN, BO)))

    async with office.open():
        run = await office.engine.start(asks_two_and_is_cancelled)
        await office.settle()
        await run.cancel("enough")
        assert await is_over(run) == ("cancelled", "enough")
        record = await office.engine.record(run.id)
        assert [view["state"] for view in record.parts] == ["cancelled", "cancelled"]
        assert {office.slack.newest(address).card.state for address in (ANN, BO)} == {"cancelled"}


async def test_what_a_dead_channel_misses_is_redrawn_later(office: Any) -> None:
    async with office.open():
        cut_off: list[str] = []
        office.engine.scheduler._watch_cut_off = cut_off.append
        opened, cards = await office.ask(FOLLOWED), StalledCards(office.engine)
        office.slack.answer_update = lambda dispatch: TryAgain("no answer")
        await opened.run.cancel("not needed")
        await office.clock.advance(59)
        assert await opened.run.status() == "running"
        assert len(office.targets.calls) == 1, "a dead channel delays no follow-up"
        await office.clock.advance(1)
        assert await is_over(opened.run) == ("cancelled", "not needed")
        assert cut_off == [opened.run.id]
        office.slack.answer_update = lambda dispatch: None
        cards.wake(opened.run.id)
        await cards.look(settled=0)
        assert office.slack.newest("#deploys").card.state == "cancelled"


async def test_a_decision_stands_though_its_run_is_cancelled(office: Any) -> None:
    """People have heard of it, and its copies are brought up to date in the time that is left."""
    may_arrive, real = asyncio.Event(), office.slack.update

    async def slow(receipt: Receipt, dispatch: Dispatch) -> Result:
        await may_arrive.wait()
        result: Result = await real(receipt, dispatch)
        return result

    async with office.open():
        opened = await office.ask(FOLLOWED)
        office.slack.update = slow
        assert await opened.vote(CY) == "decided"
        await opened.run.cancel("too late")
        may_arrive.set()
        assert await is_over(opened.run) == ("cancelled", "too late")
        assert (await opened.view()).state == "approved"
        assert office.slack.newest("#deploys").card.state == "approved"
