"""The running service: builds everything, and shuts it down in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from socket import gethostname
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot.agents.chat_model import ChatModel
from approvals_bot.agents.chats import ChatForm
from approvals_bot.app.connections import (
    channel_settings,
    open_channels,
    open_targets,
    start_task,
    start_tasks,
)
from approvals_bot.app.directory import build_people, directory_source
from approvals_bot.app.monitoring import NOTED, Monitoring
from approvals_bot.approvals.business_time import Calendars
from approvals_bot.approvals.grant_life import GrantLines
from approvals_bot.approvals.picks import Picks
from approvals_bot.approvals.port import (
    SLACK,
    Channel,
    Channels,
    Reloads,
    Targets,
    WithMembers,
    WithRoutes,
    WithSignIn,
    WithStates,
)
from approvals_bot.approvals.standing_grants import StandingGrants
from approvals_bot.config import service as configured
from approvals_bot.config.chat import ChatTable
from approvals_bot.config.load import Configuration
from approvals_bot.config.proxy import Proxy
from approvals_bot.durable.core.events import ENDINGS, Event
from approvals_bot.durable.engine import Engine, SystemClock, TimeSource
from approvals_bot.durable.engine.executor import Executor
from approvals_bot.durable.store import connect
from approvals_bot.durable.store.chain import ChainKey
from approvals_bot.durable.tokens import Tokens
from approvals_bot.outgoing import address_of, fetch_text
from approvals_bot.people import People
from approvals_bot.people.roster import Rosters
from approvals_bot.service.audit_keeper import AuditKeeper
from approvals_bot.service.audit_key import AuditKey
from approvals_bot.service.catalog import Catalog, load_catalog
from approvals_bot.service.channel_watch import ChannelWatch
from approvals_bot.service.directory import DirectoryReader
from approvals_bot.service.files import keep_forgetting
from approvals_bot.service.grants import StoredGrantLines
from approvals_bot.service.host import Attached, ChannelHost
from approvals_bot.service.keys import api_keys
from approvals_bot.service.operations import keep_measuring
from approvals_bot.service.own_people import OwnPeopleStore
from approvals_bot.service.picks import StoredPicks
from approvals_bot.service.provisioning import Provisioning
from approvals_bot.service.replicas import Replicas, digest_of
from approvals_bot.service.retention import RetentionKeeper
from approvals_bot.service.roles import Roles
from approvals_bot.service.schedules import planned, start_scheduled
from approvals_bot.service.stalls import StalledCards
from approvals_bot.service.standing import StoredGrants
from approvals_bot.service.troubles import Troubles
from approvals_bot.web.health import Connection
from approvals_bot.web.links import Links
from approvals_bot.web.routes import build
from approvals_bot.web.sign_in import SignInSetup

PACKAGE = "approvals-bot"

TOOL_CALLS_ASK = ("@ops",)
"""Whom agents' tool calls ask on a developer's machine, without a file."""


class Switch:
    """An ASGI app that a reload can replace. HTTP requests in progress finish on the old one."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@dataclass(slots=True)
class Service:
    """The running service: its ASGI app, its engine, and a way to reload."""

    app: Switch
    engine: Engine
    reload: Callable[[Configuration], Sequence[str]]
    configuration: Configuration
    catalog: Catalog
    monitoring: Monitoring


@asynccontextmanager
async def open_service(
    configuration: Configuration,
    *,
    clock: TimeSource | None = None,
    extra: Iterable[BaseRoute] = (),
    open_pages: bool = False,
    also_keys: Mapping[str, str] | None = None,
    replica: str = "",
) -> AsyncIterator[Service]:
    """Build the service, run it while the block runs, and shut it down in order.

    `extra`: additional routes, such as the playground's. `open_pages`: show the pages for signed-in people to anybody,
    for a service that only this machine can reach. `also_keys`: one more value of some API keys, by name, which needn't
    be long; for such a service, too. `replica`: the ID of this process among those that serve the installation.
    """
    service = configuration.service
    clock = clock or SystemClock()
    base_url = str(service.server.base_url).rstrip("/")
    monitoring = Monitoring(clock.now)
    metrics = monitoring.metrics
    switch = Switch()
    asks = TOOL_CALLS_ASK if open_pages else ()
    listing = load_catalog(configuration, asks)
    async with AsyncExitStack() as stack:
        store = await connect(service.server.database.get_secret_value())
        monitoring.watch_store(store, version(PACKAGE))
        keys = [key.get_secret_value() for key in service.server.signing_keys]
        tokens = Tokens(keys, installation=store.installation)
        replicas = Replicas(
            store,
            tokens,
            version=version(PACKAGE),
            now=clock.now,
            config_digest=digest(configuration),
            id=replica,
            troubles=monitoring.troubles,
        )
        resources: dict[type, Any] = {}

        def appended(run_id: str, events: list[Event]) -> None:
            if any(event.type in NOTED for event in events):
                monitoring.appended(run_id, events)
                keeper.has_ended = keeper.has_ended or any(event.type in ENDINGS for event in events)

        def run_stalled(workflow: str) -> None:
            metrics.run_stalled(workflow)
            cards.wake()

        engine = Engine(
            store,
            tokens=tokens,
            base_url=base_url,
            clock=clock,
            resources=resources,
            executor=Executor(service.server.step_threads, service.step_limits),
            cancel_grace=service.server.cancel_grace.total_seconds(),
            max_waiting=service.hook.max_waiting,
            audit_key=None if service.audit.seed is None else ChainKey.derive(service.audit.seed),
            watch=appended,
            watch_stalls=run_stalled,
            watch_cut_off=lambda run_id: cards.wake(run_id),
            watch_limits=metrics.run_near_limit,
            watch_claims=monitoring.claimed,
        )
        targets = await open_targets(stack, service, clock.now)
        targets.watch = monitoring.called
        channels = open_channels(stack, service)
        slack_groups = channels.get(SLACK)
        workspace = slack_groups if isinstance(slack_groups, WithMembers) else None
        own = OwnPeopleStore(engine)
        await own.read()

        rosters = Rosters()
        directory = DirectoryReader(rosters, clock.now, monitoring.troubles)
        provisioning = Provisioning(engine, rosters)

        def people_with(service: configured.ServiceSettings) -> People:
            people = build_people(service, workspace, targets)
            people.own, people.rosters = own.known, rosters
            provisioning.use(people.rules)
            directory.use(people, directory_source(service, targets), service.directory.refresh.total_seconds())
            return people

        host = ChannelHost(
            engine=engine,
            tokens=tokens,
            people=people_with(service),
            workflows=listing,
            base_url=base_url,
            now=clock.now,
            link=Links(engine=engine, tokens=tokens, base_url=base_url, now=clock.now).url,
            counted=metrics.voted,
        )
        await provisioning.read()
        await directory.read()
        for channel in channels.values():
            if isinstance(channel, Attached):
                channel.attach(host)
        engine.resources |= {
            DirectoryReader: directory,
            Provisioning: provisioning,
            OwnPeopleStore: own,
            Channels: Channels(channels, base_url, host.link, monitoring.delivered),
            ChannelWatch: monitoring.channels,
            Troubles: monitoring.troubles,
            Targets: targets,
            People: host.people,
            Calendars: Calendars(service.calendars),
            Picks: StoredPicks(engine),
            GrantLines: StoredGrantLines(engine),
            StandingGrants: StoredGrants(engine),
            ChatModel: chat_model(service.chat),
        }
        engine.schedules.use(planned(listing), partial(start_scheduled, host), metrics.scheduled)
        engine.audits_peers = service.audit.peers == "keep"
        keeper = AuditKeeper(
            engine,
            service.audit,
            targets,
            version=version(PACKAGE),
            replica=gethostname(),
            troubles=monitoring.troubles,
        )
        keeper.load(configuration)
        cards = StalledCards(engine)
        await cards.remember()
        await stack.enter_async_context(engine.running())
        await keeper.start()
        stack.push_async_callback(keeper.stop)
        start_task(stack, keeper.run(), "the audit")
        stack.push_async_callback(replicas.leave)
        await replicas.announce()  # before anything is signed, and before it is ready
        start_task(stack, replicas.keep_announcing(), "the row of this replica")
        start_tasks(stack, channels)
        monitoring.start(
            stack,
            engine,
            channels,
            workflows=lambda: requesting(running.catalog),
            alerts=lambda: running.configuration.service.alerts,
            is_first=lambda: replicas.is_first,
        )
        start_task(stack, own.keep_reading(), "what people set themselves")
        start_task(stack, directory.keep_reading(), "the directory of people")
        start_task(stack, provisioning.keep_reading(), "what the identity provider pushes")
        start_task(stack, cards.run(), "the cards of stalled runs")
        start_task(stack, keep_forgetting(engine), "files that nothing has")
        start_task(
            stack,
            RetentionKeeper(engine, lambda: running.configuration, monitoring.troubles).run(),
            "what ended long ago",
        )
        start_task(stack, keep_measuring(engine), "the store's size")
        routes: list[BaseRoute] = [*extra]
        connections: dict[str, Connection] = {}
        for channel in channels.values():
            if isinstance(channel, WithRoutes):
                routes += channel.routes()
            if isinstance(channel, WithStates):
                connections |= channel.states()

        def assemble(configuration: Configuration, listing: Catalog) -> ASGIApp:
            return build(
                engine=engine,
                tokens=tokens,
                people=engine.resources[People],
                workflows=listing,
                api_keys=api_keys(configuration.service.api_keys, also_keys),
                base_url=base_url,
                metrics=metrics,
                figures=monitoring.figures,
                scrape=configuration.service.metrics,
                connections=connections,
                replicas=replicas,
                extra=routes,
                open_pages=open_pages,
                chat=chat_form(configuration.service.chat),
                loopback_only=open_pages,
                sign_in=sign_in_setup(configuration.service, channels),
                trusted_proxies=service.server.trusted_proxies,
                roles=Roles(engine.resources[People], configuration.service.roles.entries),
                audit_key=None if service.audit.seed is None else AuditKey(service.audit.seed),
                keeps_peers=configuration.service.audit.peers == "keep",
                texts=configuration.texts,
            )

        def reload(fresh: Configuration) -> Sequence[str]:
            """Apply a new configuration to new requests; open runs keep theirs.

            Returns the tables whose changes take effect only after a restart.
            """
            host.workflows = listing = load_catalog(fresh, asks)
            host.people = engine.resources[People] = people_with(fresh.service)
            engine.schedules.use(planned(listing), partial(start_scheduled, host), metrics.scheduled)
            engine.resources[Calendars] = Calendars(fresh.service.calendars)
            engine.resources[ChatModel] = chat_model(fresh.service.chat)
            settings = channel_settings(fresh.service)
            for name, channel in channels.items():
                if isinstance(channel, Reloads) and name in settings:
                    channel.reload(settings[name])
            switch.app = assemble(fresh, listing)
            keeper.load(fresh)
            replicas.use([key.get_secret_value() for key in fresh.service.server.signing_keys], digest(fresh))
            running.configuration, running.catalog = fresh, listing
            metrics.configured(digest(fresh), clock.now())
            return needing_a_restart(configuration.service, fresh.service)

        switch.app = assemble(configuration, listing)
        metrics.configured(digest(configuration), clock.now())
        running = Service(switch, engine, reload, configuration, listing, monitoring)
        yield running


def requesting(listing: Catalog) -> list[str]:
    """List the workflows whose runs are requests."""
    return [name for name, listed in listing.listed.items() if listed.makes_request]


def digest(configuration: Configuration) -> str:
    """Return what shows whether two replicas run the same configuration. Secrets aren't in it."""
    files = {definition.id: definition.model_dump_json() for definition in configuration.workflows}
    return digest_of({"": configuration.service.model_dump_json(exclude={"server": {"workflows"}})} | files)


def needing_a_restart(started: configured.ServiceSettings, fresh: configured.ServiceSettings) -> Sequence[str]:
    """List the tables with changes that only a restart applies: connections, keys, addresses."""
    found = []
    applied = {"workflows": started.server.workflows, "signing_keys": started.server.signing_keys}
    if fresh.server.model_copy(update=applied) != started.server:
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
    if fresh.channels != started.channels:
        found.append("[channels]")
    if fresh.audit != started.audit:
        found.append("[audit]")
    if fresh.limits != started.limits:
        found.append("[limits]")
    return found


def chat_model(table: ChatTable) -> ChatModel:
    return ChatModel(table.model, table.key.get_secret_value() if table.key is not None else "")


def chat_form(table: ChatTable) -> ChatForm | None:
    """Return how the chat asks people; None where there is no chat."""
    return ChatForm(table.approval, table.approvers) if table.enabled else None


def sign_in_setup(service: configured.ServiceSettings, channels: Mapping[str, Channel]) -> SignInSetup:
    """Return how people sign in. The issuer's own address may be called, wherever it is: the file names it."""
    slack, api = channels.get(SLACK), str(service.slack.api_url) if service.slack is not None else ""
    own = [url for url in (api, service.login.oidc.issuer if service.login.oidc is not None else "") if url]
    allowed = [*service.server.allow_private, *map(address_of, own)]
    proxy, slacks = (
        service.server.outgoing_proxy,
        Proxy.of(service.slack.proxy_url) if service.slack is not None else None,
    )

    async def fetch(url: str, **options: Any) -> bytes:
        is_slacks = bool(api) and address_of(url) == address_of(api)
        return await fetch_text(url, allowed=allowed, proxy=slacks if is_slacks else proxy, **options)

    return SignInSetup(service.login, slack if isinstance(slack, WithSignIn) else None, api, fetch)
