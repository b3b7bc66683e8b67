"""The running service: everything is built, works while the block runs, and is taken down in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.app.connections import bounces_mailbox, email_channel, open_slack, open_targets
from approvals_bot.app.directory import build_people
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.port import EMAIL, SLACK, Channel, Channels
from approvals_bot.approvals.targets import HttpTargets
from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.imap import mailbox_in
from approvals_bot.channels.email.lmtp import mail_in
from approvals_bot.channels.slack.inbound import SlackIn, slack_in, slack_routes
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.post import SlackOut
from approvals_bot.channels.slack.socket_mode import socket_mode
from approvals_bot.config import service as configured
from approvals_bot.config.load import Configuration
from approvals_bot.durable.engine import Engine, SystemClock, TimeSource
from approvals_bot.durable.store import connect
from approvals_bot.durable.tokens import Tokens
from approvals_bot.people import People
from approvals_bot.service.catalog import Catalog, load_catalog
from approvals_bot.service.links import Links
from approvals_bot.web.api_keys import ApiKey
from approvals_bot.web.metrics import Connection, Metrics
from approvals_bot.web.routes import build


class Switch:
    """The ASGI app, which a reload replaces while requests that are under way finish on the old one."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@dataclass(slots=True)
class Service:
    """The running service."""

    app: Switch
    engine: Engine
    reload: Callable[[Configuration], Sequence[str]]
    configuration: Configuration


@asynccontextmanager
async def open_service(
    configuration: Configuration,
    *,
    clock: TimeSource | None = None,
    extra: Iterable[BaseRoute] = (),
    open_pages: bool = False,
) -> AsyncIterator[Service]:
    """Build everything, work while the block runs, and take it down in order.

    `extra` are routes of others (the playground); `open_pages` shows the pages for people without a session, for a
    service that listens on this machine alone.
    """
    service = configuration.service
    clock = clock or SystemClock()
    tokens = Tokens([key.get_secret_value() for key in service.server.signing_keys])
    base_url = str(service.server.base_url).rstrip("/")
    metrics = Metrics()
    switch = Switch()
    listing = load_catalog(configuration)
    async with AsyncExitStack() as stack:
        store = await connect(service.server.database.get_secret_value())
        resources: dict[type, Any] = {}
        engine = Engine(
            store, tokens=tokens, base_url=base_url, clock=clock, resources=resources, watch=metrics.appended
        )
        targets = await open_targets(stack, service, clock.now)
        slack = await open_slack(stack, service.slack)
        slack_people = SlackPeople(slack) if slack is not None else None
        link = Links(engine=engine, tokens=tokens, base_url=base_url, now=clock.now).url
        returning = service.email.bounces if service.email else None
        return_paths = ReturnPaths(returning.address, tokens) if returning else None
        email = email_channel(stack, service.email, clock, return_paths)
        slack_out = SlackOut(slack, slack_people, now=clock.now) if slack and slack_people else None
        channels: dict[str, Channel] = {}
        if slack_out is not None:
            channels[SLACK] = slack_out
        if email is not None:
            channels[EMAIL] = email
        engine.resources |= {
            Channels: Channels(channels, base_url, link, metrics.delivered),
            HttpTargets: targets,
            People: build_people(service, slack_people, targets),
            Calendars: Calendars(service.calendars),
        }
        await stack.enter_async_context(engine.running())
        connections: dict[str, Connection] = {}
        if returning is not None and return_paths is not None:
            if returning.imap is not None:
                watching = mailbox_in(engine=engine, return_paths=return_paths, mailbox=bounces_mailbox(returning.imap))
                connections["bounces_mailbox"] = (await stack.enter_async_context(watching)).state
            if returning.place is not None:
                host, port = returning.place
                listening = mail_in(
                    engine=engine, return_paths=return_paths, host=host, port=port, protocol=returning.protocol
                )
                await stack.enter_async_context(listening)

        incoming: SlackIn | None = None
        slack_path: Sequence[BaseRoute] = ()
        if slack is not None and slack_people is not None and service.slack is not None:
            incoming = slack_in(
                engine=engine,
                client=slack,
                slack_people=slack_people,
                people=engine.resources[People],
                base_url=base_url,
                app_id=service.slack.app_id,
                external_users=service.slack.external_users,
                workflows=listing,
                link=link,
                counted=metrics.voted,
            )
            stack.push_async_callback(incoming.aclose)
            if service.slack.signing_secret is not None:
                secret = service.slack.signing_secret.get_secret_value()
                slack_path = slack_routes(incoming, signing_secret=secret, now=clock.now, engine=engine)
            if service.slack.app_token is not None:
                app_token = service.slack.app_token.get_secret_value()
                socket = socket_mode(incoming.bolt, app_token=app_token, client=slack)
                connections["slack_socket_mode"] = (await stack.enter_async_context(socket)).state

        extra = list(extra)

        def assemble(configuration: Configuration, listing: Catalog) -> ASGIApp:
            return build(
                engine=engine,
                tokens=tokens,
                people=engine.resources[People],
                channels=engine.resources[Channels],
                workflows=listing,
                api_keys=api_keys(configuration.service),
                base_url=base_url,
                now=clock.now,
                metrics=metrics,
                connections=connections,
                extra=[*slack_path, *extra],
                open_pages=open_pages,
            )

        def reload(fresh: Configuration) -> Sequence[str]:
            """New requests see the new files; open runs keep the ones that they were started with. Gives the tables
            whose changes take effect only at the next start."""
            listing = load_catalog(fresh)
            engine.resources[People] = build_people(fresh.service, slack_people, targets)
            engine.resources[Calendars] = Calendars(fresh.service.calendars)
            if incoming is not None:
                incoming.identities.people = engine.resources[People]
                incoming.opening.workflows = listing
                if fresh.service.slack is not None:
                    incoming.identities.external_users = fresh.service.slack.external_users
            switch.app = assemble(fresh, listing)
            running.configuration = fresh
            return needing_a_restart(configuration.service, fresh.service)

        switch.app = assemble(configuration, listing)
        running = Service(switch, engine, reload, configuration)
        yield running


def needing_a_restart(started: configured.ServiceSettings, fresh: configured.ServiceSettings) -> Sequence[str]:
    """What has changed since the start and is built only then: connections, keys, addresses."""
    found = []
    if fresh.server.model_copy(update={"workflows": started.server.workflows}) != started.server:
        found.append("[server]")
    if fresh.slack is None or started.slack is None:
        if fresh.slack != started.slack:
            found.append("[slack]")
    elif fresh.slack.model_copy(update={"external_users": started.slack.external_users}) != started.slack:
        found.append("[slack]")
    if fresh.email != started.email:
        found.append("[email]")
    if fresh.http != started.http:
        found.append("[http]")
    return found


def api_keys(service: configured.ServiceSettings) -> list[ApiKey]:
    return [ApiKey(name, key.key.get_secret_value(), key.may_vote) for name, key in service.api_keys.items()]
