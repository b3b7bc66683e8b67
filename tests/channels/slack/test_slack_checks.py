"""What can go wrong between a press and its answer: races, lost answers, repeats, lapsed people, late clicks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from slack_office import DEPLOY, Office, Open

from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.client import CALL_LIMIT
from approvals_bot.channels.slack.socket_mode import socket_mode
from approvals_bot.service.read import api_request

NO_COMMENT = [DEPLOY["stage"][0] | {"comment": "never"}]


async def test_check_7_of_two_opposite_clicks_at_once_one_wins_and_the_other_is_told(office: Office) -> None:
    run_id = await office.ask(stage=NO_COMMENT)
    yes, no = await asyncio.gather(office.press("U0ANN", "Approve"), office.press("U0CY", "Reject"))
    decision = await office.ended(run_id)
    won, lost, winner = (yes, no, "Ann Ode") if decision["decision"] == "approved" else (no, yes, "Cy Rus")
    assert "Everyone involved has been notified." in won["ephemeral"]
    assert lost["ephemeral"].startswith(f"Already decided by {winner}")
    assert len([vote for vote in await office.votes(run_id) if vote["counts"]]) == 1


async def test_check_9_who_never_saw_the_answer_presses_again_and_one_vote_counts(office: Office) -> None:
    run_id = await office.ask()
    office.fault("drop_after", "interaction")
    office.fault("server_error", "chat.update", times=2)
    lost = await office.press("U0ANN", "Approve")
    assert lost["seen"] == "warning"
    await office.press("U0ANN", "Approve")
    await office.until(lambda: len(office.ephemerals("U0ANN")) == 2)
    assert any(told.text.startswith("You've already approved this") for told in office.ephemerals("U0ANN"))
    assert len(await office.votes(run_id)) == 1
    await office.clock.advance("1m")  # the card is updated as soon as Slack lets us
    assert (await office.ended(run_id))["decision"] == "approved"


async def test_check_10_what_fails_after_the_answer_neither_delays_nor_undoes_it(office: Office) -> None:
    run_id = await office.ask()
    for method in ("chat.postEphemeral", "views.publish", "chat.update"):
        office.fault("truncated", method, times=None)
    answer = await office.press("U0ANN", "Approve")
    assert (answer["status"], answer["seen"]) == (200, "ok")
    assert answer["ack_ms"] < 2_500
    assert len(await office.votes(run_id)) == 1


async def test_check_11_an_event_that_comes_again_is_handled_once(office: Office) -> None:
    event = {"type": "app_home_opened", "user": "U0ANN", "channel": "D0ANN", "event_ts": "1.0", "tab": "home"}
    payload = office.playground.person.payloads.event(event)
    for number in range(3):
        retry = (number, "http_timeout") if number else None
        status, _ = await office.playground.outbound.post("events_api", payload, retry)
        assert status == 200
        await office.clock.advance("1s")  # the same bytes a second later have another signature
    await office.until(lambda: "U0ANN" in office.playground.workspace.homes)
    await office.slack.desk.afterwards.aclose()
    published = [seen for seen in office.playground.web_api.seen if seen.method == "views.publish"]
    assert len(published) == 1


async def test_check_14_who_left_the_group_since_the_card_was_sent_is_refused(office: Office) -> None:
    run_id = await office.ask(stage=[{"id": "go", "from": ["slack:@sre"], "need": 1}])
    office.playground.workspace.set_group("sre", ("cy@acme.eu",))
    await office.clock.advance("61s")
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("You're not an approver for this request")
    assert await office.votes(run_id) == []
    await office.press("U0CY", "Approve")
    assert (await office.ended(run_id))["by"] == "cy@acme.eu"


async def test_check_14_while_the_group_can_not_be_read_nobody_is_let_in(office: Office) -> None:
    run_id = await office.ask(stage=[{"id": "go", "from": ["slack:@sre"], "need": 1}])
    await office.clock.advance("61s")
    office.fault("server_error", "usergroups.users.list", times=None)
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("We couldn't check your group just now")
    assert await office.votes(run_id) == []


async def test_check_21_closing_a_form_decides_nothing(office: Office) -> None:
    run_id = await office.ask()
    view = (await office.press("U0ANN", "Reject"))["view"]
    await office.call("/slack/close", {"user": "U0ANN", "view_id": view["id"]})
    assert await office.votes(run_id) == []
    assert "vote:approve" in json.dumps(office.card.blocks)


async def test_check_29_what_may_have_arrived_twice_is_said_on_the_card_and_by_the_api(office: Office) -> None:
    office.fault("drop_after", "chat.postMessage")
    office.fault("error", "conversations.history", error="missing_scope", times=None)
    asking = asyncio.create_task(office.ask())
    await office.until(lambda: len(office.cards) == 1)
    run_id = await asking
    delivery: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while delivery.get("state") != "delivered":
            await office.clock.advance("5s")
            record = await office.engine.record(run_id)
            assert record is not None
            (delivery,) = api_request(Request.model_validate(record.parts[0]))["deliveries"]
    assert (len(office.cards), delivery["uncertain"]) == (2, True)
    await office.press("U0ANN", "Approve", channel=office.cards[1].channel, ts=office.cards[1].ts)
    await office.until(lambda: "May have arrived twice at #deploys in Slack" in json.dumps(office.cards[1].blocks))


async def test_check_34_expiry_is_shown_on_the_card_and_a_late_click_is_told_so(office: Office) -> None:
    run_id = await office.ask()
    blocks = list(office.card.blocks)
    await office.clock.advance("5h")
    await office.ended(run_id)
    assert office.card.text.startswith("⌛ Expired")
    late = await press_old(office, blocks)
    assert late.startswith("This request expired")


async def press_old(office: Office, blocks: list[dict[str, Any]]) -> str:
    """Press on a card that somebody's screen still shows as it was."""
    actions = next(block for block in blocks if block["type"] == "actions")
    app, card = office.playground.workspace.app, office.card
    payload = office.playground.person.payloads.about(office.playground.workspace.users["U0ANN"], "block_actions") | {
        "container": {"type": "message", "channel_id": card.channel, "message_ts": card.ts, "is_ephemeral": False},
        "channel": {"id": card.channel, "name": "deploys"},
        "message": card.as_json(app.team_id, with_metadata=True),
        "actions": [actions["elements"][0] | {"block_id": actions["block_id"], "action_ts": "1"}],
    }
    status, _ = await office.playground.outbound.post("interactive", payload, None)
    assert status == 200
    await office.until(lambda: len(office.ephemerals("U0ANN")) == 1)
    return str(office.ephemerals("U0ANN")[0].text)


async def test_check_35_a_request_is_never_sent_as_an_ephemeral(office: Office) -> None:
    await office.ask(deliver={"slack": "#deploys", "dm": True})
    await office.until(lambda: len(office.cards) >= 3)
    ways = {seen.method for seen in office.playground.web_api.seen}
    assert "chat.postEphemeral" not in ways
    assert [one for one in office.playground.workspace.messages.values() if one.ephemeral_to] == []


async def test_check_37_a_wrong_app_token_is_seen_and_does_not_stop_the_rest(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    async with socket_mode(office.slack.bolt, app_token="xapp-wrong", client=office.slack.desk.client) as connection:
        await office.until(lambda: "Socket Mode can't connect" in caplog.text)
        assert not await connection.is_connected()
        assert await connection.state() == "not connected: invalid_auth"
    assert "xapp-wrong" not in caplog.text
    run_id = await office.ask()
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["decision"] == "approved"


async def test_check_37_how_socket_mode_is_can_be_asked(open_office: Open) -> None:
    office = await open_office("xapp-test")
    async with socket_mode(office.slack.bolt, app_token="xapp-test", client=office.slack.desk.client) as connection:
        assert await connection.state() in ("connecting", "connected")
        async with asyncio.timeout(10):
            while await connection.state() != "connected":
                await asyncio.sleep(0.01)


async def test_check_41_one_session_with_a_limit_and_no_retries_of_slacks_own(office: Office) -> None:
    web = office.slack.desk.client.web
    assert isinstance(web.session, aiohttp.ClientSession)
    assert web.session.timeout == CALL_LIMIT
    assert web.retry_handlers == []
    bolt = office.slack.bolt.client
    assert bolt.session is web.session
    assert bolt.retry_handlers == []
