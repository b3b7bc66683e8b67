"""Deciding in Slack: real engine, real approval, real slack_sdk and bolt; the fake Slack presses the buttons."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from approvals_bot.channels.slack.desk import VERDICT_LIMIT
from approvals_bot.durable.store.protocol import Lease
from approvals_bot.playground import APP_ID
from tests.support.slack_office import DEPLOY, Office, Open

# ── deciding ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.check(33)
async def test_approve_decides_replies_and_removes_the_buttons(office: Office) -> None:
    run_id = await office.ask()
    answer = await office.press("U0ANN", "Approve")
    assert answer["status"] == 200
    assert answer["ephemeral"] == "Approved. Everyone involved has been notified."
    decision = await office.ended(run_id)
    assert (decision["decision"], decision["by"], decision["via"]) == ("approved", "ann@acme.eu", "slack")
    assert office.card.text == "✅ Approved by Ann Ode via Slack: Deploy api 2.1"


async def test_people_without_a_configured_id_are_found_by_address(office: Office) -> None:
    run_id = await office.ask()
    await office.press("U0CY", "Approve")
    assert (await office.ended(run_id))["by"] == "cy@acme.eu"


@pytest.mark.check(19)
async def test_reject_asks_for_the_reason_in_a_modal_and_keeps_it(office: Office) -> None:
    run_id = await office.ask()
    answer = await office.press("U0ANN", "Reject")
    view = answer["view"]
    assert view["title"]["text"] == "Reject"
    assert await office.votes(run_id) == []
    await office.submit("U0ANN", view, {"comment": {"value": "Not on a Friday."}})
    decision = await office.ended(run_id)
    assert (decision["decision"], decision["comment"]) == ("rejected", "Not on a Friday.")


@pytest.mark.check(20)
async def test_errors_show_in_the_modal_and_the_input_is_kept(office: Office) -> None:
    asking = [DEPLOY["stage"][0] | {"ask": {"budget_code": {"type": "string", "pattern": "[A-Z]{2}-[0-9]{4}"}}}]
    run_id = await office.ask(stage=asking)
    view = (await office.press("U0ANN", "Approve"))["view"]
    wrong = {"ask:budget_code": {"value": "none"}, "comment": {"value": "As agreed"}}
    answer = await office.submit("U0ANN", view, wrong)
    assert list(answer["errors"]) == ["ask:budget_code"]
    assert await office.votes(run_id) == []
    right = wrong | {"ask:budget_code": {"value": "AB-1234"}}
    await office.submit("U0ANN", view, right)
    decision = await office.ended(run_id)
    assert decision["answers"] == {"go": {"ann@acme.eu": {"budget_code": "AB-1234"}}}
    assert decision["comment"] == "As agreed"


@pytest.mark.check(12, 13, 15)
@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("U0DI", "You're not an approver for this request"),
        ("U0BO", "You can't approve your own request."),
        ("U0GUEST", "You're a guest or from another workspace"),
        ("U0STRANGER", "You're a guest or from another workspace"),
    ],
)
async def test_a_refusal_is_ephemeral_and_changes_nothing(office: Office, user: str, said: str) -> None:
    run_id = await office.ask()
    office.invite("U0GUEST", "U0STRANGER")
    before = (office.card.text, office.card.blocks)
    answer = await office.press(user, "Approve")
    assert answer["ephemeral"].startswith(said)
    assert (office.card.text, office.card.blocks) == before
    assert await office.votes(run_id) == []


@pytest.mark.check(12, 13)
async def test_a_guests_click_is_in_the_audit(office: Office) -> None:
    run_id = await office.ask()
    office.invite("U0GUEST")
    await office.press("U0GUEST", "Approve")
    lines = [line.entry for line in await office.engine.audit_lines() if line.entry.what == "act_refused"]
    assert [(line.who, line.run_id) for line in lines] == [("slack:U0GUEST", run_id)]


async def test_a_second_click_and_a_late_one_read_the_state(office: Office) -> None:
    run_id = await office.ask(stage=[DEPLOY["stage"][0] | {"need": 2}])
    first = await office.press("U0ANN", "Approve")
    assert first["ephemeral"].startswith("Counted: 1 of 2.")
    again = await office.press("U0ANN", "Approve")
    assert again["ephemeral"].startswith("You've already approved this")
    assert len(await office.votes(run_id)) == 1


@pytest.mark.check(6)
async def test_a_duplicated_click_counts_once(office: Office) -> None:
    run_id = await office.ask()
    office.fault("duplicate", "interaction")
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["decision"] == "approved"
    assert len(await office.votes(run_id)) == 1


async def test_a_click_on_outdated_content_is_not_counted(office: Office) -> None:
    run_id = await office.ask()
    blocks = json.loads(json.dumps(office.card.blocks).replace("choices:", "choices:0:stale-"))
    shown = next(block for block in office.card.blocks if block["block_id"].startswith("choices:"))
    shown.update(block_id=next(b["block_id"] for b in blocks if "stale" in b.get("block_id", "")))
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("The request has changed since you opened it")
    assert await office.votes(run_id) == []


# ── when Slack is not well ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.check(19)
async def test_a_form_that_cannot_be_opened_is_offered_as_a_page(office: Office) -> None:
    await office.ask()
    office.fault("error", "views.open", error="expired_trigger_id")
    answer = await office.press("U0ANN", "Reject")
    assert answer["view"] is None
    assert answer["ephemeral"].endswith("/decisions/of-ann@acme.eu|Open the request>")


async def test_a_click_is_acknowledged_before_its_run_replies(office: Office) -> None:
    run_id, now = await office.ask(), office.engine.now()
    elsewhere = Lease("another process", now, now + timedelta(hours=1))
    while not await office.engine.store.claim(elsewhere, 1, run_id):  # then nobody here hears what the vote leads to
        await asyncio.sleep(0.01)
    answer = await office.press("U0ANN", "Approve")
    assert answer["status"] == 200
    assert answer["ack_ms"] < VERDICT_LIMIT * 1000
    assert [event.type for event in await office.engine.events(run_id)][-1] == "hook_received"
    assert answer["ephemeral"] is None


@pytest.mark.check(8)
async def test_a_click_counts_quickly_while_slacks_api_is_down(office: Office) -> None:
    run_id = await office.ask()
    await office.slack.desk.identities.workspace()
    for method in ("users.info", "chat.update", "chat.postEphemeral", "views.publish"):
        office.fault("server_error", method, times=None)
    answer = await office.press("U0ANN", "Approve")
    assert answer["status"] == 200
    assert answer["ack_ms"] < 2_500
    assert [vote["by"] for vote in await office.votes(run_id)] == ["ann@acme.eu"]


async def test_people_known_to_slack_alone_must_retry_in_an_outage(office: Office) -> None:
    run_id = await office.ask()
    await office.slack.desk.identities.workspace()
    office.fault("server_error", "users.info")
    answer = await office.press("U0CY", "Approve")
    assert answer["ephemeral"].startswith("Slack couldn't confirm who you are")
    assert await office.votes(run_id) == []


@pytest.mark.check(16)
@pytest.mark.parametrize(
    "change",
    [
        {"api_app_id": "A0OTHER"},
        {"team": {"id": "T0OTHER", "domain": "x"}, "user": {"id": "U0ANN", "team_id": "T0OTHER"}},
    ],
    ids=["B13 another app", "B12 another workspace"],
)
async def test_payloads_of_another_app_or_workspace_are_a_401(office: Office, change: dict[str, Any]) -> None:
    run_id = await office.ask()
    actions = next(block for block in office.card.blocks if block["type"] == "actions")
    payload = {
        "type": "block_actions",
        "api_app_id": APP_ID,
        "team": {"id": office.playground.workspace.app.team_id, "domain": "play"},
        "user": {"id": "U0ANN"},
        "trigger_id": "1.2.3",
        "container": {"type": "message", "channel_id": office.card.channel, "message_ts": office.card.ts},
        "channel": {"id": office.card.channel, "name": "deploys"},
        "message": office.card.as_json("T0PLAY", with_metadata=True),
        "actions": [{"type": "button", **actions["elements"][0], "block_id": actions["block_id"], "action_ts": "1"}],
    }
    status, _ = await office.playground.outbound.post("interactive", payload | change, None)
    assert status == 401
    assert await office.votes(run_id) == []
    status, _ = await office.playground.outbound.post("interactive", payload, None)
    assert status == 200
    await office.engine.settle()  # it is durable; the request may still have to count it
    assert len(await office.votes(run_id)) == 1


async def test_a_reply_is_never_posted_to_a_foreign_host(office: Office) -> None:
    replies = office.slack.desk.replies
    assert replies.is_slacks("https://hooks.slack.com/actions/T/1/x")
    assert replies.is_slacks(f"{office.url}/playground/slack/response/1")
    for url in (
        "https://hooks.slack.com.evil.example/x",
        "http://hooks.slack.com/x",
        "http://169.254.169.254/",
        "file:///x",
    ):
        assert not replies.is_slacks(url)


# ── the same over a websocket, and the Home tab ───────────────────────────────────────────────────────────────────


@pytest.mark.check(37)
async def test_socket_mode_uses_the_same_handlers(open_office: Open) -> None:
    office = await open_office(app_token="xapp-test")
    run_id = await office.ask()
    view = (await office.press("U0ANN", "Reject"))["view"]
    await office.submit("U0ANN", view, {"comment": {"value": "No."}})
    assert (await office.ended(run_id))["decision"] == "rejected"


@pytest.mark.check(36)
async def test_the_home_tab_is_the_persons_inbox(office: Office) -> None:
    await office.ask()
    home = json.dumps(await office.call("/slack/home?user=U0ANN"))
    for words in ("Waiting for you", "Deploy api 2.1", "Requested by Bo Lund", '"vote:approve"'):
        assert words in home
    of_the_requester = json.dumps(await office.call("/slack/home?user=U0BO"))
    assert "You're all caught up." in of_the_requester
    assert "Your requests" in of_the_requester
