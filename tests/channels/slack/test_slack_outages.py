"""Clicks while Slack's API is down, hanging or busy: each is acknowledged in time, and the person hears of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from approvals_bot.channels.slack import desk
from approvals_bot.channels.slack.client import SlackError
from approvals_bot.channels.slack.identity import UNSURE, SlackIdentities
from approvals_bot.channels.slack.members import GROUP_MEMORY, GROUP_SPARE, SlackPeople
from approvals_bot.durable.store.audit import AuditEntry
from approvals_bot.people import SourceUnavailable
from approvals_bot.playground import APP_ID
from tests.support.slack_office import DEPLOY, Office

METHODS = ("auth.test", "users.info", "views.open", "chat.update", "chat.postEphemeral", "views.publish")
OUTAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "down": ("drop_before", {}),
    "hanging": ("slow", {"seconds": 4.0}),
    "busy": ("rate_limited", {}),
    "broken": ("server_error", {}),
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "FIRST_RETRY", 0.1)
    monkeypatch.setattr(desk, "LAST_RETRY", 0.2)


def break_slack(office: Office, outage: str, *methods: str) -> None:
    for method in methods:
        kind, more = OUTAGES[outage]
        office.fault(kind, method, times=None, **more)


async def heard(office: Office, user: str, is_said: Callable[[str], bool]) -> None:
    await office.until(lambda: any(is_said(message.text) for message in office.ephemerals(user)))


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize(
    ("user", "button", "said"),
    [
        ("U0ANN", "Approve", "Approved."),
        ("U0ANN", "Reject", "Slack couldn't open the form."),
        ("U0CY", "Approve", UNSURE),
    ],
    ids=["named in the configuration", "needs a form", "known to Slack alone"],
)
async def test_a_click_is_answered_in_time_and_explained(
    office: Office, outage: str, user: str, button: str, said: str
) -> None:
    run_id = await office.ask()
    await office.slack.desk.identities.workspace()
    break_slack(office, outage, *METHODS)
    answer = await office.press(user, button)
    assert (answer["status"], answer["ack_ms"] < 2_500) == (200, True), answer
    await heard(office, user, lambda text: text.startswith(said))
    assert len(await office.votes(run_id)) == (1 if said == "Approved." else 0)


@pytest.mark.parametrize("outage", OUTAGES)
async def test_nobody_votes_while_our_workspace_is_unknown(office: Office, outage: str) -> None:
    run_id = await office.ask()
    break_slack(office, outage, *METHODS)
    answer = await office.press("U0ANN", "Approve")
    assert (answer["status"], answer["ack_ms"] < 2_500) == (200, True), answer
    await heard(office, "U0ANN", lambda text: text == UNSURE)
    assert await office.votes(run_id) == []

    async def refused() -> list[AuditEntry]:
        return [line.entry for line in await office.engine.audit_lines() if line.entry.what == "act_refused"]

    async with asyncio.timeout(60):  # the line is written beside the answer, which never waits for it
        while not (lines := await refused()):
            await asyncio.sleep(0.01)
    assert [(line.who, line.data["verdict"]) for line in lines] == [("slack:U0ANN", "group_unknown")]
    office.playground.slack_faults.clear()
    async with asyncio.timeout(20):
        while office.slack.desk.identities.known_workspace is None:
            await asyncio.sleep(0.1)
            with suppress(SlackError, TimeoutError):
                await office.slack.desk.identities.workspace()
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["by"] == "ann@acme.eu"


async def test_a_workspace_learnt_once_is_known_at_the_next_start(office: Office) -> None:
    run_id, identities = await office.ask(), office.slack.desk.identities
    await identities.learn(office.engine)
    known = identities.known_workspace
    again = SlackIdentities(
        client=office.slack.desk.client, slack_people=identities.slack_people, people=identities.people
    )
    break_slack(office, "broken", *METHODS)
    learning = asyncio.create_task(again.learn(office.engine))
    async with asyncio.timeout(60):
        while again.known_workspace is None:
            await asyncio.sleep(0.01)
    learning.cancel()
    assert again.known_workspace == known
    assert await office.votes(run_id) == []


@pytest.mark.parametrize("outage", ["down", "busy", "broken"])
async def test_a_person_hears_once_slack_is_back(office: Office, outage: str) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"need": 2}])
    await office.slack.desk.identities.workspace()
    break_slack(office, outage, "response_url")
    answer = await office.press("U0ANN", "Approve")
    assert (answer["status"], answer["ephemeral"]) == (200, None)
    assert len(await office.votes(run_id)) == 1
    office.playground.slack_faults.clear()
    await heard(office, "U0ANN", lambda text: text.startswith("Counted: 1 of 2."))


@pytest.mark.parametrize("stops", [True, False], ids=["the service stops", "Slack is away for long"])
async def test_a_late_reply_survives_a_restart(office: Office, stops: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = await office.ask(requester="ann@acme.eu")
    await office.slack.desk.identities.workspace()
    monkeypatch.setattr(desk, "KEPT_AFTER", 1_000.0 if stops else 0.0)
    monkeypatch.setattr(desk, "CLOSE_LIMIT", 0.2)
    break_slack(office, "broken", "response_url", "chat.postEphemeral")
    assert (await office.press("U0ANN", "Approve"))["ephemeral"] is None
    if stops:
        await office.slack.aclose()
    await office.until(lambda: not office.slack.desk.afterwards.is_busy)
    assert await office.votes(run_id) == []
    [kept] = (await office.engine.runs(workflow="slack_reply")).records
    assert "response" not in json.dumps([event.data for event in await office.engine.events(kept.id)])
    office.playground.slack_faults.clear()
    await office.clock.advance("1m")
    await heard(office, "U0ANN", lambda text: text == "You can't approve your own request.")
    assert (await office.engine.wait(kept.id, 5.0)).result == "sent"


async def test_a_reply_with_an_own_link_is_not_kept(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.ask()
    await office.slack.desk.identities.workspace()
    monkeypatch.setattr(desk, "KEPT_AFTER", 0.0)
    break_slack(office, "broken", "response_url", "views.open")
    await office.press("U0ANN", "Reject")
    await asyncio.sleep(0.5)
    assert not (await office.engine.runs(workflow="slack_reply")).records
    office.playground.slack_faults.clear()
    await heard(office, "U0ANN", lambda text: "open the form" in text and text.endswith("|Open the request>"))


async def test_a_verdict_that_waits_for_slack_comes_later(office: Office) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"from": ["slack:@sre"]}])
    await office.slack.desk.identities.workspace()
    await office.clock.advance(GROUP_SPARE + 1)
    office.fault("slow", "usergroups.users.list", seconds=1.8)
    answer = await office.press("U0ANN", "Approve")
    assert (answer["status"], answer["ack_ms"] < 2_500) == (200, True), answer
    await heard(office, "U0ANN", lambda text: text.startswith("Your choice is saved"))
    await heard(office, "U0ANN", lambda text: text.startswith("Approved."))
    assert (await office.ended(run_id))["by"] == "ann@acme.eu"


async def test_members_are_asked_again_and_kept_only_while_slack_says_429(office: Office) -> None:
    now = 1_000.0
    people = SlackPeople(office.slack.desk.client, monotonic=lambda: now)
    assert await people.members("sre") == ("ann@acme.eu", "cy@acme.eu")
    await office.call("/slack/groups", {"group": "sre", "members": ["ann@acme.eu"]})
    assert len(await people.members("sre")) == 2
    now += GROUP_MEMORY + 1
    office.fault("rate_limited", "usergroups.users.list", retry_after=0)
    assert len(await people.members("sre")) == 2
    assert await people.members("sre") == ("ann@acme.eu",)
    now += GROUP_MEMORY + 1
    office.fault("server_error", "usergroups.users.list")
    with pytest.raises(SourceUnavailable):
        await people.members("sre")
    now += GROUP_SPARE
    office.fault("rate_limited", "usergroups.users.list", retry_after=0)
    with pytest.raises(SourceUnavailable):
        await people.members("sre")


async def test_a_change_that_slack_reports_counts_at_once(office: Office) -> None:
    people = office.slack.desk.identities.slack_people
    assert len(await people.members("sre")) == 2
    await office.call("/slack/groups", {"group": "sre", "members": ["cy@acme.eu"]})
    event = {"type": "subteam_members_changed", "subteam_id": "S0SRE"}
    payload = {
        "type": "event_callback",
        "event": event,
        "event_id": "Ev1",
        "team_id": office.playground.workspace.app.team_id,
        "api_app_id": APP_ID,
    }
    status, _ = await office.playground.outbound.post("events_api", payload, None)
    assert status == 200
    assert await people.members("sre") == ("cy@acme.eu",)
