"""A fake Slack on a free loopback port, for our channel, Bolt or the whole service to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette

from approvals_bot.people import Person
from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedGroup, User, routes
from approvals_bot.playground.faults import Fault
from tests.support.browsing import a_port, serving

BOT_TOKEN = "xoxb-playground"
SIGNING_SECRET = "the fake Slack's signing secret"

PEOPLE = (
    User(Person("ann@acme.eu", "Ann Ode", "U0ANN", zone="Europe/Berlin")),
    User(Person("bo@acme.eu", "Bo Lund", "U0BO")),
    User(Person("cy@acme.eu", "Cy Rus", "U0CY")),
    User(Person("di@acme.eu", "Di Oz", "U0DI")),
    User(Person("fin@acme.eu", "Fin Mail")),
    User(Person("robo@acme.eu", "Robo", "U0ROBO"), "bot"),
)
CHANNELS = (
    SeedChannel("deploys"),
    SeedChannel("uninvited", has_bot=False),
    SeedChannel("secret", private=True, members=("ann@acme.eu",)),
    SeedChannel("hidden", private=True, members=("ann@acme.eu",), has_bot=False),
    SeedChannel("old", archived=True),
)
GROUPS = (SeedGroup("sre", ("bo@acme.eu", "cy@acme.eu"), "SRE"),)


@dataclass
class FakeSlack:
    """A running fake Slack. `web` is the app that its port serves; tests may add routes to it."""

    playground: Playground
    web: Starlette
    url: str

    def fault(self, kind: str, method: str, **more: Any) -> None:
        self.playground.slack_faults.add(Fault(kind, method, **more))  # type: ignore[arg-type]

    def posted(self) -> list[dict[str, Any]]:
        """Return the messages of all conversations, without ephemeral ones."""
        space = self.playground.workspace
        return [message.as_json(space.app.team_id) for message in space.messages.values() if not message.ephemeral_to]


@asynccontextmanager
async def run_fake_slack(*, app: SeedApp, events_url: str | None = None, **more: Any) -> AsyncIterator[FakeSlack]:
    """Run a fake Slack. Without `events_url`, it sends events to `/slack/events` on its own port."""
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        known = {"people": PEOPLE, "channels": CHANNELS, "groups": GROUPS}
        playground = Playground(app=app, base_url=url, events_url=events_url or f"{url}/slack/events", **known | more)
        web = Starlette(routes=routes(playground))
        async with playground, serving(web, bound):
            yield FakeSlack(playground, web, url)


class Ticks:
    """A monotonic clock that only the test advances."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at
