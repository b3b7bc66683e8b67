"""The pages of workflows: who sees them, what they show, and a simulation that sends nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest

from approvals_bot.approvals.policy import Definition, digest
from approvals_bot.people import Person
from approvals_bot.service.workflow_figures import DAYS, Lifetime, days_of
from approvals_bot.web.charts import decision_chart, draw_stages, open_chart
from tests.support.posting import a_kept_port
from tests.support.staffed_house import StaffedHouse, a_staffed_house, token_of

ANN, BO, CY, DI, EVE = (f"{name}@acme.eu" for name in ("ann", "bo", "cy", "di", "eve"))
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SHIP = """
[workflow]
id = "ship"
title = "Ship {{ version }}"
description = "Puts a version into production."
request = ["bo@acme.eu"]
viewers = ["eve@acme.eu"]
[fields]
version = "string"
risk = { type = "enum", values = ["low", "high"], default = "low" }
[[auto]]
when = 'version == "0"'
decision = "reject"
[[stage]]
id = "leads"
title = "Release leads"
[[stage.seat]]
from = ["ann@acme.eu", "cy@acme.eu"]
need = 2
[[stage]]
id = "security"
when = 'risk == "high"'
from = ["cy@acme.eu"]
need = "all"
[deliver]
email = true
[clock]
deadline = "4h"
remind = ["30m"]
[[escalate]]
after = "3h"
to = ["di@acme.eu"]
"""
HIDDEN = """
[workflow]
id = "hidden"
title = "Hidden"
request = ["ann@acme.eu"]
[[stage]]
id = "go"
from = ["di@acme.eu"]
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[StaffedHouse]:
    with a_kept_port() as port:
        async with a_staffed_house(tmp_path, {"ship": SHIP, "hidden": HIDDEN}, port) as house:
            yield house


def words(page: str) -> str:
    """Return the text of a page, with single spaces."""
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


async def test_workflows_are_for_their_requesters_and_viewers(house: StaffedHouse) -> None:
    for person, ship, hidden in (("", 401, 401), (BO, 200, 404), (EVE, 200, 404), (ANN, 404, 200), (CY, 200, 200)):
        for name, status in (("ship", ship), ("hidden", hidden)):
            assert (await house.get(f"/workflows/{name}", person)).status_code == status, (person, name)
            if person:
                listed = (await house.get("/workflows", person)).text
                assert (f'href="/workflows/{name}"' in listed) == (status == 200), (person, name)
    assert (await house.get("/workflows/none", DI)).status_code == 404
    assert (await house.get("/workflows")).status_code == 401
    listed = (await house.get("/workflows", BO)).text
    assert '<a href="/workflows" aria-current="page">Workflows</a>' in listed
    assert "Release leads → Security" in listed
    assert 'href="/requests/new/ship"' in listed
    assert 'href="/requests/new/ship"' not in (await house.get("/workflows", EVE)).text


async def test_a_workflow_is_drawn_and_worded_with_its_figures(house: StaffedHouse) -> None:
    old = digest(house.configured().workflows[1])
    for minutes, version in ((10, "1"), (30, "2"), (50, "3")):
        run = await house.open("ship", version=version)
        await house.clock.advance(f"{minutes}m")
        for by in (ANN, CY):
            await house.vote(run, by)
    await house.open("ship", version="4")
    file = house.folder / "workflows" / "ship.toml"
    file.write_text(SHIP.replace('deadline = "4h"', 'deadline = "5h"'))
    house.service.reload(house.configured())
    await house.open("ship", version="5")
    page = (await house.get("/workflows/ship", BO)).text
    now = digest(house.configured().workflows[1])
    assert '<svg class="flow"' in page
    assert page.count('role="img" aria-label="') == 3
    for said in (
        "Release leads 2 of Ann Ode or Cy Ek",
        "Security If the risk is high everyone of Cy Ek",
        "After 30 minutes: a reminder to people who still owe a vote",
        "After 3 hours: escalation: di@acme.eu is asked too",
        "After 5 hours: deadline: then it expires",
        "Rejected if the version is 0",
        "2 open now; half of the decisions took 30 minutes or less.",
        f"1 of this file's version, {now[:12]}",
        f"1 of an earlier version, {old[:12]}",
        f"Version {now}",
        'deadline = "5h"',
    ):
        assert said in words(page), said


async def test_a_simulation_says_what_would_happen_and_sends_nothing(house: StaffedHouse) -> None:
    async with await house.as_person(BO) as bo:
        page = (await bo.get("/workflows/ship")).text
        form = {"form_token": token_of(page), "field.version": "2.1", "field.risk": "low"}
        shown = await bo.post("/workflows/ship/simulation", data=form)
        assert shown.status_code == 200
        for said in (
            "Release leads Needs 2 of 2, Ann Ode or Cy Ek.",
            "Ann Ode (ann@acme.eu) named in the workflow · mail",
            "Security – skipped Because the risk is low (not high).",
            "In 3 hours, it escalates to Di Oz (mail).",
            "in 4 hours : deadline: then it expires",
        ):
            assert said in words(shown.text), said
        assert 'value="2.1"' in shown.text
        refused = await bo.post("/workflows/ship/simulation", data=form | {"field.version": ""})
        assert refused.status_code == 422
        assert "is required" in words(refused.text).lower()
        stale = await bo.post("/workflows/ship/simulation", data=form, headers={"Sec-Fetch-Site": "cross-site"})
        assert stale.status_code == 403
        rejected = await bo.post("/workflows/ship/simulation", data=form | {"field.version": "0"})
        assert "Rejected at once" in words(rejected.text)
        named = await bo.post("/workflows/ship/simulation", data=form | {"requester": ANN})
        assert "Ann Ode (ann@acme.eu)" in words(named.text)  # only viewers simulate for others
        assert (await bo.post("/workflows/hidden/simulation", data=form)).status_code == 404
    async with await house.as_person(DI) as di:
        form["form_token"] = token_of((await di.get("/workflows/ship")).text)
        for_ann = words((await di.post("/workflows/ship/simulation", data=form | {"requester": ANN})).text)
        assert "Ann Ode (ann@acme.eu) named" not in for_ann
        assert "Ann Ode can’t decide here: the requester." in for_ann
        assert "Nobody could decide: stage leads" in for_ann
        assert (await di.post("/workflows/ship/simulation", data=form | {"requester": "no"})).status_code == 422
    assert (await house.service.engine.records()).records == []
    assert house.mailbox.mails == []


def test_days_count_what_was_open_and_how_long_it_took() -> None:
    yesterday = NOON - timedelta(days=1)
    lifetimes = [
        Lifetime(NOON - timedelta(days=80), None),
        Lifetime(yesterday - timedelta(hours=1), yesterday, is_decided=True),
        Lifetime(yesterday - timedelta(hours=3), yesterday, is_decided=True),
        Lifetime(yesterday, NOON - timedelta(hours=1), is_decided=False),  # withdrawn
        Lifetime(NOON, None),
    ]
    days = days_of(lifetimes, NOON - timedelta(days=90), NOON)
    assert len(days) == DAYS
    assert [(day.open, day.decided, day.seconds) for day in days[-3:]] == [(1, 0, None), (2, 2, 7_200.0), (1, 0, None)]
    assert len(days_of(lifetimes, NOON - timedelta(days=3), NOON)) == 3
    assert open_chart(days).words == "Open requests from 1 Feb to 2 Mar: highest: 2, lastly 1."
    assert decision_chart(days).words == "Time to a decision from 1 Feb to 2 Mar: highest: 2 hours, lastly 2 hours."
    assert decision_chart(days[:3]).bars == ()


def person(address: str) -> Person:
    return Person(address, address)


def test_marks_of_the_clock_are_in_order_and_apart() -> None:
    clock = {"deadline": "4h", "remind": ["3h50m", "3h55m", "10m"]}
    stages = [{"id": f"s{n}", "from": ["ann@acme.eu"], "need": 20} for n in range(3)]
    drawing = draw_stages(Definition.model_validate(
        {"workflow": {"id": "x", "request": ["*"]}, "stage": stages, "clock": clock}
    ), NOON, person)  # fmt: skip
    assert [mark.after for mark in drawing.marks] == ["10 minutes", "4 hours", "4 hours", "4 hours"]
    assert [mark.row for mark in drawing.marks] == [0, 0, 1, 2]
    assert all(0 < mark.x < drawing.width for mark in drawing.marks)
    assert [stage.seats[0].places for stage in drawing.stages] == [8] * 3
    assert not draw_stages(
        Definition.model_validate({"workflow": {"id": "y", "request": ["*"]}, "stage": stages}), NOON, person
    ).marks
