"""What no stage covers is never approved in silence."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import NO_STAGE, Opening, plain_name
from approvals_bot.approvals.resolution import find_undecidable_stage
from approvals_bot.approvals.simulate import simulate
from tests.approvals.conftest import ANN, BO, CY, DI

BUY = """
[workflow]
id = "buy"
title = "Buy"
request = ["*"]
[fields]
kind = { type = "enum", values = ["travel", "software", "hardware"], editable = true }
[policy]
outcomes = ["approve", "reject", "edit"]
[[stage]]
id = "desk"
when = 'kind == "travel"'
from = ["@sre"]
[[stage]]
id = "it"
  [[stage.seat]]
  from = ["@release-managers"]
  when = 'kind == "software"'
"""
WHY = "no stage applies to this request, because the kind is hardware (not travel); none of its seats applies"


def definition(text: str = BUY) -> Definition:
    return Definition.model_validate(tomllib.loads(text))


def deciding(decision: str) -> str:
    return BUY.replace("[policy]", f'[policy]\nwhen_nobody = "{decision}"')


async def test_a_request_that_no_stage_covers_fails(office: Any) -> None:
    async with office.open():
        opened = await office.ask(BUY, {"kind": "hardware"})
        record = await opened.record()
        assert (record.status, record.error["type"]) == ("failed", "NobodyCanDecideError")
        assert record.error["message"] == f"Nobody could decide this request: {WHY}."


@pytest.mark.parametrize(("decision", "state"), [("approve", "approved"), ("reject", "rejected")])
async def test_the_file_may_decide_what_no_stage_covers(office: Any, decision: str, state: str) -> None:
    async with office.open():
        view = await (await office.ask(deciding(decision), {"kind": "hardware"})).view()
        assert (view.state, view.outcome.by, view.outcome.because) == (state, NO_STAGE, WHY)
        assert plain_name(NO_STAGE) == "the policy"


@pytest.mark.parametrize("text", [BUY, deciding("approve")], ids=["refused", "approve"])
async def test_an_edit_that_no_stage_covers_changes_nothing(office: Any, text: str) -> None:
    """`when_nobody` is for the opening: nobody edits their request into an approval."""
    async with office.open():
        opened = await office.ask(text, {"kind": "travel"}, by=ANN)
        before = await opened.view()
        said = await opened.act(kind="edit", by=ANN, fields={"kind": "hardware"})
        assert (said["verdict"], said["changed"]) == ("invalid", False)
        assert said["text"] == f"Nobody could decide it like this: {WHY}. Nothing was changed."
        assert await opened.vote(DI, "edit", fields={"kind": "hardware"}) == "invalid"
        assert await opened.view() == before
        assert await opened.vote(BO, "edit", fields={"kind": "software"}) == "counted"
        assert await opened.vote(CY) == "decided"


async def test_a_simulation_names_what_no_stage_covers(office: Any) -> None:
    opening, now = Opening({"kind": "hardware"}, ANN), office.clock.now()
    assert await find_undecidable_stage(definition(), opening, office.people, now) == ("", WHY)
    assert (await simulate(definition(), opening, office.people, now))["problems"] == [WHY]
    approving = definition(deciding("approve"))
    assert await find_undecidable_stage(approving, opening, office.people, now) is None
    said = await simulate(approving, opening, office.people, now)
    assert (said["auto"], said["problems"]) == ({"rule": 0, "decision": "approve", "because": WHY}, [])
