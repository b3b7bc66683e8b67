"""Whom a Slack account means: its profile's address, in whatever spelling, and who of the workspace is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from approvals_bot.approvals.acts import Reassign, Vote
from approvals_bot.service.act import perform
from tests.support.slack_office import DEPLOY, Office

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
