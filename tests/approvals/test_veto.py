"""Stages in which only some people may reject, and whom they don't wait for."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals import card_text
from approvals_bot.approvals.card import card_of
from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from approvals_bot.approvals.stage_policy import Stage, Veto
from tests.approvals.conftest import ANN, BO, CFO, CY, DI

SHIP = """
[workflow]
id = "ship"
title = "Ship"
request = ["*"]
[[stage]]
id = "go"
need = 2
from = ["@release-managers"]
[stage.veto]
from = ["@live", "@finance"]
need = 2
[deliver]
email = true
"""


async def test_only_people_with_a_veto_reject(office: Any) -> None:
    office.live.people = [BO, ANN]
    async with office.open():
        opened = await office.ask(SHIP, {}, by=DI)
        view = await opened.view()
        assert view.waiting_for == (ANN, BO, CY), "it doesn't wait for those who only reject"
        assert office.email.to(CFO), "who are notified"
        said = await opened.act(kind="vote", by=CY, choice="reject", comment="no")
        assert (said["verdict"], said["text"]) == (
            "not_an_approver",
            "Only Live or Finance can reject this. Nothing was changed.",
        )
        assert await opened.vote(CFO) == "not_an_approver"
        assert await opened.vote(CFO, "reject") == "counted"
        shown = {reader: card_of(await opened.view(), reader, office.clock.now()) for reader in (BO, CY, CFO)}
        offered = {reader: [choice.choice for choice in card.choices] for reader, card in shown.items()}
        assert offered == {BO: ["approve", "reject"], CY: ["approve"], CFO: ["take_back"]}
        assert shown[CFO].why_me == "You can reject this because you're in Finance."
        assert card_text.seats(shown[CY].stages[0])[-1] == "Only Live or Finance can reject"
        rule = explain(await opened.view())["rules"][-1]
        assert (rule["rule"], rule["values"]) == ("stage go: only Live or Finance can reject", {"have": 1, "need": 2})
        assert await opened.vote(BO, "reject") == "decided"
        assert (await opened.view()).state == "rejected"


async def test_a_veto_list_that_cannot_be_read_refuses_rejections(office: Any) -> None:
    async with office.open():
        opened = await office.ask(SHIP.replace(', "@finance"', ""), {}, by=DI)
        office.live.is_down = True
        assert await opened.vote(BO, "reject") == "group_unknown"
        assert await opened.vote(ANN) == "counted"
        office.live.is_down = False
        assert await opened.vote(BO, "reject") == "counted"
        assert await opened.vote(CY, "reject") == "decided"


async def test_a_simulation_names_those_who_may_reject(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(SHIP))
    said = await simulate(definition, Opening({}, DI), office.people, office.clock.now())
    assert {"person": CFO, "stage": "go", "why": "may reject: in Finance", "via": "mail"} in said["who"]


def test_a_veto_counts_rejections_alone() -> None:
    assert Stage(id="go", from_=["@a"], veto=Veto(from_=["@b"])).veto == Veto(from_=["@b"], need=1)
    with pytest.raises(ValueError, match=r"stage.veto"):
        Stage(id="go", from_=["@a"], reject=2, veto={"from": ["@b"]})
