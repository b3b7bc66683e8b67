"""Who will be asked, and why it waits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.simulate import find_undecidable_stage, simulate
from approvals_bot.errors import InvalidPayloadError

ANN, BO, CY, DI, CFO = (f"{who}@acme.eu" for who in ("ann", "bo", "cy", "di", "cfo"))
SAMPLES = Path(__file__).parents[2] / "workflows"
RISKY: dict[str, Any] = {"service": "api", "version": "2.1", "env": "prod", "risk": "high"}


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.toml").read_text()


def definition(name: str) -> Definition:
    return Definition.model_validate(tomllib.loads(sample(name)))


async def test_a_simulation_says_who_is_asked_why_and_how_and_what_comes_when(office: Any) -> None:
    said = await simulate(definition("deploy"), Opening(RISKY, ANN), office.people, office.clock.now())
    assert said["who"] == [
        {"person": BO, "stage": "go", "why": "in release-managers, in sre", "via": "#deploys, mail"},
        {"person": CY, "stage": "go", "why": "in release-managers, in sre", "via": "#deploys, mail"},
        {"person": DI, "stage": "go", "why": "in sre", "via": "#deploys, mail"},
    ]
    assert said["auto"] is None
    assert said["timers"] == [
        {"at": "2026-03-02T09:30:00Z", "what": "a reminder to those who still owe a vote"},
        {"at": "2026-03-02T10:00:00Z", "what": "escalation: oncall:sre are asked too"},
        {"at": "2026-03-02T11:00:00Z", "what": "a reminder to those who still owe a vote"},
        {"at": "2026-03-02T13:00:00Z", "what": "deadline: then it is rejected"},
    ]


async def test_a_deadline_that_finds_nobody_more_to_ask_says_that_it_expires(office: Any) -> None:
    """Every escalation of this file comes before its deadline, so nobody is left who could be asked then."""
    text = sample("deploy").replace('on_deadline = "reject"', 'on_deadline = "escalate"')
    escalating = Definition.model_validate(tomllib.loads(text))
    said = await simulate(escalating, Opening(RISKY, ANN), office.people, office.clock.now())
    assert said["timers"][-1]["what"] == "deadline: then it expires"
    async with office.open():
        asked = await office.ask(text, RISKY, by=ANN)
        assert (await asked.view()).on_deadline == "then it expires"
        await office.clock.advance("4h")
        assert (await asked.view()).state == "expired"


async def test_a_simulation_names_the_rule_that_would_decide(office: Any) -> None:
    fields: dict[str, Any] = {**RISKY, "env": "staging", "risk": "low"}
    said = await simulate(definition("deploy"), Opening(fields, ANN), office.people, office.clock.now())
    assert (said["who"], said["auto"]["decision"], said["auto"]["rule"]) == ([], "approve", 1)


async def test_a_simulation_shows_who_may_decide_but_is_not_told(office: Any) -> None:
    fields: dict[str, Any] = {"account": "aws-prod", "role": "admin", "reason": "the database is on fire again"}
    said = await simulate(definition("prod-access"), Opening(fields, ANN), office.people, office.clock.now())
    assert [(one["person"], one["via"]) for one in said["who"]] == [
        (CY, "dm, mail"),
        (BO, "not told"),
        (DI, "not told"),
    ]


async def test_a_simulation_of_wrong_fields_names_them(office: Any) -> None:
    with pytest.raises(InvalidPayloadError) as failure:
        await simulate(definition("deploy"), Opening({"service": "api"}, ANN), office.people, office.clock.now())
    assert {error["loc"][-1] for error in failure.value.errors} == {"version", "env"}


async def test_what_nobody_could_decide_is_said_before_it_is_opened(office: Any) -> None:
    fields: dict[str, Any] = {"amount": "80", "purpose": "a desk", "team": "eng"}
    assert (
        await find_undecidable_stage(definition("expense"), Opening(fields, BO), office.people, office.clock.now())
        is None
    )
    problem = await find_undecidable_stage(
        definition("expense"), Opening(fields, CFO), office.people, office.clock.now()
    )
    assert problem == (
        "manager",
        "nobody may decide for the manager of Fay Cash (manager-of:requester: Fay Cash has no manager)",
    )


async def test_an_explanation_says_why_a_request_waits_and_what_comes_next(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("deploy"), RISKY, by="app:ci")
        await asked.vote(BO)
        said = explain(await asked.view())
        assert said["waiting_for"] == [
            {"person": ANN, "stage": "go", "why": "in release-managers"},
            {"person": CY, "stage": "go", "why": "in release-managers, in sre"},
            {"person": DI, "stage": "go", "why": "in sre"},
        ]
        assert [(rule["rule"], rule["values"], rule["applies"]) for rule in said["rules"]] == [
            (
                'auto 1: approve when env == "staging" and risk != "high"',
                {"env": "prod", "risk": "high"},
                False,
            ),
            ("stage go: 1 of Release managers and 2 of SRE", {"have": 1, "need": 3}, True),
        ]
        assert said["rules"][1]["because"] == "Waiting for two more from SRE."
        assert said["next"][0] == {"at": "2026-03-02T09:30:00Z", "what": "a reminder to those who still owe a vote"}
        await asked.vote(ANN)
        await asked.vote(CY)
        said = explain(await asked.view())
        assert (said["waiting_for"], said["next"]) == ([], [])


async def test_a_request_that_was_handed_back_waits_for_its_requester(office: Any) -> None:
    async with office.open():
        asked = await office.ask(sample("expense"), {"amount": "80", "purpose": "a desk", "team": "eng"}, by=BO)
        await asked.vote(ANN, "changes", comment="cheaper?")
        assert explain(await asked.view())["waiting_for"] == [
            {"person": BO, "stage": "manager", "why": "changes were asked for"}
        ]
