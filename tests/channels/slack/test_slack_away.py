"""Absences from Slack's Home tab: who is asked instead, and what can't be entered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from approvals_bot.people import People
from approvals_bot.people.absences import Absence
from approvals_bot.service.catalog import Catalog
from approvals_bot.service.known import KnownPeople
from approvals_bot.service.own_people import OwnPeopleStore
from tests.support.slack_office import Office

ANN = "ann@acme.eu"


@pytest.fixture
def staffed(office: Office) -> Office:
    """The office with what the service has for people's own settings."""
    people, store = office.slack.desk.identities.people, OwnPeopleStore(office.engine)
    people.own = store.known
    office.engine.resources |= {People: people, OwnPeopleStore: store, KnownPeople: KnownPeople(people, Catalog({}))}
    return office


async def opened(office: Office) -> dict[str, Any]:
    await office.slack.home.opened("U0ANN", "T0PLAY")
    tab = office.playground.workspace.homes["U0ANN"]
    answer = await office.call("/slack/click", {"user": "U0ANN", "view_id": tab, "button": "Out of office"})
    view: dict[str, Any] = answer["view"]
    return view


def days(first: str = "", last: str = "", delegate: str = "", remove: str = "") -> dict[str, Any]:
    given = {"first": first, "last": last, "delegate": delegate, "remove": remove}
    return {name: {"value": value} for name, value in given.items() if value}


def home_of(office: Office) -> str:
    view = office.playground.person.home_of(office.playground.workspace.users["U0ANN"])
    return json.dumps(view.blocks) if view else ""


async def test_a_person_is_away_by_the_home_tab(staffed: Office) -> None:
    office, people = staffed, staffed.slack.desk.identities.people
    answer = await office.submit("U0ANN", await opened(office), days("2026-01-01", "2026-01-03", "U0DI"))
    assert not answer.get("errors")
    assert people.own.of(ANN).away[0].delegates == ("di@acme.eu",)
    away = people.away(ANN, office.clock.now())
    assert away is not None
    assert away.delegates == ("di@acme.eu",)
    await office.until(lambda: "Out of office: 1 Jan 2026 to 3 Jan 2026, Di Oz in your place" in home_of(office))
    (line,) = [one.entry for one in await office.engine.audit_lines() if one.entry.what == "settings_changed"]
    assert (line.who, line.actor) == (ANN, {"kind": "slack", "id": "U0ANN"})

    view = await opened(office)
    (kept,) = [block["element"]["options"] for block in view["blocks"] if block.get("block_id") == "remove"]
    assert [option["text"]["text"] for option in kept] == ["1 Jan 2026 to 3 Jan 2026, Di Oz in your place"]
    await office.submit("U0ANN", view, days(remove=kept[0]["value"]))
    assert people.own.of(ANN).away == ()
    await office.until(lambda: "Out of office: " not in home_of(office))


async def test_absences_that_make_no_sense_are_refused_beside_them(staffed: Office) -> None:
    office = staffed
    office.slack.desk.identities.people._away[ANN] = (Absence(office.clock.now().date(), office.clock.now().date()),)
    view = await opened(office)
    assert "In your company's directory: 1 Jan 2026 to 1 Jan 2026" in json.dumps(view["blocks"])
    for values, about, why in (
        ({}, "first", "Choose the days"),
        (days("2026-01-03", "2026-01-01"), "first", "The last one can't be before the first"),
        (days("2026-01-01"), "first", "Enter the first and the last day"),
        (days("2025-01-01", "2025-01-02"), "first", "or over"),
        (days("2026-01-01", "2026-01-02", "U0ANN"), "delegate", "or it's you"),
        (days("2026-01-01", "2026-01-02", "U0GUEST"), "delegate", "This person can't decide here"),
    ):
        answer = await office.submit("U0ANN", view, values)
        assert why in answer["errors"][about], (values, answer)
    assert office.slack.desk.identities.people.own.of(ANN).away == ()
