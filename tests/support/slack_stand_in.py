"""The stand-in Slack on a loopback port that the system chose, whoever talks to it: our channel, Bolt, the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from browsing import a_port, serving
from starlette.applications import Starlette

from approvals_bot.people import Person
from approvals_bot.playground import Playground, SeedApp, SeedChannel, SeedGroup, User, routes
from approvals_bot.playground.faults import Fault

BOT_TOKEN = "xoxb-playground"
SIGNING_SECRET = "the stand-in's signing secret"

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
class StandIn:
    """A running stand-in. `web` is what its port serves: more routes may be added."""

    playground: Playground
    web: Starlette
    url: str

    def fault(self, kind: str, method: str, **more: Any) -> None:
        self.playground.slack_faults.add(Fault(kind, method, **more))  # type: ignore[arg-type]

    def posted(self) -> list[dict[str, Any]]:
        """What stands in conversations; what only one person sees is left out."""
        space = self.playground.workspace
        return [message.as_json(space.app.team_id) for message in space.messages.values() if not message.ephemeral_to]


@asynccontextmanager
async def stand_in(*, app: SeedApp, events_url: str | None = None, **more: Any) -> AsyncIterator[StandIn]:
    """Open it. Without `events_url` whoever adds `/slack/events` to its routes hears of what people do."""
    with a_port() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        known = {"people": PEOPLE, "channels": CHANNELS, "groups": GROUPS}
        playground = Playground(app=app, base_url=url, events_url=events_url or f"{url}/slack/events", **known | more)
        web = Starlette(routes=routes(playground))
        async with playground, serving(web, bound):
            yield StandIn(playground, web, url)


class Ticks:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at
