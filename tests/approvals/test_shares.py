"""Shares of those who may vote, and stages that wait until everybody has voted."""

from __future__ import annotations

import tomllib
from typing import Any

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from tests.approvals.conftest import ANN, BO, CFO, CY, DI

HALF = """
[workflow]
id = "half"
title = "Half"
request = ["*"]
[[stage]]
id = "go"
need = "50%"
from = ["@release-managers", "@live"]
"""


async def test_a_share_is_of_those_who_may_vote_at_the_opening(office: Any) -> None:
    office.live.people = [BO, CY, DI, CFO]
    definition = Definition.model_validate(tomllib.loads(HALF))
    said = await simulate(definition, Opening({}, ANN), office.people, office.clock.now())
    seat = {"label": "Release managers or Live", "need": 2, "of": 4, "share": "50%"}
    assert [stage["seats"] for stage in said["stages"]] == [[seat]]
    async with office.open():
        opened = await office.ask(HALF, {}, by=ANN)
        office.live.people += ["gil@acme.eu", "hal@acme.eu", "ida@acme.eu"]
        assert await opened.vote("gil@acme.eu") == "counted"
        view = await opened.view()
        assert card_text.progress(card_of(view, None, office.clock.now())) == "1 of 2"
        assert explain(view)["rules"][0]["rule"] == "stage go: 2 of Release managers or Live"
        assert await opened.vote(BO) == "decided"


async def test_a_share_waits_for_a_list_that_cannot_be_read(office: Any) -> None:
    office.live.is_down = True
    text = HALF.replace('"50%"', '"majority"').replace('"@release-managers", ', "")
    async with office.open():
        opened = await office.ask(text, {}, by=ANN)
        assert await opened.vote(BO) == "group_unknown"
        office.live.is_down = False
        office.live.people = [BO, CY, DI]
        assert await opened.vote(BO) == "counted"
        assert await opened.vote(DI) == "decided"


async def test_a_stage_can_wait_until_all_have_voted(office: Any) -> None:
    text = HALF.replace('need = "50%"', 'need = "majority"\ndecide = "when-all-answered"').replace(', "@live"', "")
    async with office.open():
        opened = await office.ask(text, {}, by=DI)
        assert await opened.vote(ANN, "reject") == "counted"
        assert await opened.vote(BO) == "counted"
        assert (await opened.view()).waiting_for == (CY,)
        assert await opened.vote(ANN) == "changed"
        assert (await opened.view()).state == "waiting", "two of three are enough, and Cy hasn't said anything"
        assert await opened.vote(CY, "reject") == "decided"
        assert (await opened.view()).state == "rejected", "one rejection is enough, once everybody has voted"
