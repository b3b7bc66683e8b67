"""Whom a Slack account means: its profile's address, in whatever spelling, and who of the workspace is known."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.approvals.acts import Reassign, Vote
from approvals_bot.channels.slack.identity import Identified, SlackTeam, Unidentified
from approvals_bot.channels.slack.manifest import SCOPES
from approvals_bot.people import People, Person
from approvals_bot.playground import SeedApp, User
from approvals_bot.service.act import perform
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET
from tests.support.slack_office import DEPLOY, PEOPLE, Office, Open

TWO = [DEPLOY["stage"][0] | {"need": 2}]


def write_profile(office: Office, user: str, address: str) -> None:
    """Give this account another address in its profile."""
    known = office.playground.workspace.users[user]
    changed = replace(known, person=replace(known.person, address=address))
    office.playground.workspace.users[user] = office.playground.workspace.by_address[address.lower()] = changed


async def hook_of(office: Office, run_id: str) -> str:
    record = await office.engine.record(run_id)
    assert record is not None
    hook: str = record.parts[0]["hook_id"]
    return hook


@pytest.mark.parametrize("profile", ["Cy@ACME.eu", "cy+slack@acme.eu", "cy@acme\uff0eeu"])
async def test_a_profile_in_another_spelling_is_no_second_person(office: Office, profile: str) -> None:
    write_profile(office, "U0CY", profile)
    run_id = await office.ask(stage=TWO)
    assert (await perform(office.engine, await hook_of(office, run_id), Vote("cy@acme.eu"))).verdict == "counted"
    answer = await office.press("U0CY", "Approve")
    assert answer["ephemeral"].startswith("You've already approved this")
    assert [vote["by"] for vote in await office.votes(run_id) if vote["counts"]] == ["cy@acme.eu"]


async def test_a_profile_in_another_spelling_does_not_decide_an_own_request(office: Office) -> None:
    write_profile(office, "U0CY", "cy+slack@acme.eu")
    await office.ask(requester="cy@acme.eu")
    assert "own request" in (await office.press("U0CY", "Approve"))["ephemeral"]


async def test_a_profile_without_an_address_identifies_nobody(office: Office) -> None:
    write_profile(office, "U0CY", "cy\u200b@acme.eu")
    run_id = await office.ask()
    assert "no email address" in (await office.press("U0CY", "Approve"))["ephemeral"]
    assert await office.votes(run_id) == []


async def test_members_of_the_workspace_are_known_and_guests_are_not(office: Office) -> None:
    run_id = await office.ask(stage=TWO)
    hook = await hook_of(office, run_id)
    outsiders = {user.kind: user for user in office.playground.workspace.users.values() if user.kind != "bot"}
    for kind in ("guest", "deactivated"):
        if kind in outsiders:
            reply = await perform(office.engine, hook, Reassign("ann@acme.eu", outsiders[kind].address))
            assert reply.verdict == "invalid"
            assert reply.text.startswith("We don't know")
    member = replace(office.playground.workspace.users["U0CY"])
    person = replace(member.person, address="new@acme.eu", slack="U0NEW")
    office.playground.workspace.add_people_and_channels([replace(member, person=person)], ())
    reply = await perform(office.engine, hook, Reassign("ann@acme.eu", "New+1@acme.eu"))
    assert reply.verdict == "reassigned"


# ── Enterprise Grid ───────────────────────────────────────────────────────────────────────────────────────────────

GRID = SeedApp(BOT_TOKEN, SIGNING_SECRET, scopes=SCOPES, enterprise_id="E0ACME")
NEAR_AND_FAR = (
    User(Person("sue@acme.eu", "Sue Sister", "U0SUE"), "sister"),
    User(Person("pat@partner.example", "Pat Partner", "U0PAT"), "partner"),
)


async def grid_office(open_office: Open, app: SeedApp = GRID) -> Office:
    office = await open_office(app=app)
    office.playground.workspace.add_people_and_channels(NEAR_AND_FAR, ())
    return office


@pytest.mark.check(13)
async def test_colleagues_of_a_sister_workspace_decide(open_office: Open) -> None:
    office = await grid_office(open_office)
    run_id = await office.ask(stage=[TWO[0] | {"from": ["sue@acme.eu", "cy@acme.eu"]}])
    answer = await office.press("U0SUE", "Approve")
    assert answer["ephemeral"].startswith("Counted: 1 of 2.")
    await office.command("U0SUE")
    assert [vote["by"] for vote in await office.votes(run_id)] == ["sue@acme.eu"]
    home = await office.call("/slack/home?user=U0SUE")
    assert "Deploy api 2.1" in json.dumps(home)


@pytest.mark.check(13)
@pytest.mark.parametrize("user", ["U0PAT", "U0STRANGER", "U0GUEST"])
async def test_partners_and_guests_of_a_grid_stay_outside(open_office: Open, user: str) -> None:
    """Slack doesn't call partners strangers, and what it sends about their press names our enterprise."""
    office = await grid_office(open_office)
    addresses = [one.address for one in office.playground.workspace.users.values() if one.kind != "bot"]
    run_id = await office.ask(stage=[TWO[0] | {"from": addresses}])
    office.invite(user)
    assert "so you can't use Approvals" in (await office.press(user, "Approve"))["ephemeral"]
    assert await office.votes(run_id) == []
    member = await office.slack.desk.identities.slack_people.has_member("pat@partner.example")
    assert not member


async def test_without_a_grid_a_sister_is_a_stranger(open_office: Open) -> None:
    office = await grid_office(open_office, replace(GRID, enterprise_id=""))
    run_id = await office.ask(stage=[TWO[0] | {"from": ["sue@acme.eu", "cy@acme.eu"]}])
    assert "so you can't use Approvals" in (await office.press("U0SUE", "Approve"))["ephemeral"]
    assert await office.votes(run_id) == []


async def test_a_configured_id_counts_from_elsewhere_once_slack_says_whose(open_office: Open) -> None:
    office = await grid_office(open_office)
    identities = office.slack.desk.identities
    identities.people = People((*PEOPLE, Person("sue@acme.eu", "Sue", "U0SUE"), Person("pat@acme.eu", "", "U0PAT")), {})
    office.fault("error", "users.info", error="internal_error")
    assert isinstance(await identities.identify("U0SUE", "T0SISTER"), Unidentified)
    assert await identities.identify("U0SUE", "T0SISTER") == Identified("sue@acme.eu", "U0SUE")
    assert isinstance(await identities.identify("U0PAT", "T0OTHER"), Unidentified)
    await office.clock.advance(timedelta(minutes=2))
    office.fault("error", "users.info", error="internal_error")
    assert await identities.identify("U0SUE", "T0SISTER") == Identified("sue@acme.eu", "U0SUE"), "its team is known now"


@pytest.mark.parametrize(
    ("payload", "is_ours"),
    [
        ({"team": {"id": "T0SISTER", "enterprise_id": "E0ACME"}, "enterprise": None}, True),
        ({"team": None, "enterprise": {"id": "E0ACME"}}, True),
        ({"team_id": "T0SISTER", "enterprise_id": "E0ACME"}, True),
        ({"team": {"id": "T0SISTER"}}, False),
        ({"team": {"id": "T0OTHER", "enterprise_id": "E0OTHER"}, "enterprise": {"id": "E0OTHER"}}, False),
        ({"team": {"id": "T0PLAY"}, "api_app_id": "A0ELSE"}, False),
    ],
)
def test_payloads_of_our_grid_are_ours(payload: dict[str, Any], is_ours: bool) -> None:
    assert SlackTeam("T0PLAY", "E0ACME", "A0").sent(payload) is is_ours


OURS = SlackTeam(team="E0ACME", enterprise="E0ACME", app="A1")  # installed in the whole organisation


@pytest.mark.parametrize(
    ("payload", "is_ours"),
    [
        ({"team": None, "enterprise": {"id": "E0ACME"}, "user": {"id": "W012", "team_id": "T0SISTER"}}, True),
        ({"team_id": "T0SISTER", "enterprise_id": "E0ACME", "user_id": "W012"}, True),
        ({"team_id": "T0SISTER", "authorizations": [{"enterprise_id": "E0ACME", "team_id": None}]}, True),
        ({"team_id": "T0OTHER", "authorizations": [{"enterprise_id": "E0OTHER", "team_id": "T0OTHER"}]}, False),
        ({"team": {"id": "T0OTHER", "enterprise_id": "E0OTHER"}, "enterprise": {"id": "E0OTHER"}}, False),
        ({"team": {"id": "T0OTHER"}, "enterprise": None, "user": {"id": "U9", "team_id": "T0OTHER"}}, False),
    ],
    ids=["press", "command", "event", "another's event", "another Grid", "a workspace"],
)
def test_an_organisations_app_knows_its_own_payloads(payload: dict[str, Any], is_ours: bool) -> None:
    assert OURS.sent(payload | {"api_app_id": "A1"}) is is_ours
    assert not OURS.sent(payload | {"api_app_id": "A2"})
