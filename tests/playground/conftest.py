"""The playground beside a real Bolt app, both on one uvicorn server on a free loopback port."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from approvals_bot.playground import Playground, SeedApp
from approvals_bot.playground.slack.shapes import BOT_SCOPES
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, run_fake_slack

APP_TOKEN = "xapp-playground"


CARD: list[dict[str, Any]] = [
    {"type": "section", "block_id": "what", "text": {"type": "mrkdwn", "text": "*Deploy* api 2.1"}},
    {
        "type": "actions",
        "block_id": "choices",
        "elements": [
            {
                "type": "button",
                "action_id": "approve",
                "style": "primary",
                "value": "hook_1",
                "text": {"type": "plain_text", "text": "Approve"},
                "confirm": {
                    "title": {"type": "plain_text", "text": "Sure?"},
                    "text": {"type": "plain_text", "text": "This deploys."},
                    "confirm": {"type": "plain_text", "text": "Yes"},
                    "deny": {"type": "plain_text", "text": "No"},
                },
            },
            {
                "type": "button",
                "action_id": "reject",
                "value": "hook_1",
                "text": {"type": "plain_text", "text": "Reject"},
            },
        ],
    },
]

MODAL: dict[str, Any] = {
    "type": "modal",
    "callback_id": "reason",
    "private_metadata": "hook_1",
    "title": {"type": "plain_text", "text": "Reject"},
    "submit": {"type": "plain_text", "text": "Reject"},
    "blocks": [
        {
            "type": "input",
            "block_id": "why",
            "label": {"type": "plain_text", "text": "Why?"},
            "element": {"type": "plain_text_input", "action_id": "comment", "multiline": True},
        }
    ],
}


@dataclass
class Clock:
    """A wall clock that can be moved forward."""

    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def advance(self, by: str) -> datetime:
        if not by.endswith("m"):
            raise ValueError("only minutes are supported")
        self.ahead += timedelta(minutes=int(by[:-1]))
        return self.now()


@dataclass
class Rig:
    """A running playground with everything that talks to it."""

    playground: Playground
    bolt: AsyncApp
    client: AsyncWebClient
    http: aiohttp.ClientSession
    base_url: str
    clock: Clock
    card_blocks: list[dict[str, Any]] = field(default_factory=lambda: deepcopy(CARD))
    modal: dict[str, Any] = field(default_factory=lambda: deepcopy(MODAL))

    async def call(self, path: str, body: Any = None, *, status: int = 200, method: str = "") -> Any:
        """Call the JSON API and return its response."""
        verb = method or ("GET" if body is None else "POST")
        async with self.http.request(verb, f"{self.base_url}/playground{path}", json=body) as response:
            answer = await response.json(content_type=None)
            assert response.status == status, answer
            return answer

    async def card(self, channel: str = "#deploys", **more: Any) -> str:
        """Post a card with two buttons and return its ts."""
        answer = await self.client.chat_postMessage(
            channel=channel, text="Deploy api 2.1?", blocks=self.card_blocks, **more
        )
        return str(answer["ts"])


StartRig = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def start_rig() -> AsyncIterator[StartRig]:
    """A function that starts a rig with these arguments of the `Playground`."""
    async with AsyncExitStack() as stack:

        async def starter(
            *, events_url: str | None = None, app_token: str = "", scopes: tuple[str, ...] | None = None, **more: Any
        ) -> Rig:
            clock = Clock()
            app = SeedApp(BOT_TOKEN, SIGNING_SECRET, app_token, scopes=BOT_SCOPES if scopes is None else scopes)
            slack = await stack.enter_async_context(
                run_fake_slack(
                    app=app,
                    events_url=events_url,
                    now=clock.now,
                    signing_clock=time.time,  # Bolt's own check looks at the real clock
                    advance=clock.advance,
                    **({"settle": 0.2} | more),
                )
            )
            client = AsyncWebClient(BOT_TOKEN, base_url=slack.playground.api_url, retry_handlers=[])
            bolt = bolt_app(client)
            answering = AsyncSlackRequestHandler(bolt)

            async def events(request: Request) -> Response:
                return await answering.handle(request)

            slack.web.router.routes.append(Route("/slack/events", events, methods=["POST"]))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Rig(slack.playground, bolt, client, http, slack.url, clock)

        yield starter


@pytest.fixture
async def rig(start_rig: StartRig) -> Rig:
    return await start_rig()


def bolt_app(client: AsyncWebClient) -> AsyncApp:
    async def authorize(**_: Any) -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None, team_id="T0PLAY", bot_token=BOT_TOKEN, bot_id="B0APPROVALS", bot_user_id="U0APPROVALS"
        )

    return AsyncApp(client=client, signing_secret=SIGNING_SECRET, authorize=authorize, process_before_response=True)
