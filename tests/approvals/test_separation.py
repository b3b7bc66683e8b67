"""Separation of duties: who decides in one stage decides in no other, and who is excluded in none."""

from __future__ import annotations

import tomllib
from datetime import date
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import find_undecidable_stage
from approvals_bot.approvals.simulate import simulate
from approvals_bot.people.absences import Absence
from approvals_bot.people.own import OwnSettings
from tests.approvals.conftest import ANN, BO, CFO, CY, DI

PAY = """
[workflow]
id = "pay"
title = "Pay"
request = ["*"]
[fields]
author = { type = "email", required = false }
[policy]
distinct = true
exclude = ["field:author", "@finance"]
[[stage]]
id = "first"
from = ["@release-managers", "@finance"]
[[stage]]
id = "second"
from = ["@live"]
"""


async def test_nobody_decides_in_two_stages(office: Any) -> None:
    office.live.people = [ANN, BO]
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        assert await opened.vote(ANN) == "counted"
        assert (await opened.view()).waiting_for == (BO,)
        assert await opened.vote(ANN) == "already_voted"
        assert await opened.vote(BO) == "decided"


async def test_a_vote_that_a_later_stage_needs_is_refused(office: Any) -> None:
    office.live.people = [BO]
    async with office.open():
        opened = await office.ask(PAY, {}, by=DI)
        before = await opened.view()
        said = await opened.act(kind="vote", by=BO, choice="approve")
        assert (said["verdict"], said["changed"]) == ("not_an_approver", False)
        assert said["text"] == (
            "Nobody could decide stage “Second” then: nobody decides in two stages here. Nothing was changed."
        )
        assert (await opened.view()).votes == before.votes == ()
        assert await opened.vote(CY) == "counted"
        assert await opened.vote(BO) == "decided"


async def test_who_is_excluded_decides_nowhere(office: Any) -> None:
    office.live.people = [ANN, BO, CFO]
    async with office.open():
        opened = await office.ask(PAY, {"author": "Ann@acme.eu"}, by=DI)
        assert (await opened.view()).waiting_for == (BO, CY)
        said = await opened.act(kind="vote", by=ANN, choice="approve")
        assert said["text"] == "This request's policy excludes you from deciding it. Nothing was changed."
        assert await opened.vote(CFO) == "not_an_approver"
        assert await opened.vote(CY) == "counted"
        assert (await opened.view()).waiting_for == (BO,)


async def test_an_excluded_list_that_cannot_be_read_waits(office: Any) -> None:
    async with office.open():
        opened = await office.ask(PAY.replace('"@finance"]', '"@live"]', 1), {}, by=DI)
        office.live.is_down = True
        assert await opened.vote(ANN) == "group_unknown"
        office.live.is_down = False
        assert await opened.vote(BO) == "not_an_approver"


@pytest.mark.parametrize(("people", "left"), [([ANN, BO], True), ([DI], False)])
async def test_too_few_different_people_are_found_before(office: Any, people: list[str], left: bool) -> None:
    office.live.people = people
    text = PAY.replace('"@release-managers", "@finance"', f'"{ANN}"').replace('["@live"]', f'["{ANN}", "@live"]')
    definition, opening = Definition.model_validate(tomllib.loads(text)), Opening({"author": None}, DI)
    problem = await find_undecidable_stage(definition, opening, office.people, office.clock.now())
    said = await simulate(definition, opening, office.people, office.clock.now())
    reason = "too few people are left who decide in no other stage"
    assert problem == (None if left else ("Second", reason))
    assert said["problems"] == ([] if left else [f"stage Second: {reason}"])


async def test_a_stage_has_rules_of_its_own(office: Any) -> None:
    office.live.people = [ANN, BO, CY]
    text = PAY.replace('id = "first"', 'id = "first"\nself_approval = "allow"\nreject = 2')
    async with office.open():
        opened = await office.ask(text.replace("distinct = true\n", ""), {}, by=ANN)
        assert await opened.vote(BO, "reject") == "counted"
        assert await opened.vote(ANN) == "counted"
        assert await opened.vote(ANN) == "already_voted"  # and the second stage isn't theirs
        assert (await opened.view()).waiting_for == (BO, CY)
        assert await opened.vote(CY, "reject") == "decided"
        assert (await opened.view()).state == "rejected"


async def test_nobody_gives_a_place_to_the_excluded(office: Any) -> None:
    """Neither by a reassignment nor as their own delegate, however the policy names them."""
    office.people.own.by_address[BO] = OwnSettings(away=(Absence(date(2026, 3, 1), date(2026, 3, 9), (CFO, DI)),))
    async with office.open():
        opened = await office.ask(PAY.replace("distinct = true\n", ""), {"author": CY}, by="eve@acme.eu")
        assert (await opened.view()).waiting_for == (ANN, DI)
        said = await opened.act(kind="reassign", by=ANN, person=CFO)
        assert said["text"] == "This request's policy excludes Fay Cash from deciding it. Nothing was changed."
        assert (await opened.act(kind="reassign", by=ANN, person=CY))["changed"] is False
        assert [await opened.vote(one) for one in (CFO, CY)] == ["not_an_approver"] * 2
        assert await opened.vote(DI) == "counted", "Bo's other delegate may"
