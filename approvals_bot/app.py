"""The service, put together: the only place where its objects are built."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot import people as directory
from approvals_bot.approvals.checks import check
from approvals_bot.approvals.targets import HttpTargets
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels import Channels
from approvals_bot.channels.email.smtp import EmailChannel, Relay
from approvals_bot.channels.slack.client import SlackClient, slack_client
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.out import SlackOut
from approvals_bot.config import service as configured
from approvals_bot.config.load import Configuration, load
from approvals_bot.config.workflow import Definition, pinned
from approvals_bot.core.authoring import Workflow
from approvals_bot.core.registry import registry
from approvals_bot.engine import Clock, Engine, SystemClock
from approvals_bot.errors import ConfigError, WorkflowNotFoundError
from approvals_bot.outgoing import OutgoingTargets, Target, TargetSource, outgoing_targets
from approvals_bot.people import People
from approvals_bot.store import connect
from approvals_bot.tokens import Tokens
from approvals_bot.web.keys import ApiKey
from approvals_bot.web.links import DECISION
from approvals_bot.web.listing import Listed
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.routes import build
from approvals_bot.web.slack import SlackIn, slack_in, slack_routes, socket_mode

logger = logging.getLogger("approvals_bot.app")


def read_configuration(path: Path, env: Mapping[str, str] | None = None) -> Configuration:
    """config.toml and everything it names, checked together.

    ConfigErrors has every problem; then nothing was changed.
    """
    return load(path, os.environ if env is None else env, check)


# ── what can be started ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Listing:
    """The workflows that this configuration offers: each TOML file, and each Python workflow of the folder."""

    listed: Mapping[str, Listed]

    def find(self, name: str) -> Listed | None:
        return self.listed.get(name)

    def names(self) -> Collection[str]:
        return self.listed.keys()


def list_workflows(configuration: Configuration) -> Listing:
    """Import the folder's Python files, then list what they and the TOML files define.

    ConfigError names what is wrong.
    """
    listed: dict[str, Listed] = {}
    for made in import_workflows(configuration.service.server.workflows):
        listed[made.name] = Listed(made)
    for definition in configuration.workflows:
        listed[definition.id] = Listed(_workflow_of(definition), definition)
    return Listing(listed)


def import_workflows(folder: Path) -> list[Workflow[Any, Any]]:
    """The workflows that the folder's *.py files define. ConfigError if a file can't be imported."""
    found: list[Workflow[Any, Any]] = []
    for path in sorted(folder.glob("*.py")):
        name = f"approvals_bot_workflows.{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(f"{path}:{_line_of(error, path)}: can't be imported: {error}") from error
        found += [each for each in vars(module).values() if isinstance(each, Workflow)]
    return found


def _workflow_of(definition: Definition) -> Workflow[Any, Any]:
    if definition.workflow.run is None:
        return approval.under(definition.id, pinned(definition))
    _, _, function = definition.workflow.run.partition(":")
    try:
        return registry.newest(function).under(definition.id, pinned(definition).get("settings"))
    except WorkflowNotFoundError:
        raise ConfigError(
            f"{definition.id}.toml: workflow.run: no @workflow named {function!r} was found in the workflows folder"
        ) from None


def _line_of(error: BaseException, path: Path) -> int:
    line, trace = getattr(error, "lineno", None) or 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


# ── who there is, and how to reach them ───────────────────────────────────────────────────────────────────────────


def build_plain_people(service: configured.Service) -> People:
    """The people without live sources, for commands that run beside the service."""
    lists = {name: group for name, group in service.groups.items() if isinstance(group, tuple)}
    match service.directory:
        case configured.DirectoryTable(oncall=oncall, owner_of=owners):
            return People(_persons(service), lists, directory.Directory(oncall, owners))
        case _:
            return People(_persons(service), lists)


def known_people(service: configured.Service) -> Sequence[directory.Person]:
    """Everybody whom the configuration names, as far as no live source has to be asked."""
    return build_plain_people(service).known()


def _persons(service: configured.Service) -> list[directory.Person]:
    return [
        directory.Person(address, entry.name or address.partition("@")[0], entry.slack, entry.manager, entry.zone)
        for address, entry in service.people.items()
    ]


def build_people(service: configured.Service, slack_people: SlackPeople | None, targets: OutgoingTargets) -> People:
    """The people of the configuration, with their live sources."""

    def source(given: object) -> Any:
        match given:
            case configured.FileSource(file=path):
                return directory.FileSource(path)
            case configured.HttpSource(http=name):
                return TargetSource(name, targets)
            case configured.SlackGroup(slack=handle):
                if slack_people is None:
                    raise ConfigError(f"slack:{handle} is a group of people, but [slack] is not configured")
                return directory.SlackGroupSource(handle.removeprefix("@"), slack_people.members)
            case configured.DirectoryTable(oncall=oncall, owner_of=owners):
                return directory.Directory(oncall, owners)
            case _:
                return given

    return People(
        _persons(service),
        {name: source(group) for name, group in service.groups.items()},
        source(service.directory),
        slack_people.members if slack_people is not None else None,
    )


# ── the service ───────────────────────────────────────────────────────────────────────────────────────────────────


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
    reload: Callable[[Configuration], None]
    configuration: Configuration


@asynccontextmanager
async def open_service(
    configuration: Configuration,
    *,
    clock: Clock | None = None,
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
    listing = list_workflows(configuration)
    async with AsyncExitStack() as stack:
        store = await connect(service.server.database)
        resources: dict[type, Any] = {}
        engine = Engine(store, tokens=tokens, base_url=base_url, clock=clock, resources=resources)
        targets = await stack.enter_async_context(
            outgoing_targets(
                targets={
                    name: Target(str(target.url), target.secret.get_secret_value() if target.secret else None)
                    for name, target in service.http.items()
                },
                allow_private=service.server.allow_private,
                now=clock.now,
            )
        )
        slack = await _slack(stack, service.slack)
        slack_people = SlackPeople(slack) if slack is not None else None
        link = decision_links(engine, tokens, base_url)
        email = _email(stack, service.email, link, clock)
        slack_out = SlackOut(slack, slack_people, now=clock.now) if slack and slack_people else None
        engine.resources |= {
            Channels: Channels(slack=slack_out, email=email, base_url=base_url),
            HttpTargets: targets,
            People: build_people(service, slack_people, targets),
        }
        await stack.enter_async_context(engine.running())

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
                await stack.enter_async_context(socket_mode(incoming, app_token=app_token, client=slack))

        extra = list(extra)

        def assemble(configuration: Configuration, listing: Listing) -> ASGIApp:
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
                extra=[*slack_path, *extra],
                open_pages=open_pages,
            )

        def reload(fresh: Configuration) -> None:
            """New requests see the new files; open runs keep the ones that they were started with."""
            listing = list_workflows(fresh)
            engine.resources[People] = build_people(fresh.service, slack_people, targets)
            if incoming is not None:
                incoming.identities.people = engine.resources[People]
                incoming.opening.workflows = listing
                if fresh.service.slack is not None:
                    incoming.identities.external_users = fresh.service.slack.external_users
            switch.app = assemble(fresh, listing)
            running.configuration = fresh

        switch.app = assemble(configuration, listing)
        running = Service(switch, engine, reload, configuration)
        yield running


def api_keys(service: configured.Service) -> list[ApiKey]:
    return [ApiKey(name, key.key.get_secret_value(), key.may_vote) for name, key in service.api_keys.items()]


def decision_links(engine: Engine, tokens: Tokens, base_url: str) -> Callable[[str, str], Any]:
    """`link(hook_id, address)`: this person's own page of a request, made when it is sent and never kept."""

    async def link(hook_id: str, address: str) -> str:
        hook = await engine.find_hook(hook_id)
        record = await engine.record(hook.run_id) if hook is not None else None
        if hook is None or record is None or record.view is None:
            return ""
        recipients: Mapping[str, str] = record.view.get("recipients", {})
        for recipient, known in recipients.items():
            if known == address:
                token = tokens.sign(DECISION, {"h": hook_id, "r": recipient, "g": hook.generation})
                return f"{base_url}/decisions/{token}"
        return ""

    return link


async def _slack(stack: AsyncExitStack, slack: configured.Slack | None) -> SlackClient | None:
    if slack is None:
        return None
    token = slack.bot_token.get_secret_value()
    return await stack.enter_async_context(slack_client(token=token, api_url=str(slack.api_url)))


def _email(
    stack: AsyncExitStack, email: configured.Email | None, link: Callable[[str, str], Any], clock: Clock
) -> EmailChannel | None:
    if email is None:
        return None
    relay = Relay(
        host=email.host,
        port=email.port,
        security=email.security,
        username=email.username,
        password=email.password.get_secret_value() if email.password else None,
    )
    channel = EmailChannel(relay=relay, sender=email.sender, link=link, now=clock.now)
    stack.push_async_callback(channel.aclose)
    return channel
