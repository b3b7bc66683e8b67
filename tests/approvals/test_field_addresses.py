"""Addresses with the value of an enum in them: `@team-{{ team }}`."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import simulate
from tests.approvals.conftest import ANN, BO, CFO, CY, DI
from tests.approvals.test_checks import problems, service, workflow

SPEND = """
[workflow]
id = "spend"
title = "Spend"
request = ["*"]
[fields]
team = { type = "enum", values = ["sre", "finance", "release-managers"], required = false }
[policy]
outcomes = ["approve", "reject", "edit"]
[[stage]]
id = "team"
from = ["@{{ team }}"]
"""


@pytest.mark.parametrize(("team", "people"), [("sre", (BO, CY, DI)), ("finance", (CFO, "fin@acme.eu"))])
async def test_the_group_of_the_value_decides(office: Any, team: str, people: tuple[str, ...]) -> None:
    async with office.open():
        opened = await office.ask(SPEND, {"team": team}, by=ANN)
        view = await opened.view()
        assert (view.waiting_for, view.stages[0].seats[0].label) == (
            people,
            team.upper() if team == "sre" else "Finance",
        )
        other = {BO, CFO}.difference(people).pop()
        assert [await opened.vote(other), await opened.vote(people[0])] == ["not_an_approver", "decided"]


async def test_an_edit_leads_to_the_other_group(office: Any) -> None:
    async with office.open():
        opened = await office.ask(SPEND, {"team": "sre"}, by=ANN)
        assert (await opened.act(kind="edit", by=ANN, fields={"team": "finance"}))["changed"]
        assert (await opened.view()).waiting_for == (CFO, "fin@acme.eu")
        said = await opened.act(kind="edit", by=ANN, fields={"team": None})
        why = "nobody can approve for Team (@{{ team }}: the request has no team)"
        text = f"Nobody could decide it like this: {why}. Nothing was changed."
        assert (said["text"], said["changed"]) == (text, False)


async def test_a_simulation_asks_the_group_of_the_value(office: Any) -> None:
    definition = Definition.model_validate(tomllib.loads(SPEND))
    for team, whom in (("sre", [BO, CY, DI]), (None, [])):
        said = await simulate(definition, Opening({"team": team}, ANN), office.people, office.clock.now())
        assert [each["person"] for each in said["who"]] == whom
        assert bool(said["problems"]) is not bool(whom)


TEAMS = {"team": {"type": "enum", "values": ["two", "three"]}}
ONES = {"team": {"type": "enum", "values": ["ann", "three"]}}


@pytest.mark.parametrize(
    ("fields", "stage", "found"),
    [
        (TEAMS, {"from": ["@{{ team }}"]}, []),
        (TEAMS, {"from": ["@{{team}}", "oncall:sre"], "notify": ["@{{ team }}"], "need": 3}, []),
        (
            TEAMS,
            {"from": ["@x-{{ team }}"]},
            [
                'stage.0.seat.0.from.0: no group is called x-two, for team = "two"',
                'stage.0.seat.0.from.0: no group is called x-three, for team = "three"',
            ],
        ),
        (TEAMS, {"from": ["@{{ tem }}"]}, ["stage.0.seat.0.from.0: no field is called tem"]),
        (
            {"team": "string"},
            {"from": ["@{{ team }}"]},
            ["stage.0.seat.0.from.0: team is no enum, so it can't be known which groups there are"],
        ),
        (
            TEAMS,
            {"from": ["{{ team }}@acme.eu"]},
            ['stage.0.seat.0.from.0: an address takes the value of an enum like this: "@team-{{ team }}"'],
        ),
        (
            TEAMS,
            {"from": ["@{{ team }}"], "need": 3},
            ['stage.0.seat.0.need: 3 are needed, but @two is only 2 people, for team = "two"'],
        ),
        (
            {"team": TEAMS["team"] | {"required": False}},
            {"from": ["@{{ team }}"]},
            ["stage.0.seat.0.from: team is optional, so nobody may be asked: name others, too, or set when"],
        ),
        ({"team": TEAMS["team"] | {"required": False, "default": "two"}}, {"from": ["@{{ team }}"]}, []),
        (TEAMS, {"from": ["@two"], "veto": {"from": ["@{{ team }}s"]}}, None),
    ],
)
def test_check_looks_up_the_group_of_each_value(fields: Any, stage: dict[str, Any], found: list[str] | None) -> None:
    said = problems(workflow(stage, fields=fields))
    assert said == found if found is not None else len(said) == 2


def test_check_says_for_which_value_nobody_is_left() -> None:
    found = problems(workflow({"from": ["@{{ team }}"]}, request=("@ann",), fields=ONES))
    what = "can't be filled: requesters don't approve their own requests, and nobody else is left"
    assert found == [f'stage.0.seat.0.from: {what}, for team = "ann"']


@pytest.mark.parametrize("key", ["request", "viewers"])
def test_requesters_and_viewers_take_no_field(key: str) -> None:
    text: dict[str, Any] = {
        "workflow": {"id": "x", "title": "X", "request": ["*"], key: ["@{{ team }}"]},
        "fields": TEAMS,
    }
    found = problems(Definition.model_validate(text | {"stage": [{"id": "a", "from": ["@two"]}]}), service())
    assert [each.partition(": ")[0] for each in found] == [f"workflow.{key}.0"]
