"""The playground: a fake Slack, a mailbox and HTTP targets, built from plain values."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from approvals_bot.durable.engine import Engine
from approvals_bot.durable.engine.notifier import Feed
from approvals_bot.playground.faults import Faults
from approvals_bot.playground.mailbox import MailServer
from approvals_bot.playground.memory import Memory
from approvals_bot.playground.slack.api import WebApi
from approvals_bot.playground.slack.delivery import ACK_LIMIT, Outbound, SocketServer
from approvals_bot.playground.slack.person import SETTLE, SlackActor
from approvals_bot.playground.slack.shapes import OUTSIDERS, SeedApp, SeedChannel, SeedGroup, User
from approvals_bot.playground.slack.workspace import Workspace
from approvals_bot.playground.targets import FakeTargets
from approvals_bot.playground.tour import Sample, ServiceApi


class Playground:
    """The fakes together. While the context is open, the mailbox and Socket Mode listen on loopback.

    `routes(self)` serves the rest.

    - `base_url`: the URL of those routes (`http://127.0.0.1:8000`), for links.
    - `events_url`: the service's `/slack/events`; unused while the service is connected by Socket Mode.
    - `advance`: moves the service's clock by a duration (`"4h"`) and returns the new time; None if it can't be moved.
    - `now`: the fakes' time, for message IDs, the lifetime of triggers, and signatures unless `signing_clock` (Unix
      seconds) is given. It should be the clock that the service checks against.
    - `samples`: requests that a new user can open from the start page with one click.
    - `api_key`: with it, the start page asks the service's API how far the newest run is; "" leaves that out.
    - `memory`: the file that keeps messages, screens, mails and calls across restarts; None forgets them.
    """

    def __init__(
        self,
        *,
        app: SeedApp,
        people: Sequence[User],
        base_url: str,
        events_url: str,
        channels: Sequence[SeedChannel] = (SeedChannel("general"),),
        groups: Sequence[SeedGroup] = (),
        outsiders: Sequence[User] = OUTSIDERS,
        target_secrets: Mapping[str, str] | None = None,
        target_answers: Mapping[str, Any] | None = None,
        advance: Callable[[str], Awaitable[datetime]] | None = None,
        smtp_port: int = 0,
        allow_remote: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        signing_clock: Callable[[], float] | None = None,
        samples: Sequence[Sample] = (),
        api_key: str = "",
        memory: Path | None = None,
        secret: Callable[[], str] = lambda: secrets.token_hex(16),
        ack_limit: float = ACK_LIMIT,
        settle: float = SETTLE,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.allow_remote = allow_remote
        self.advance = advance
        self.now = now
        self.people = (*people, *outsiders)
        self.samples: Callable[[], Awaitable[Sequence[Sample]]] = partial(_these, tuple(samples))
        self.api = ServiceApi(self.base_url, api_key)
        self.engine: Engine | None = None
        self.feeds: set[Feed] = set()  # of the pages that are open in browsers
        self.slack_faults, self.mail_faults, self.target_faults = Faults(), Faults(), Faults()
        self.workspace = Workspace(app, [*people, *outsiders], channels, groups, now=now, secret=secret)
        self.web_api = WebApi(self.workspace, self.slack_faults, self.base_url)
        self.outbound = Outbound(
            events_url,
            app.signing_secret,
            self.slack_faults,
            clock=signing_clock or (lambda: now().timestamp()),
            ack_limit=ack_limit,
        )
        self.person = SlackActor(self.workspace, self.outbound, self.base_url, settle=settle)
        self.socket_mode = SocketServer(self.workspace)
        self.mailbox = MailServer(port=smtp_port, now=now, faults=self.mail_faults, remember=self.keep_mail)
        self.targets = FakeTargets(target_secrets or {}, answers=target_answers, now=now, faults=self.target_faults)
        self.memory = Memory(memory, self.workspace, self.mailbox, self.targets) if memory else None
        self.resources = AsyncExitStack()

    async def __aenter__(self) -> Playground:
        if self.memory:
            self.memory.open()
            self.resources.callback(self.memory.close)
        await self.resources.enter_async_context(self.outbound)
        await self.resources.enter_async_context(self.mailbox)
        if self.workspace.app.app_token:
            await self.resources.enter_async_context(self.socket_mode)
            self.outbound.socket = self.socket_mode
            self.web_api.new_socket_ticket = self.socket_mode.new_ticket  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.resources.aclose()

    def add_people_and_channels(self, people: Sequence[User], channels: Sequence[SeedChannel]) -> None:
        """Add the people and channels that a changed configuration names."""
        known = {person.address for person in self.people}
        self.people = (*self.people, *(person for person in people if person.address not in known))
        self.workspace.add_people_and_channels(people, channels)

    def follow(self, engine: Engine, samples: Callable[[], Awaitable[Sequence[Sample]]]) -> None:
        """Show people's sessions, the service's changes and samples of its workflows on the pages from now on."""
        self.engine = engine
        self.samples = samples

    def ring(self) -> None:
        """Say to all open pages that something has changed here."""
        for feed in self.feeds:
            feed.add(())

    def keep_mail(self) -> None:
        self.remember()
        self.ring()

    def remember(self) -> None:
        """Write all changes; called before the request that made them is answered."""
        if self.memory:
            self.memory.keep()

    @property
    def api_url(self) -> str:
        """The value for the service's `[slack] api_url`."""
        return f"{self.base_url}/playground/slack/api/"

    @property
    def smtp_port(self) -> int:
        """The mailbox's port, known once the playground is open."""
        return self.mailbox.port


async def _these(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples
