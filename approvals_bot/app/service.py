"""The running service: builds everything, and shuts it down in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain
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
from approvals_bot.durable.store.protocol import OpenStore
from approvals_bot.durable.tokens import Tokens
from approvals_bot.outgoing import OutgoingTargets, address_of, fetch_text
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


class Service:
    """The running service: its ASGI app, its engine, and a way to reload. Use `open_service`, which starts it, too."""

    def __init__(
        self,
        configuration: Configuration,
        catalog: Catalog,
        store: OpenStore,
        targets: OutgoingTargets,
        channels: Mapping[str, Channel],
        clock: TimeSource,
        *,
        extra: Iterable[BaseRoute],
        open_pages: bool,
        also_keys: Mapping[str, str] | None,
        replica: str,
    ) -> None:
        """Build it. Nothing runs yet, and nothing is read."""
        service = self._started = configuration.service
        self.configuration, self.catalog = configuration, catalog
        self.app = Switch()
        self._targets, self._channels, self._clock = targets, channels, clock
        self._extra, self._open_pages, self._also_keys = extra, open_pages, also_keys
        self._base_url = str(service.server.base_url).rstrip("/")
        self.monitoring = Monitoring(clock.now)
        self.monitoring.watch_store(store, version(PACKAGE))
        targets.watch = self.monitoring.called
        self._tokens = Tokens(signing_keys(service), installation=store.installation)
        self._replicas = Replicas(
            store,
            self._tokens,
            version=version(PACKAGE),
            now=clock.now,
            config_digest=digest(configuration),
            id=replica,
            troubles=self.monitoring.troubles,
        )
        self.engine = self._engine_on(store)
        self._own = OwnPeopleStore(self.engine)
        self._rosters = Rosters()
        self._directory = DirectoryReader(self._rosters, clock.now, self.monitoring.troubles)
        self._provisioning = Provisioning(self.engine, self._rosters)
        self._cards = StalledCards(self.engine)
        self._keeper = AuditKeeper(
            self.engine,
            service.audit,
            targets,
            version=version(PACKAGE),
            replica=gethostname(),
            troubles=self.monitoring.troubles,
        )
        self._host = self._channel_host()

    def _engine_on(self, store: OpenStore) -> Engine:
        service, metrics = self._started, self.monitoring.metrics
        return Engine(
            store,
            tokens=self._tokens,
            base_url=self._base_url,
            clock=self._clock,
            resources={},
            executor=Executor(service.server.step_threads, service.step_limits),
            cancel_grace=service.server.cancel_grace.total_seconds(),
            max_waiting=service.hook.max_waiting,
            audit_key=None if service.audit.seed is None else ChainKey.derive(service.audit.seed),
            watch=self._appended,
            watch_stalls=self._run_stalled,
            watch_cut_off=lambda run_id: self._cards.wake(run_id),
            watch_limits=metrics.run_near_limit,
            watch_claims=self.monitoring.claimed,
        )

    def _appended(self, run_id: str, events: list[Event]) -> None:
        if any(event.type in NOTED for event in events):
            self.monitoring.appended(run_id, events)
            self._keeper.has_ended = self._keeper.has_ended or any(event.type in ENDINGS for event in events)

    def _run_stalled(self, workflow: str) -> None:
        self.monitoring.metrics.run_stalled(workflow)
        self._cards.wake()

    def _channel_host(self) -> ChannelHost:
        engine, tokens, base_url, now = self.engine, self._tokens, self._base_url, self._clock.now
        return ChannelHost(
            engine=engine,
            tokens=tokens,
            people=self._people_of(self._started),
            workflows=self.catalog,
            base_url=base_url,
            now=now,
            link=Links(engine=engine, tokens=tokens, base_url=base_url, now=now).url,
            counted=self.monitoring.metrics.voted,
        )

    def _people_of(self, service: configured.ServiceSettings) -> People:
        slack = self._channels.get(SLACK)
        people = build_people(service, slack if isinstance(slack, WithMembers) else None, self._targets)
        people.own, people.rosters = self._own.known, self._rosters
        self._provisioning.use(people.rules)
        self._directory.use(people, directory_source(service, self._targets), service.directory.refresh.total_seconds())
        return people

    # ── starting ──

    async def start(self, stack: AsyncExitStack) -> None:
        """Read what is kept of people, then begin all work. The stack ends it, in reverse order."""
        await self._own.read()
        await self._provisioning.read()
        await self._directory.read()
        for channel in self._channels.values():
            if isinstance(channel, Attached):
                channel.attach(self._host)
        self._offer_resources()
        self._plan_schedules(self.catalog)
        self.engine.audits_peers = self._started.audit.peers == "keep"
        self._keeper.load(self.configuration)
        await self._cards.remember()
        await stack.enter_async_context(self.engine.running())
        await self._keeper.start()
        stack.push_async_callback(self._keeper.stop)
        start_task(stack, self._keeper.run(), "the audit")
        stack.push_async_callback(self._replicas.leave)
        await self._replicas.announce()  # before anything is signed, and before it is ready
        self._start_tasks(stack)
        self._serve(self.configuration, self.catalog)

    def _offer_resources(self) -> None:
        """Give the engine what steps ask for, and the rooms above it share."""
        engine, service, monitoring = self.engine, self._started, self.monitoring
        engine.resources |= {
            DirectoryReader: self._directory,
            Provisioning: self._provisioning,
            OwnPeopleStore: self._own,
            Channels: Channels(self._channels, self._base_url, self._host.link, monitoring.delivered),
            ChannelWatch: monitoring.channels,
            Troubles: monitoring.troubles,
            Targets: self._targets,
            People: self._host.people,
            Calendars: Calendars(service.calendars),
            Picks: StoredPicks(engine),
            GrantLines: StoredGrantLines(engine),
            StandingGrants: StoredGrants(engine),
            ChatModel: chat_model(service.chat),
        }

    def _plan_schedules(self, catalog: Catalog) -> None:
        start = partial(start_scheduled, self._host)
        self.engine.schedules.use(planned(catalog), start, self.monitoring.metrics.scheduled)

    def _start_tasks(self, stack: AsyncExitStack) -> None:
        start_task(stack, self._replicas.keep_announcing(), "the row of this replica")
        start_tasks(stack, self._channels)
        self.monitoring.start(
            stack,
            self.engine,
            self._channels,
            workflows=lambda: requesting(self.catalog),
            alerts=lambda: self.configuration.service.alerts,
            is_first=lambda: self._replicas.is_first,
        )
        start_task(stack, self._own.keep_reading(), "what people set themselves")
        start_task(stack, self._directory.keep_reading(), "the directory of people")
        start_task(stack, self._provisioning.keep_reading(), "what the identity provider pushes")
        start_task(stack, self._cards.run(), "the cards of stalled runs")
        start_task(stack, keep_forgetting(self.engine), "files that nothing has")
        retention = RetentionKeeper(self.engine, lambda: self.configuration, self.monitoring.troubles)
        start_task(stack, retention.run(), "what ended long ago")
        start_task(stack, keep_measuring(self.engine), "the store's size")

    # ── serving ──

    def reload(self, fresh: Configuration) -> Sequence[str]:
        """Apply a new configuration to new requests; open runs keep theirs.

        Returns the tables whose changes take effect only after a restart.
        """
        catalog = load_catalog(fresh, asked_by_tools(open_pages=self._open_pages))
        self._host.workflows = catalog
        self._host.people = self.engine.resources[People] = self._people_of(fresh.service)
        self._plan_schedules(catalog)
        self.engine.resources[Calendars] = Calendars(fresh.service.calendars)
        self.engine.resources[ChatModel] = chat_model(fresh.service.chat)
        settings = channel_settings(fresh.service)
        for name, channel in self._channels.items():
            if isinstance(channel, Reloads) and name in settings:
                channel.reload(settings[name])
        self._serve(fresh, catalog)
        self._keeper.load(fresh)
        self._replicas.use(signing_keys(fresh.service), digest(fresh))
        self.configuration, self.catalog = fresh, catalog
        return needing_a_restart(self._started, fresh.service)

    def _serve(self, configuration: Configuration, catalog: Catalog) -> None:
        """Answer by this configuration from now on. Requests in progress finish by the one before."""
        service, started = configuration.service, self._started
        self.app.app = build(
            engine=self.engine,
            tokens=self._tokens,
            people=self._host.people,
            workflows=catalog,
            api_keys=api_keys(service.api_keys, self._also_keys),
            base_url=self._base_url,
            metrics=self.monitoring.metrics,
            figures=self.monitoring.figures,
            scrape=service.metrics,
            connections=self._connections,
            replicas=self._replicas,
            extra=self._routes,
            open_pages=self._open_pages,
            chat=chat_form(service.chat),
            loopback_only=self._open_pages,
            sign_in=sign_in_setup(service, self._channels),
            trusted_proxies=started.server.trusted_proxies,
            roles=Roles(self._host.people, service.roles.entries),
            audit_key=None if started.audit.seed is None else AuditKey(started.audit.seed),
            keeps_peers=service.audit.peers == "keep",
            texts=configuration.texts,
        )
        self.monitoring.metrics.configured(digest(configuration), self._clock.now())

    @cached_property
    def _routes(self) -> list[BaseRoute]:
        channels = [channel.routes() for channel in self._channels.values() if isinstance(channel, WithRoutes)]
        return [*self._extra, *chain.from_iterable(channels)]

    @cached_property
    def _connections(self) -> dict[str, Connection]:
        found: dict[str, Connection] = {}
        for channel in self._channels.values():
            if isinstance(channel, WithStates):
                found |= channel.states()
        return found


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
    settings, clock = configuration.service, clock or SystemClock()
    catalog = load_catalog(configuration, asked_by_tools(open_pages=open_pages))
    async with AsyncExitStack() as stack:
        service = Service(
            configuration,
            catalog,
            await connect(settings.server.database.get_secret_value()),
            await open_targets(stack, settings, clock.now),
            open_channels(stack, settings),
            clock,
            extra=extra,
            open_pages=open_pages,
            also_keys=also_keys,
            replica=replica,
        )
        await service.start(stack)
        yield service


def asked_by_tools(*, open_pages: bool) -> Sequence[str]:
    """Return whom agents' tool calls ask without a file."""
    return TOOL_CALLS_ASK if open_pages else ()


def signing_keys(service: configured.ServiceSettings) -> list[str]:
    return [key.get_secret_value() for key in service.server.signing_keys]


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
