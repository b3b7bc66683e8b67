"""Faults between a press and its answer: races, lost answers, repeats, former members, late clicks."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.approvals.request import Request
from approvals_bot.channels.slack.client import CALL_LIMIT, CONNECT_LIMIT
from approvals_bot.channels.slack.socket_mode import socket_mode
from approvals_bot.service.read import api_request
from tests.support.slack_office import DEPLOY, Office, Open

NO_COMMENT = [DEPLOY["stage"][0] | {"comment": "never"}]


@pytest.mark.check(7)
async def test_of_two_opposite_clicks_one_wins_and_the_other_is_notified(office: Office) -> None:
    run_id = await office.ask(stage=NO_COMMENT)
    yes, no = await asyncio.gather(office.press("U0ANN", "Approve"), office.press("U0CY", "Reject"))
    decision = await office.ended(run_id)
    won, lost, winner = (yes, no, "Ann Ode") if decision["decision"] == "approved" else (no, yes, "Cy Rus")
    assert "Everyone involved has been notified." in won["ephemeral"]
    assert lost["ephemeral"].startswith(f"Already decided by {winner}")
    assert len([vote for vote in await office.votes(run_id) if vote["counts"]]) == 1


@pytest.mark.check(9)
async def test_a_second_press_after_a_lost_answer_counts_once(office: Office) -> None:
    run_id = await office.ask()
    office.fault("drop_after", "interaction")
    office.fault("server_error", "chat.update", times=2)
    lost = await office.press("U0ANN", "Approve")
    assert lost["seen"] == "warning"
    await office.press("U0ANN", "Approve")
    await office.until(lambda: len(office.ephemerals("U0ANN")) == 2)
    assert any(reply.text.startswith("You've already approved this") for reply in office.ephemerals("U0ANN"))
    assert len(await office.votes(run_id)) == 1
    await office.clock.advance("1m")  # the card is updated as soon as Slack allows it
    assert (await office.ended(run_id))["decision"] == "approved"


@pytest.mark.check(10)
async def test_a_failure_after_the_answer_neither_delays_nor_undoes_it(office: Office) -> None:
    run_id = await office.ask()
    for method in ("chat.postEphemeral", "views.publish", "chat.update"):
        office.fault("truncated", method, times=None)
    answer = await office.press("U0ANN", "Approve")
    assert (answer["status"], answer["seen"]) == (200, "ok")
    assert answer["ack_ms"] < 2_500
    assert len(await office.votes(run_id)) == 1


@pytest.mark.check(11)
async def test_a_repeated_event_is_handled_once(office: Office) -> None:
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


@pytest.mark.check(14)
async def test_a_member_who_has_left_the_group_is_refused(office: Office) -> None:
    run_id = await office.ask(stage=[{"id": "go", "from": ["slack:@sre"], "need": 1}])
    office.playground.workspace.set_group("sre", ("cy@acme.eu",))
    await office.clock.advance("61s")
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("You're not an approver for this request")
    assert await office.votes(run_id) == []
    await office.press("U0CY", "Approve")
    assert (await office.ended(run_id))["by"] == "cy@acme.eu"


@pytest.mark.check(14)
async def test_while_the_group_cannot_be_read_nobody_can_vote(office: Office) -> None:
    run_id = await office.ask(stage=[{"id": "go", "from": ["slack:@sre"], "need": 1}])
    await office.clock.advance("61s")
    office.fault("server_error", "usergroups.users.list", times=None)
    answer = await office.press("U0ANN", "Approve")
    assert answer["ephemeral"].startswith("We couldn't check your group just now")
    assert await office.votes(run_id) == []


@pytest.mark.check(21)
async def test_closing_a_form_decides_nothing(office: Office) -> None:
    run_id = await office.ask()
    view = (await office.press("U0ANN", "Reject"))["view"]
    await office.call("/slack/close", {"user": "U0ANN", "view_id": view["id"]})
    assert await office.votes(run_id) == []
    assert "vote:approve" in json.dumps(office.card.blocks)


@pytest.mark.check(29)
async def test_a_possible_duplicate_shows_on_the_card_and_in_the_api(office: Office) -> None:
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


@pytest.mark.check(34)
async def test_expiry_shows_on_the_card_and_in_a_late_clicks_reply(office: Office) -> None:
    run_id = await office.ask()
    blocks = list(office.card.blocks)
    await office.clock.advance("5h")
    await office.ended(run_id)
    assert office.card.text.startswith("⌛ Expired")
    late = await press_old(office, blocks)
    assert late.startswith("This request expired")


async def press_old(office: Office, blocks: list[dict[str, Any]]) -> str:
    """Press a button on an outdated card."""
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


@pytest.mark.check(35)
async def test_a_request_is_never_sent_as_an_ephemeral(office: Office) -> None:
    await office.ask(deliver={"slack": "#deploys", "dm": True})
    await office.until(lambda: len(office.cards) >= 3)
    ways = {seen.method for seen in office.playground.web_api.seen}
    assert "chat.postEphemeral" not in ways
    assert [one for one in office.playground.workspace.messages.values() if one.ephemeral_to] == []


@pytest.mark.check(37)
async def test_a_wrong_app_token_is_logged_and_stops_nothing_else(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    async with socket_mode(office.slack.bolt, app_token="xapp-wrong", client=office.slack.desk.client) as connection:
        await office.until(lambda: "Socket Mode can't connect" in caplog.text)
        assert not await connection.is_connected()
        assert await connection.state() == ConnectionState("down", "invalid_auth")
    assert "xapp-wrong" not in caplog.text
    run_id = await office.ask()
    await office.press("U0ANN", "Approve")
    assert (await office.ended(run_id))["decision"] == "approved"


@pytest.mark.check(37)
async def test_the_state_of_socket_mode_is_shown(open_office: Open) -> None:
    office = await open_office("xapp-test")
    async with socket_mode(office.slack.bolt, app_token="xapp-test", client=office.slack.desk.client) as connection:
        assert (await connection.state()).word in ("connecting", "up")
        async with asyncio.timeout(60):
            while (await connection.state()).word != "up":
                await asyncio.sleep(0.01)


@pytest.mark.check(41)
async def test_one_session_with_a_limit_and_without_slacks_retries(office: Office) -> None:
    web = office.slack.desk.client.web
    assert isinstance(web.session, aiohttp.ClientSession)
    assert web.session.timeout == aiohttp.ClientTimeout(total=CALL_LIMIT, connect=CONNECT_LIMIT)
    assert web.retry_handlers == []
    bolt = office.slack.bolt.client
    assert bolt.session is web.session
    assert bolt.retry_handlers == []
