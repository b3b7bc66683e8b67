"""The playground beside a real Bolt app, both on one uvicorn on a loopback port that the system chose."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import uvicorn
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.web.async_client import AsyncWebClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedGroup, SeedPerson, routes
from approvals_bot.playground.seed import BOT_SCOPES

BOT_TOKEN = "xoxb-playground"
APP_TOKEN = "xapp-playground"
SIGNING_SECRET = "the stand-in's signing secret"

PEOPLE = (
    SeedPerson("Ann Ode", "ann@acme.eu", "U0ANN", "Europe/Berlin"),
    SeedPerson("Bo Lund", "bo@acme.eu", "U0BO"),
    SeedPerson("Cy Rus", "cy@acme.eu"),
    SeedPerson("Fin Mail", "fin@acme.eu", in_slack=False),
    SeedPerson("Robo", "robo@acme.eu", "U0ROBO", kind="bot"),
)
CHANNELS = (
    SeedChannel("deploys"),
    SeedChannel("uninvited", has_bot=False),
    SeedChannel("secret", private=True, members=("ann@acme.eu",)),
    SeedChannel("hidden", private=True, members=("ann@acme.eu",), has_bot=False),
    SeedChannel("old", archived=True),
)
GROUPS = (SeedGroup("sre", ("bo@acme.eu", "cy@acme.eu"), "SRE"),)


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
    """A wall clock that can be pushed forward."""

    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def advance(self, by: str) -> datetime:
        if not by.endswith("m"):
            raise ValueError("only minutes here")
        self.ahead += timedelta(minutes=int(by[:-1]))
        return self.now()


@dataclass
class Stage:
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
        """A call of the JSON surface; its answer."""
        verb = method or ("GET" if body is None else "POST")
        async with self.http.request(verb, f"{self.base_url}/playground{path}", json=body) as response:
            answer = await response.json(content_type=None)
            assert response.status == status, answer
            return answer

    async def card(self, channel: str = "#deploys", **more: Any) -> str:
        """Post a card with two buttons; its ts."""
        answer = await self.client.chat_postMessage(
            channel=channel, text="Deploy api 2.1?", blocks=self.card_blocks, **more
        )
        return str(answer["ts"])


Start = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a stage; arguments go to the `Playground`."""
    async with AsyncExitStack() as stack:

        async def starter(
            *, events_url: str | None = None, app_token: str = "", scopes: tuple[str, ...] | None = None, **more: Any
        ) -> Stage:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            clock = Clock()
            app = SeedApp(BOT_TOKEN, SIGNING_SECRET, app_token, scopes=BOT_SCOPES if scopes is None else scopes)
            playground = Playground(
                app=app,
                people=PEOPLE,
                channels=CHANNELS,
                groups=GROUPS,
                base_url=base_url,
                events_url=events_url or f"{base_url}/slack/events",
                now=clock.now,
                signing_clock=time.time,  # Bolt's own check looks at the real clock
                advance=clock.advance,
                **({"settle": 0.2} | more),
            )
            client = AsyncWebClient(BOT_TOKEN, base_url=playground.api_url, retry_handlers=[])
            bolt = bolt_app(client)
            slack = AsyncSlackRequestHandler(bolt)

            async def events(request: Request) -> Response:
                return await slack.handle(request)

            web = Starlette(routes=[Route("/slack/events", events, methods=["POST"]), *routes(playground)])
            await stack.enter_async_context(playground)
            await stack.enter_async_context(serving(web, listener))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Stage(playground, bolt, client, http, base_url, clock)

        yield starter


@pytest.fixture
async def stage(start: Start) -> Stage:
    return await start()


def bolt_app(client: AsyncWebClient) -> AsyncApp:
    async def authorize(**_: Any) -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None, team_id="T0PLAY", bot_token=BOT_TOKEN, bot_id="B0APPROVALS", bot_user_id="U0APPROVALS"
        )

    return AsyncApp(client=client, signing_secret=SIGNING_SECRET, authorize=authorize, process_before_response=True)


class serving:
    """uvicorn in this loop, for as long as the context is open."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.listener = listener

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        while not self.server.started:
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.task
