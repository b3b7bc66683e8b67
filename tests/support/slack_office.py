"""The service with a fake Slack and people who press buttons; engine, approvals, slack_sdk and Bolt are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.port import Channels
from approvals_bot.approvals.request import Opening, Request
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels.slack.builder import SlackSteps
from approvals_bot.channels.slack.channel import SlackIn, slack_in, slack_routes
from approvals_bot.channels.slack.client import slack_client
from approvals_bot.channels.slack.desk import EphemeralReplies
from approvals_bot.channels.slack.manifest import SCOPES, SHORTCUT
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.channels.slack.socket_mode import socket_mode
from approvals_bot.durable.engine import Engine
from approvals_bot.people import People, Person
from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedGroup
from approvals_bot.service.catalog import Catalog, Listed
from approvals_bot.testing import FakeClock
from tests.support.fake_slack import BOT_TOKEN, SIGNING_SECRET, FakeSlack, run_fake_slack

KEY = "a-key-of-the-tests-that-has-32-bytes!"
PEOPLE = (
    Person("ann@acme.eu", "Ann Ode", "U0ANN", zone="Europe/Berlin"),
    Person("bo@acme.eu", "Bo Lund", "U0BO"),
    Person("cy@acme.eu", "Cy Rus"),
    Person("di@acme.eu", "Di Oz", "U0DI", numbers="1.234,56"),
)
DEPLOY: dict[str, Any] = {
    "workflow": {"id": "deploy", "title": "Deploy {{ service }} {{ version }}", "request": ["*"]},
    "fields": {"service": "string", "version": {"type": "string", "pinned": True}},
    "stage": [{"id": "go", "from": ["ann@acme.eu", "bo@acme.eu", "cy@acme.eu"], "need": 1}],
    "deliver": {"slack": "#deploys"},
    "clock": {"deadline": "4h"},
}


@dataclass
class Office:
    """The service, the fake Slack, and what people do there."""

    engine: Engine
    clock: FakeClock
    fake_slack: FakeSlack
    slack: SlackIn
    http: aiohttp.ClientSession

    @property
    def playground(self) -> Playground:
        return self.fake_slack.playground

    @property
    def url(self) -> str:
        return self.fake_slack.url

    async def ask(self, requester: str = "bo@acme.eu", given: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Open a request and return its run's id once its card is posted. `given` are fields that `more` adds."""
        definition = Definition.model_validate(DEPLOY | more)
        workflow = approval.under("deploy", pinned(definition))
        fields = {"service": "api", "version": "2.1", **(given or {})}
        run = await self.engine.start(workflow, Opening(fields, requester))
        await self.until(lambda: bool(self.cards))
        return run.id

    def offer(self, **definitions: dict[str, Any]) -> None:
        """What can be asked for by a form: workflow files by id, as from TOML."""
        known = {"title": "Something", "request": ["*"]}
        read = [
            Definition.model_validate(file | {"workflow": known | file["workflow"] | {"id": name}})
            for name, file in definitions.items()
        ]
        self.slack.opening.workflows = Catalog(
            {one.id: Listed(approval.under(one.id, pinned(one)), one) for one in read}
        )

    @property
    def cards(self) -> list[Any]:
        return [one for one in self.playground.workspace.messages.values() if not one.ephemeral_to]

    @property
    def card(self) -> Any:
        return self.cards[0]

    async def press(self, user: str, button: str, **more: Any) -> dict[str, Any]:
        where = {} if "ts" in more else {"channel": self.card.channel, "ts": self.card.ts}
        body = {"user": user, "channel": "#deploys", "button": button} | where | more
        return dict(await self.call("/slack/click", body))

    async def submit(self, user: str, view: Mapping[str, Any], values: Any) -> dict[str, Any]:
        return dict(await self.call("/slack/submit", {"user": user, "view_id": view["id"], "values": values}))

    async def call(self, path: str, body: Any = None) -> Any:
        verb = "GET" if body is None else "POST"
        async with self.http.request(verb, f"{self.fake_slack.url}/playground{path}", json=body) as response:
            answer = await response.json(content_type=None)
            assert response.status == 200, answer
            return answer

    async def command(self, user: str, text: str = "", channel: str = "#deploys") -> dict[str, Any]:
        body = {"user": user, "channel": channel, "command": "/approve", "text": text}
        return dict(await self.call("/slack/command", body))

    def ephemerals(self, user: str) -> list[Any]:
        """Return the ephemeral messages to this person."""
        return [one for one in self.playground.workspace.messages.values() if one.ephemeral_to == user]

    async def ended(self, run_id: str) -> dict[str, Any]:
        """Wait until the run has ended and every copy shows it; return the decision."""
        await self.until(lambda: "actions" not in json.dumps(self.card.blocks))
        record = await self.engine.wait(run_id, 5.0)
        assert record.status == "completed", record
        result: dict[str, Any] = record.result
        return result

    async def votes(self, run_id: str) -> list[Any]:
        record = await self.engine.record(run_id)
        assert record is not None
        request = Request.model_validate(record.parts[0])
        return [{**asdict(one.vote), "counts": one.counts} for one in request.votes]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.01)

    def invite(self, *users: str) -> None:
        channel = self.playground.workspace.find_channel("#deploys")
        assert channel is not None
        channel.members.update(users)

    def fault(self, kind: str, method: str, **more: Any) -> None:
        self.fake_slack.fault(kind, method, **more)


Open = Callable[..., Awaitable[Office]]


@pytest.fixture
async def open_office(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def opened(
            app_token: str = "",
            *,
            channels: tuple[str, ...] = ("deploys",),
            settle: float = 0.3,
            app: SeedApp | None = None,
            database: str = f"sqlite:///{tmp_path / 'runs.db'}",
            clock: FakeClock | None = None,
            **more: Any,
        ) -> Office:
            clock = clock or FakeClock()
            fake = await stack.enter_async_context(
                run_fake_slack(
                    app=app
                    or SeedApp(
                        BOT_TOKEN, SIGNING_SECRET, app_token, scopes=SCOPES, shortcuts=((SHORTCUT, "Request approval"),)
                    ),
                    channels=tuple(SeedChannel(name) for name in channels),
                    groups=(SeedGroup("sre", ("ann@acme.eu", "cy@acme.eu"), "SRE"),),
                    now=clock.now,
                    signing_clock=lambda: clock.now().timestamp(),
                    settle=settle,
                )
            )
            playground, url = fake.playground, fake.url
            client = await stack.enter_async_context(slack_client(token=BOT_TOKEN, api_url=playground.api_url))
            slack_people = SlackPeople(client, monotonic=lambda: clock.now().timestamp())
            people = People(PEOPLE, {}, slack_group=slack_people.members, in_workspace=slack_people.has_member)
            ways = Channels({"slack": SlackOut(client, slack_people, now=clock.now)})
            engine = await stack.enter_async_context(
                Engine.open(database, signing_keys=[KEY], base_url=url, clock=clock, resources=[people, ways])
            )
            slack = slack_in(
                engine=engine,
                client=client,
                slack_people=slack_people,
                people=people,
                base_url=url,
                workflows=Catalog({}),
                **more,
                link=lambda hook_id, address: f"{url}/decisions/of-{address}",
            )
            engine.resources |= {SlackSteps: slack.steps, EphemeralReplies: slack.desk.replies}
            stack.push_async_callback(slack.aclose)
            fake.web.router.routes += slack_routes(slack, signing_secret=SIGNING_SECRET, now=clock.now, engine=engine)
            if app_token:
                connection = await stack.enter_async_context(
                    socket_mode(slack.bolt, app_token=app_token, client=client)
                )
                async with asyncio.timeout(5):
                    while not await connection.is_connected():
                        await asyncio.sleep(0.01)
            closing = aiohttp.TCPConnector(force_close=True)  # a busy server may drop one that was idle
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=closing))
            return Office(engine, clock, fake, slack, http)

        yield opened


@pytest.fixture
async def office(open_office: Open) -> Office:
    return await open_office()
