"""Besides deciding: undoing a vote, asking why me; and what outsiders and forged clicks can't do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from approvals_bot.channels.slack.identity import DEACTIVATED
from approvals_bot.playground import APP_ID
from tests.support.slack_office import DEPLOY, Office, Open

TWO = [DEPLOY["stage"][0] | {"need": 2}]


async def buttons_shown_to(office: Office, user: str) -> list[str]:
    return [
        element["action_id"]
        for block in office.ephemerals(user)[-1].blocks
        if block["type"] == "actions"
        for element in block["elements"]
    ]


# ── changed your mind? ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_counted_vote_can_be_undone_with_the_replys_button(office: Office) -> None:
    run_id = await office.ask(stage=TWO)
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("Counted: 1 of 2.")
    (shown,) = office.ephemerals("U0ANN")
    assert await buttons_shown_to(office, "U0ANN") == ["vote:take_back"]
    back = await office.press("U0ANN", "Undo vote", ts=shown.ts)
    assert back["ephemeral"].startswith("Undone: your vote no longer counts.")
    assert [vote["counts"] for vote in await office.votes(run_id)] == [False]
    (replaced,) = office.ephemerals("U0ANN")
    assert replaced.blocks == ()


async def test_a_vote_from_a_form_can_be_undone_too(office: Office) -> None:
    run_id = await office.ask(stage=[TWO[0] | {"ask": {"budget_code": "string"}}])
    view = (await office.press("U0ANN", "Approve"))["view"]
    await office.submit("U0ANN", view, {"ask:budget_code": {"value": "AB-1"}})
    assert await buttons_shown_to(office, "U0ANN") == ["vote:take_back"]
    await office.press("U0ANN", "Undo vote", ts=office.ephemerals("U0ANN")[-1].ts)
    assert [vote["counts"] for vote in await office.votes(run_id)] == [False]


async def test_a_deciding_vote_cannot_be_undone(office: Office) -> None:
    await office.ask()
    await office.press("U0ANN", "Approve")
    assert await buttons_shown_to(office, "U0ANN") == []


async def test_undoing_after_the_decision_shows_the_outcome(office: Office) -> None:
    run_id = await office.ask(stage=TWO)
    await office.press("U0ANN", "Approve")
    (shown,) = office.ephemerals("U0ANN")
    await office.press("U0CY", "Approve")
    await office.ended(run_id)
    late = await office.press("U0ANN", "Undo vote", ts=shown.ts)
    assert late["ephemeral"].startswith("Already decided by Cy Rus")


@pytest.mark.check(36)
async def test_the_home_tab_keeps_votes_with_a_way_to_undo_them(office: Office) -> None:
    run_id = await office.ask(stage=TWO)
    await office.press("U0ANN", "Approve")
    home = await office.call("/slack/home?user=U0ANN")
    assert "You voted; others are still deciding" in json.dumps(home)
    where = {"view_id": home["view"]["id"], "action_id": "vote:take_back"}
    await office.call("/slack/click", {"user": "U0ANN"} | where)
    assert [vote["counts"] for vote in await office.votes(run_id)] == [False]


# ── why me? ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (
            "U0ANN",
            "You're an approver because you're named in the workflow. Also waiting for Cy Rus (named in the workflow).",
        ),
        ("U0BO", "You requested this. Waiting for Ann Ode (named in the workflow) and Cy Rus"),
        ("U0DI", "You're not an approver for this request. Waiting for Ann Ode"),
    ],
)
async def test_everybody_can_see_why_they_or_others_are_approvers(office: Office, user: str, said: str) -> None:
    run_id = await office.ask()
    answer = await office.press(user, "Why me?")
    assert answer["ephemeral"].startswith(said)
    assert await office.votes(run_id) == []


# ── guests and people of other workspaces ─────────────────────────────────────────────────────────────────────────


@pytest.mark.check(13)
@pytest.mark.parametrize("user", ["U0GUEST", "U0STRANGER"])
async def test_outsiders_read_that_they_cannot_use_it(open_office: Open, user: str) -> None:
    office = await open_office()
    run_id = await office.ask()
    office.invite(user)
    for button in ("Approve", "Why me?"):
        answer = await office.press(user, button)
        assert "so you can't use Approvals in Slack. Nothing was changed." in answer["ephemeral"]
    home = await office.call(f"/slack/home?user={user}")
    assert "so you can't use Approvals in Slack" in json.dumps(home)
    assert await office.votes(run_id) == []


@pytest.mark.check(13)
@pytest.mark.parametrize("user", ["U0GUEST", "U0STRANGER"])
async def test_outsiders_who_may_see_get_a_reply_and_never_vote(open_office: Open, user: str) -> None:
    office = await open_office(external_users="see-only")
    run_id = await office.ask()
    office.invite(user)
    why = await office.press(user, "Why me?")
    assert why["ephemeral"].startswith("You're not an approver for this request. Waiting for Ann Ode")
    vote = await office.press(user, "Approve")
    assert "so you can view requests in Slack, but not decide" in vote["ephemeral"]
    home = await office.call(f"/slack/home?user={user}")
    assert "so you can view requests in Slack" in json.dumps(home)
    assert await office.votes(run_id) == []


@pytest.mark.check(13)
async def test_deactivated_people_never_see_anything(open_office: Open) -> None:
    office = await open_office(external_users="see-only")
    run_id = await office.ask()
    office.invite("U0GONE")
    for button in ("Approve", "Why me?"):
        answer = await office.press("U0GONE", button)
        assert answer["ephemeral"] == DEACTIVATED
    assert await office.votes(run_id) == []


# ── clicks that are not what they seem ────────────────────────────────────────────────────────────────────────────


def click_of(office: Office, **change: Any) -> dict[str, Any]:
    """A click on the card's first button, as Slack sends it."""
    actions = next(block for block in office.card.blocks if block["type"] == "actions")
    app = office.playground.workspace.app
    return {
        "type": "block_actions",
        "api_app_id": APP_ID,
        "team": {"id": app.team_id, "domain": "play"},
        "user": {"id": "U0ANN", "team_id": app.team_id},
        "trigger_id": "1.2.3",
        "container": {"type": "message", "channel_id": office.card.channel, "message_ts": office.card.ts},
        "channel": {"id": office.card.channel, "name": "deploys"},
        "message": office.card.as_json(app.team_id, with_metadata=True),
        "actions": [{"type": "button", **actions["elements"][0], "block_id": actions["block_id"], "action_ts": "1"}],
    } | change


async def post(office: Office, payload: dict[str, Any]) -> int:
    status, _ = await office.playground.outbound.post("interactive", payload, None)
    return status


async def refusals(office: Office) -> list[Any]:
    return [line.entry.data for line in await office.engine.audit_lines() if line.entry.what == "act_refused"]


@pytest.mark.parametrize("lacks", ["message of another app", "no message at all"])
async def test_a_click_on_a_message_that_is_not_ours_is_refused(office: Office, lacks: str) -> None:
    run_id = await office.ask()
    message = office.card.as_json("T0PLAY") | {"app_id": "A0OTHER", "bot_id": "B0OTHER", "user": "U0OTHER"}
    payload = click_of(office, message=message if lacks == "message of another app" else None)
    assert await post(office, payload) == 200
    assert await office.votes(run_id) == []
    await office.until(lambda: len(office.ephemerals("U0ANN")) == 1)
    assert office.ephemerals("U0ANN")[0].text == "This button no longer works. Nothing was changed."
    assert [line["verdict"] for line in await refusals(office)] == ["unknown"]


async def test_a_reply_reaches_people_whose_response_url_is_refused(office: Office) -> None:
    """Such as of a sister workspace, or half an hour after the press."""
    await office.ask(requester="ann@acme.eu")
    elsewhere = f"{office.url}/playground/slack/response/of-another-workspace"
    assert await post(office, click_of(office, response_url=elsewhere)) == 200
    await office.until(lambda: len(office.ephemerals("U0ANN")) == 1)
    assert office.ephemerals("U0ANN")[0].text == "You can't approve your own request."


@pytest.mark.check(18)
async def test_the_value_of_another_request_is_refused(office: Office) -> None:
    """A click's value can't point it at another request than the card's."""
    run_id = await office.ask()
    other = await office.ask(fields={"service": "string", "version": "string"})
    await office.until(lambda: len(office.cards) == 2)
    record = await office.engine.record(other)
    assert record is not None
    payload = click_of(office)
    payload["actions"][0]["value"] = record.parts[0]["hook_id"]
    assert await post(office, payload) == 200
    assert await office.votes(run_id) == []
    assert await office.votes(other) == []


@pytest.mark.check(18)
@pytest.mark.parametrize(
    "change",
    [{"value": "hook_forged"}, {"value": ""}, {"action_id": "vote:withdraw"}, {"action_id": "vote:"}],
    ids=str,
)
async def test_a_tampered_button_changes_nothing(office: Office, change: dict[str, str]) -> None:
    run_id = await office.ask()
    payload = click_of(office)
    payload["actions"][0] |= change
    assert await post(office, payload) == 200
    assert await office.votes(run_id) == []


async def test_the_requester_gets_a_link_to_their_page_for_changes(office: Office) -> None:
    await office.ask(policy={"outcomes": ["approve", "reject", "changes"]})
    view = (await office.press("U0ANN", "Request changes"))["view"]
    await office.submit("U0ANN", view, {"comment": {"value": "Which tests ran?"}})
    await office.until(lambda: "Changes requested" in office.card.text)
    await office.press("U0BO", "Why me?")
    said = office.ephemerals("U0BO")[-1].text
    assert "Changes were requested. It's your turn: edit your request or withdraw it." in said
    assert f"on its page: <{office.url}/decisions/of-bo@acme.eu|Open the request>" in said, "no bare link"
    assert "/decisions/" not in (await office.press("U0ANN", "Why me?"))["ephemeral"]


async def test_where_a_sign_in_is_needed_the_page_is_one_press_away(office: Office) -> None:
    run_id = await office.ask(deliver={"slack": "#deploys", "link_auth": "login"})
    page = f"{office.engine.base_url}/requests/{run_id}"
    await office.press("U0ANN", "Approve")
    said = office.ephemerals("U0ANN")[-1].text
    assert said.endswith(f"Nothing was changed. Sign in and decide here: <{page}|Open the request>")
    view = (await office.press("U0ANN", "Reject"))["view"]
    answer = await office.submit("U0ANN", view, {"comment": {"value": "Not now."}})
    (section,) = answer["view"]["blocks"][0]["elements"]
    before, link, after = section["elements"]
    assert before["text"].endswith("Sign in and decide here: "), "a modal's plain text would have no link"
    assert (link["type"], link["url"], link["text"]) == ("link", page, "Open the request")
    assert "Not now." in after["text"]
    assert await office.votes(run_id) == []
