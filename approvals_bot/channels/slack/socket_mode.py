"""Slack's Socket Mode: payloads come over a websocket that we open, so no public URL is needed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError

from approvals_bot.approvals.port import ConnectionState
from approvals_bot.channels.slack.client import SlackClient

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the connection is tried again; doubled each time

log = logging.getLogger(__name__)


class SocketMode:
    """The websocket. It reconnects on its own, even if the first connection failed."""

    def __init__(self, bolt: AsyncApp, *, app_token: str, client: SlackClient) -> None:
        self._handler = AsyncSocketModeHandler(bolt, app_token, web_client=client.web)
        self._handler.client.proxy = client.proxy  # not the environment's, as for the Web API
        self.trouble = ""  # why it couldn't connect: Slack's error code, or the exception's name

    async def is_connected(self) -> bool:
        """Return whether it is open now."""
        return bool(await self._handler.client.is_connected())

    async def state(self) -> ConnectionState:
        """Return whether it is open now, or else why it can't be: `invalid_auth`."""
        if await self.is_connected():
            return ConnectionState("up")
        return ConnectionState("down", self.trouble) if self.trouble else ConnectionState("connecting")

    async def run(self) -> None:
        """Receive until cancelled."""
        await self._connect()
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Close it for good."""
        await self._handler.client.close()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        """Try until it is connected. Afterwards, Slack's client reconnects on its own.

        With a wrong app token, Slack's client would retry forever in silence, so we request the URL and log errors.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                self._handler.client.wss_uri = await self._handler.client.issue_new_wss_url()
                await self._handler.connect_async()  # type: ignore[no-untyped-call]
                self.trouble = ""
                return
            except Exception as failure:  # noqa: BLE001  # in any case the service goes on without it, and tries again
                self.trouble = _word_of(failure)
                log.error("Slack's Socket Mode can't connect: %s. Check [slack] app_token.", self.trouble)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)


@asynccontextmanager
async def socket_mode(bolt: AsyncApp, *, app_token: str, client: SlackClient) -> AsyncIterator[SocketMode]:
    """Receive over a websocket for as long as the block runs."""
    connection = SocketMode(bolt, app_token=app_token, client=client)
    running = asyncio.create_task(connection.run())
    try:
        yield connection
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await connection.aclose()


def _word_of(failure: Exception) -> str:
    if isinstance(failure, SlackApiError) and failure.response.get("error"):
        return str(failure.response["error"])
    return type(failure).__name__
