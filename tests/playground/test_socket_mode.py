"""Bolt's real Socket Mode handler (aiohttp) against the fake Slack's websocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

if TYPE_CHECKING:
    from tests.playground.conftest import Rig, StartRig

APP_TOKEN = "xapp-playground"


@asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[AsyncSocketModeHandler]:
    handler = AsyncSocketModeHandler(rig.bolt, APP_TOKEN, web_client=rig.client)
    try:
        await handler.connect_async()  # type: ignore[no-untyped-call]
        yield handler
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]


@pytest.mark.check(37)
async def test_click_goes_over_the_websocket_and_is_acknowledged(start_rig: StartRig) -> None:
    rig = await start_rig(app_token=APP_TOKEN, events_url="http://127.0.0.1:9/never")
    seen: list[str] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any, body: dict[str, Any], respond: Any) -> None:
        seen.append(body["user"]["id"])
        await ack()
        await respond("Counted: 1 of 2", replace_original=False)

    async with connected(rig):
        body = {"user": "U0ANN", "channel": "#deploys", "ts": await rig.card(), "button": "Approve"}
        outcome = await rig.call("/slack/click", body)
    assert seen == ["U0ANN"]
    assert (outcome["status"], outcome["seen"], outcome["ephemeral"]) == (200, "ok", "Counted: 1 of 2")


async def test_modal_errors_come_in_the_acknowledgement(start_rig: StartRig) -> None:
    rig = await start_rig(app_token=APP_TOKEN, events_url="http://127.0.0.1:9/never")

    @rig.bolt.command("/approve")
    async def approve(ack: Any, client: Any, body: dict[str, Any]) -> None:
        await client.views_open(trigger_id=body["trigger_id"], view=rig.modal)
        await ack()

    @rig.bolt.view("reason")
    async def reason(ack: Any) -> None:
        await ack(response_action="errors", errors={"why": "Not like that."})

    async with connected(rig):
        opened = await rig.call("/slack/command", {"user": "U0ANN", "channel": "#deploys", "command": "/approve"})
        values = {"why": {"comment": "because"}}
        body = {"user": "U0ANN", "view_id": opened["view"]["id"], "values": values}
        assert (await rig.call("/slack/submit", body))["errors"] == {"why": "Not like that."}


@pytest.mark.check(37)
async def test_app_reconnects_when_slack_asks_it_to(start_rig: StartRig) -> None:
    rig = await start_rig(app_token=APP_TOKEN)
    socket = rig.playground.socket_mode
    seen: list[str] = []

    @rig.bolt.action("approve")
    async def approve(ack: Any) -> None:
        seen.append("ok")
        await ack()

    async with connected(rig):
        [first] = socket.connections
        await socket.ask_to_reconnect()
        async with asyncio.timeout(10):
            while socket.connections in ([], [first]):
                await asyncio.sleep(0.01)
        body = {"user": "U0ANN", "channel": "#deploys", "ts": await rig.card(), "button": "Approve"}
        await rig.call("/slack/click", body)
    assert seen == ["ok"]


async def test_payloads_go_to_the_url_without_a_connection(start_rig: StartRig) -> None:
    rig = await start_rig(app_token=APP_TOKEN)

    @rig.bolt.action("approve")
    async def approve(ack: Any) -> None:
        await ack()

    body = {"user": "U0ANN", "channel": "#deploys", "ts": await rig.card(), "button": "Approve"}
    assert (await rig.call("/slack/click", body))["status"] == 200


async def test_only_the_app_token_connects_and_a_ticket_works_once(start_rig: StartRig) -> None:
    rig = await start_rig(app_token=APP_TOKEN)
    for token, error in (("xoxb-playground", "invalid_auth"), ("", "not_authed")):
        with pytest.raises(SlackApiError) as caught:
            await AsyncWebClient(token, base_url=rig.playground.api_url).apps_connections_open(app_token=token)
        assert caught.value.response["error"] == error
    opened = await AsyncWebClient(base_url=rig.playground.api_url).apps_connections_open(app_token=APP_TOKEN)
    async with rig.http.ws_connect(opened["url"]) as line:
        assert (await line.receive_json())["type"] == "hello"
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await rig.http.ws_connect(opened["url"])


async def test_socket_mode_is_off_without_an_app_token(rig: Rig) -> None:
    with pytest.raises(SlackApiError) as caught:
        await AsyncWebClient(base_url=rig.playground.api_url).apps_connections_open(app_token="xapp-any")
    assert caught.value.response["error"] == "invalid_auth"
