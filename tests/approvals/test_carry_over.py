"""Approvals that count again in later stages."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition, Policy
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.simulate import simulate
from approvals_bot.cli.show import simulated
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from approvals_bot.service.read import api_request
from tests.approvals.conftest import ANN, BO, CFO, CY, DI

PAY = """
[workflow]
id = "pay"
title = "Pay"
request = ["*"]
[fields]
note = { type = "string", required = false }
[policy]
carry_over = true
[[stage]]
id = "first"
from = ["@release-managers"]
[[stage]]
id = "second"
need = 2
from = ["@live"]
[[stage]]
id = "third"
from = ["@live"]
[deliver]
email = true
"""


def carried(view: Request) -> list[tuple[str, str, str]]:
    found = [(stage.id, vote) for stage in view.stages for vote in stage.votes if vote.carried_from and vote.counts]
    return [(stage, vote.by, vote.carried_from) for stage, vote in found]


async def test_an_approval_counts_again_in_later_stages(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        said = await opened.act(kind="vote", by=BO, choice="approve")
        assert said["text"] == "Counted: 1 of 1. Next: Second."
        view = await opened.view()
        assert (view.stage.id, view.waiting_for) == ("second", (CY,))
        assert [sent.occasion for sent in office.email.to(BO)] == ["request"], "they aren't asked again"
        card = card_of(view, BO, office.clock.now())
        assert card_text.progress(card) == "1 of 2"
        assert [card_text.vote(vote) for vote in card.votes] == [
            "✅ Bo Lund approved via the API",
            "✅ Bo Lund approved via the API (carried over from “First”)",
        ]
        assert [vote.get("carried_from") for vote in api_request(view)["votes"]] == [None, "first"]
        found = explain(view)
        assert [act["by"] for act in found["acts"]] == [BO], "they acted once"
        assert f"stage second: the approval of {BO} in stage first counts again" in [
            rule["rule"] for rule in found["rules"]
        ]
        assert await opened.vote(BO) == "already_voted"
        assert await opened.vote(CY) == "decided", "the third stage needs one of those who have approved"
        view = await opened.view()
        assert (view.state, view.outcome.by) == ("approved", CY)
        assert carried(view) == [("second", BO, "first"), ("third", BO, "first"), ("third", CY, "second")]


async def test_only_those_who_may_vote_there_count_again(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        view = await opened.view()
        assert (view.waiting_for, carried(view)) == ((BO, CY), [])


async def test_who_has_left_the_group_does_not_count_again(office: Any) -> None:
    text = PAY.replace("need = 2", 'when = "note == null"')
    async with office.open():
        opened = await office.ask(text, {"note": "x"}, by=DI)
        office.live.people = [CY, CFO]
        assert await opened.vote(BO) == "counted"
        view = await opened.view()
        assert (view.waiting_for, carried(view)) == ((CY, CFO), [])


@pytest.mark.parametrize("own", ['comment = "always"', 'ask = { code = "string" }', 'outcomes = ["reject", "answer"]'])
async def test_a_stage_that_asks_for_more_asks_again(office: Any, own: str) -> None:
    text = PAY.replace("need = 2", own)
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        view = await opened.view()
        assert (view.stage.id, view.waiting_for, carried(view)) == ("second", (BO, CY), [])


async def test_a_carried_vote_can_be_undone_where_it_counts(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        assert await opened.vote(BO, "take_back") == "taken_back"
        view = await opened.view()
        assert (view.waiting_for, carried(view)) == ((BO, CY), [])
        assert view.stages[0].state == "done"
        assert await opened.vote(CY) == "counted"
        assert await opened.vote(BO, "reject") == "decided"
        assert (await opened.view()).state == "rejected"


async def test_a_carried_vote_does_not_survive_an_edit(office: Any) -> None:
    text = PAY.replace("carry_over = true", 'carry_over = true\non_change = "reset"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        assert (await opened.act(kind="edit", by=DI, fields={"note": "new"}))["verdict"] == "edited"
        view = await opened.view()
        assert (view.stage.id, carried(view)) == ("first", [])
        assert await opened.vote(ANN) == "counted"
        assert (await opened.view()).waiting_for == (BO, CY), "Bo's approval was of something else"
        assert await opened.vote(BO) == "counted"
        assert await opened.vote(CY) == "decided"


async def test_an_edit_that_keeps_votes_keeps_carried_ones(office: Any) -> None:
    text = PAY.replace("carry_over = true", 'carry_over = true\non_change = "keep"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(BO) == "counted"
        assert (await opened.act(kind="edit", by=DI, fields={"note": "new"}))["verdict"] == "edited"
        assert carried(await opened.view()) == [("second", BO, "first")]
        assert await opened.vote(CY) == "decided"


async def test_the_deciding_vote_can_be_undone_where_it_was_cast(office: Any) -> None:
    """The last stages are complete by carried votes; undoing the vote they come from reopens its stage."""
    text = PAY.replace("need = 2\n", "").replace("carry_over = true", 'carry_over = true\ngrace = "10m"')
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        said = await opened.act(kind="vote", by=BO, choice="approve")
        assert (said["verdict"], "10 min" in said["text"]) == ("counted", True)
        view = await opened.view()
        assert (view.state, view.held.by, view.stage.id) == ("waiting", BO, "first")
        assert await opened.vote(BO, "take_back") == "taken_back"
        view = await opened.view()
        assert (view.held, view.stage.id, carried(view), view.waiting_for) == (None, "first", [], (ANN, BO, CY))
        assert await opened.vote(ANN) == "counted"
        assert (await opened.view()).waiting_for == (BO, CY)


async def test_an_absent_person_who_approved_needs_no_delegate(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        day = office.clock.now().date()
        office.people.own.by_address[BO] = OwnSettings(away=(Absence(day, day, (CFO,)),))
        assert await opened.vote(CFO) == "counted", "for Bo, in the first stage"
        view = await opened.view()
        assert carried(view) == [("second", CFO, "first")]
        assert [(vote.by, vote.in_place_of) for vote in view.stage.votes] == [(CFO, BO)]


async def test_a_simulation_names_whose_approvals_count_again(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(PAY))
    said = await simulate(definition, Opening({"note": None}, DI), office.people, office.clock.now())
    assert [stage.get("carries_over") for stage in said["stages"]] == [[], [BO, CY], [BO, CY]]
    shown = simulated("pay", said, office.clock.now())
    assert f"  An approval in an earlier stage counts here, too: {BO}, {CY}." in shown


def test_distinct_stages_carry_nothing_over() -> None:
    with pytest.raises(ValueError, match="nobody decides in two stages; leave one of them out"):
        Policy(distinct=True, carry_over=True)
