"""A card as the deploy workflow makes it, and stand-ins for the other side: Slack, and a mail server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn
from starlette.applications import Starlette

from approvals_bot.channels import (
    Card,
    CardChoice,
    CardField,
    CardOutcome,
    CardSeat,
    CardStage,
    CardVote,
    Name,
)
from approvals_bot.channels.slack.client import SlackClient, slack_client
from approvals_bot.channels.slack.manifest import SCOPES
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.out import SlackOut
from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedGroup, SeedPerson, routes
from approvals_bot.playground.faults import Fault

NOW = datetime(2026, 11, 4, 10, 5, tzinfo=UTC)
ANN, BO, CY = (
    Name("ann@acme.eu", "Ann Ode", "U0ANN"),
    Name("bo@acme.eu", "Bo Lund", "U0BO"),
    Name("cy@acme.eu", "Cy Rus"),
)

PEOPLE = (
    SeedPerson("Ann Ode", "ann@acme.eu", "U0ANN", "Europe/Berlin"),
    SeedPerson("Bo Lund", "bo@acme.eu", "U0BO"),
    SeedPerson("Cy Rus", "cy@acme.eu", "U0CY"),
    SeedPerson("Fin Mail", "fin@acme.eu", in_slack=False),
)
CHANNELS = (SeedChannel("deploys"), SeedChannel("uninvited", has_bot=False), SeedChannel("old", archived=True))
GROUPS = (SeedGroup("sre", ("bo@acme.eu", "cy@acme.eu"), "SRE"),)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def card() -> Card:
    return Card(
        run_id="run_1",
        hook_id="hook_1",
        workflow="deploy",
        version=3,
        state="waiting",
        title="Deploy api 2.1.0 to prod",
        requester=BO,
        asked_at=NOW - timedelta(minutes=4),
        digest="sha256:5f1c3a9e",
        fields=(
            CardField("version", "Version", "2.1.0", pinned=True, was="2.0.9"),
            CardField("env", "Env", "prod"),
            CardField("plan", "Plan", "--- a\n+++ b\n-replicas: 3\n+replicas: 6", "diff", True),
        ),
        stages=(CardStage("go", "Go", "open", (CardSeat("Release managers", 1, (CY,)), CardSeat("SRE", 1))),),
        have=1,
        need=2,
        waiting_for=(ANN,),
        votes=(CardVote(CY, "approve", NOW - timedelta(minutes=2), "slack", "Watch the migration."),),
        deadline=NOW + timedelta(hours=3, minutes=30),
        on_deadline="then it is rejected",
        choices=(
            CardChoice("approve", "Approve: Deploy api 2.1.0 to prod", "Approve", "primary", confirm="Sure?"),
            CardChoice("reject", "Reject: Deploy api 2.1.0 to prod", "Reject", "danger", comment="required"),
            CardChoice("changes", "Ask for changes", "Ask for changes", comment="required"),
        ),
        why_me="You are asked because you are in release-managers.",
        url="https://approve.acme.eu/requests/run_1",
    )


@pytest.fixture
def outcome() -> CardOutcome:
    return CardOutcome("approved", ANN, NOW, "email", "Go.")


@dataclass
class Stage:
    """Our Slack channel in front of a running stand-in."""

    playground: Playground
    client: SlackClient
    people: SlackPeople
    out: SlackOut
    monotonic: Ticks = field(repr=False)

    def fault(self, kind: str, method: str, **more: object) -> None:
        self.playground.slack_faults.add(Fault(kind, method, **more))  # type: ignore[arg-type]

    @property
    def messages(self) -> list[dict[str, object]]:
        space = self.playground.workspace
        return [message.as_json(space.app.team_id) for message in space.messages.values() if not message.ephemeral_to]


class Ticks:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


Start = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def starter(**more: object) -> Stage:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            playground = Playground(
                app=SeedApp("xoxb-test", "the stand-in's signing secret", "", scopes=SCOPES),
                people=PEOPLE,
                channels=CHANNELS,
                groups=GROUPS,
                base_url=base_url,
                events_url=f"{base_url}/slack/events",
                **more,  # type: ignore[arg-type]
            )
            await stack.enter_async_context(playground)
            await stack.enter_async_context(Serving(Starlette(routes=routes(playground)), listener))
            ticks = Ticks()
            client = await stack.enter_async_context(
                slack_client(token="xoxb-test", api_url=playground.api_url, monotonic=ticks)
            )
            people = SlackPeople(client, monotonic=ticks)
            out = SlackOut(client, people, now=lambda: datetime.now(UTC))
            return Stage(playground, client, people, out, ticks)

        yield starter


@pytest.fixture
async def stage(start: Start) -> Stage:
    return await start()


class Serving:
    """uvicorn in this loop, for as long as the context is open."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.listener = listener

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        while not self.server.started:
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.task
