"""Simulation and explanation of requests."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from approvals_bot.approvals.explain import explain
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.request import Opening
from approvals_bot.approvals.resolution import find_undecidable_stage
from approvals_bot.approvals.simulate import simulate
from approvals_bot.errors import InvalidPayloadError

ANN, BO, CY, DI, CFO = (f"{address}@acme.eu" for address in ("ann", "bo", "cy", "di", "cfo"))
SAMPLES = Path(__file__).parents[2] / "workflows"
RISKY: dict[str, Any] = {"service": "api", "version": "2.1", "env": "prod", "risk": "high"}


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.toml").read_text()


def definition(name: str) -> Definition:
    return Definition.model_validate(tomllib.loads(sample(name)))


async def test_a_simulation_lists_approvers_and_times(office: Any) -> None:
    said = await simulate(definition("deploy"), Opening(RISKY, ANN), office.people, office.clock.now())
    assert said["who"] == [
        {"person": BO, "stage": "go", "why": "in Release managers, in SRE", "via": "#deploys, mail"},
        {"person": CY, "stage": "go", "why": "in Release managers, in SRE", "via": "#deploys, mail"},
        {"person": DI, "stage": "go", "why": "in SRE", "via": "#deploys, mail"},
    ]
    assert said["auto"] is None
    assert said["timers"] == [
        {"at": "2026-03-02T09:30:00Z", "what": "a reminder to people who still owe a vote"},
        {"at": "2026-03-02T10:00:00Z", "what": "escalation: oncall:sre are asked too"},
        {"at": "2026-03-02T11:00:00Z", "what": "a reminder to people who still owe a vote"},
        {"at": "2026-03-02T13:00:00Z", "what": "deadline: then it is rejected"},
    ]


async def test_the_last_deadline_says_that_it_expires(office: Any) -> None:
    """All escalations of this file come before its deadline, so none is left for it."""
    text = sample("deploy").replace('on_deadline = "reject"', 'on_deadline = "escalate"')
    escalating = Definition.model_validate(tomllib.loads(text))
    said = await simulate(escalating, Opening(RISKY, ANN), office.people, office.clock.now())
    assert said["timers"][-1]["what"] == "deadline: then it expires"
    async with office.open():
        opened = await office.ask(text, RISKY, by=ANN)
        assert (await opened.view()).on_deadline == "then it expires"
        await office.clock.advance("4h")
        assert (await opened.view()).state == "expired"


async def test_a_simulation_names_the_rule_that_would_decide(office: Any) -> None:
    fields: dict[str, Any] = {**RISKY, "env": "staging", "risk": "low"}
    said = await simulate(definition("deploy"), Opening(fields, ANN), office.people, office.clock.now())
    assert (said["who"], said["auto"]["decision"], said["auto"]["rule"]) == ([], "approve", 1)


async def test_a_simulation_shows_approvers_who_get_no_card(office: Any) -> None:
    fields: dict[str, Any] = {"account": "aws-prod", "role": "admin", "reason": "the database is on fire again"}
    said = await simulate(definition("prod-access"), Opening(fields, ANN), office.people, office.clock.now())
    assert [(one["person"], one["via"]) for one in said["who"]] == [
        (CY, "dm, mail"),
        (BO, "not notified"),
        (DI, "not notified"),
    ]


async def test_a_simulation_of_invalid_fields_names_them(office: Any) -> None:
    with pytest.raises(InvalidPayloadError) as failure:
        await simulate(definition("deploy"), Opening({"service": "api"}, ANN), office.people, office.clock.now())
    assert {error["loc"][-1] for error in failure.value.errors} == {"version", "env"}


async def test_an_undecidable_stage_is_found_before_opening(office: Any) -> None:
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
        "nobody can approve for the manager of Fay Cash (manager-of:requester: Fay Cash has no manager)",
    )


async def test_an_explanation_says_why_it_waits_and_what_is_next(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("deploy"), RISKY, by="app:ci")
        await opened.vote(BO)
        said = explain(await opened.view())
        assert said["waiting_for"] == [
            {"person": ANN, "stage": "go", "why": "in Release managers"},
            {"person": CY, "stage": "go", "why": "in Release managers, in SRE"},
            {"person": DI, "stage": "go", "why": "in SRE"},
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
        (stage,) = said["stages"]
        assert [(seat["label"], seat["have"], seat["need"], seat["of"]) for seat in stage["seats"]] == [
            ("Release managers", 1, 1, 3),
            ("SRE", 0, 2, 3),
        ]
        assert {(one["person"], one["channel"]) for one in said["reached"]} >= {(DI, "email")}
        assert said["next"][0] == {"at": "2026-03-02T09:30:00Z", "what": "a reminder to people who still owe a vote"}
        await opened.vote(ANN)
        await opened.vote(CY)
        said = explain(await opened.view())
        assert (said["waiting_for"], said["next"]) == ([], [])


async def test_requested_changes_wait_for_the_requester(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("expense"), {"amount": "80", "purpose": "a desk", "team": "eng"}, by=BO)
        await opened.vote(ANN, "changes", comment="cheaper?")
        assert explain(await opened.view())["waiting_for"] == [
            {"person": BO, "stage": "manager", "why": "changes were asked for"}
        ]


async def test_an_explanation_names_whom_an_act_is_by_and_who_performed_it(office: Any) -> None:
    async with office.open():
        opened = await office.ask(sample("deploy"), RISKY, by=ANN)
        await opened.vote(BO, actor={"kind": "app", "id": "app:desk", "key": "desk"})
        acts = explain(await opened.view())["acts"]
    assert [(act["by"], act["what"], act["via"], act["actor"]) for act in acts] == [
        (BO, "approve", "api", {"kind": "app", "id": "app:desk", "key": "desk"})
    ]
