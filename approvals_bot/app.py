"""The service, put together: the only place where its objects are built."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from approvals_bot import people as directory
from approvals_bot.approvals.checks import check
from approvals_bot.approvals.targets import HttpTargets
from approvals_bot.approvals.workflow import approval
from approvals_bot.channels import Channels
from approvals_bot.channels.counted import CountedChannel
from approvals_bot.channels.email.bounces import ReturnPaths
from approvals_bot.channels.email.digests import Digests
from approvals_bot.channels.email.out import EmailChannel
from approvals_bot.channels.email.smtp import Relay
from approvals_bot.channels.email.turns import Turns
from approvals_bot.channels.slack.client import SlackClient, slack_client
from approvals_bot.channels.slack.members import SlackPeople
from approvals_bot.channels.slack.out import SlackOut
from approvals_bot.config import service as configured
from approvals_bot.config.calendars import Calendars
from approvals_bot.config.load import Configuration, load, load_service, problems_of
from approvals_bot.config.mail import Email
from approvals_bot.config.problems import ConfigErrors, Finding, Problem
from approvals_bot.config.workflow import pinned
from approvals_bot.core.registry import registry
from approvals_bot.engine import Clock, Engine, SystemClock
from approvals_bot.lint import UNREADABLE, lint_paths
from approvals_bot.outgoing import OutgoingTargets, Target, TargetSource, outgoing_targets
from approvals_bot.people import People, SourceUnavailable
from approvals_bot.people.absences import Absence
from approvals_bot.programs import PACKAGE, Program, find_program, fit, import_programs
from approvals_bot.store import connect
from approvals_bot.tokens import Tokens
from approvals_bot.web.health import Connection
from approvals_bot.web.keys import ApiKey
from approvals_bot.web.links import DECISION
from approvals_bot.web.listing import Listed
from approvals_bot.web.mail_in import mail_in
from approvals_bot.web.metrics import Metrics
from approvals_bot.web.requests import request_of
from approvals_bot.web.routes import build
from approvals_bot.web.slack import SlackIn, slack_in, slack_routes
from approvals_bot.web.slack_socket import socket_mode

logger = logging.getLogger("approvals_bot.app")


def read_configuration(path: Path, env: Mapping[str, str] | None = None) -> Configuration:
    """config.toml and everything it names, checked together.

    ConfigErrors has every problem; then nothing was changed.
    """
    return load(path, os.environ if env is None else env, check)


def find_problems(path: Path, env: Mapping[str, str] | None = None) -> Sequence[Problem]:
    """Everything that is wrong with the configuration, in TOML and in Python; nothing is started."""
    try:
        configuration = read_configuration(path, env)
    except ConfigErrors as errors:
        folder = workflows_folder(path, env)
        _, broken = import_programs(folder)
        return ConfigErrors([*errors.problems, *broken, *_not_replayable(folder)]).problems
    found: Sequence[Problem] = ()
    try:
        list_workflows(configuration)
    except ConfigErrors as errors:
        found = errors.problems
    return ConfigErrors([*found, *_not_replayable(configuration.service.server.workflows)]).problems


def _not_replayable(folder: Path) -> list[Problem]:
    """What the lint rules find in the folder's Python files. (Files that are no Python can't be imported either.)"""
    found = lint_paths(sorted(folder.glob("*.py")))
    return [Problem(each.file, each.line, each.code, each.message) for each in found if each.code != UNREADABLE]


def workflows_folder(path: Path, env: Mapping[str, str] | None) -> Path:
    """Where the workflows are; where they usually are, if config.toml itself can't be loaded."""
    try:
        return load_service(path, os.environ if env is None else env).server.workflows
    except ConfigErrors:
        return path.parent / "workflows"


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
    """Import the folder's Python files, then list what they and the TOML files define: all of it, or, if something is
    wrong with one of them, nothing, and whatever was in force stays so.

    A Python workflow that a TOML file offers (`run = "module:function"`) is listed under that file's name only, so that
    nobody gets round who may ask for it. ConfigErrors has everything that is wrong, with file and line.
    """
    modules = {name: module for name, module in sys.modules.items() if name.startswith(f"{PACKAGE}.")}
    try:
        with registry.trial(f"{PACKAGE}."):
            return _list_workflows(configuration)
    except ConfigErrors:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        sys.modules |= modules
        raise


def _list_workflows(configuration: Configuration) -> Listing:
    folder = configuration.service.server.workflows
    programs, problems = import_programs(folder)
    broken = {Path(problem.file).stem for problem in problems}
    listed = {program.workflow.name: Listed(program.workflow) for program in programs}
    where = {program.workflow.name: f"{program.file.name}:{program.line}" for program in programs}
    for definition in configuration.workflows:
        if definition.workflow.run is not None:
            offered = find_program(definition.workflow.run, programs)
            if isinstance(offered, Program):
                listed.pop(offered.workflow.name, None)
    for definition in configuration.workflows:
        file, found = folder / f"{definition.id}.toml", list[Finding]()
        run = definition.workflow.run
        match find_program(run, programs) if run is not None else None:
            case Finding() as missing:
                if run is not None and run.partition(":")[0] not in broken:
                    found.append(missing)
            case _ if definition.id in where and definition.id in listed:
                other = where[definition.id]
                found.append(Finding(("workflow", "id"), f"a Python workflow has this name, too ({other}); rename one"))
            case None:
                listed[definition.id] = Listed(approval.under(definition.id, pinned(definition)), definition)
            case Program() as program:
                fitted, unfit = fit(definition, program)
                found += unfit
                settings = pinned(definition).get("settings")
                listed[definition.id] = Listed(program.workflow.under(definition.id, settings), fitted)
        problems += problems_of(file, found)
    if problems:
        raise ConfigErrors(problems)
    return Listing(listed)


# ── who there is, and how to reach them ───────────────────────────────────────────────────────────────────────────


def build_plain_people(service: configured.Service) -> People:
    """The people without live sources, for commands that run beside the service."""
    lists = {name: group for name, group in service.groups.items() if isinstance(group, tuple)}
    match service.directory:
        case configured.DirectoryTable(oncall=oncall, owner_of=owners):
            return People(_persons(service), lists, directory.Directory(oncall, owners), away=_absences(service))
        case _:
            return People(_persons(service), lists, away=_absences(service))


def known_people(service: configured.Service) -> Sequence[directory.Person]:
    """Everybody whom the configuration names, as far as no live source has to be asked."""
    return build_plain_people(service).known()


def _persons(service: configured.Service) -> list[directory.Person]:
    return [
        directory.Person(address, entry.name or address.partition("@")[0], entry.slack, entry.manager, entry.zone)
        for address, entry in service.people.items()
    ]


def _absences(service: configured.Service) -> dict[str, list[Absence]]:
    return {
        address: [Absence(each.from_, each.until, each.delegate) for each in entry.away]
        for address, entry in service.people.items()
        if entry.away
    }


def build_people(
    service: configured.Service, slack_people: SlackPeople | None, targets: OutgoingTargets | None
) -> People:
    """The people of the configuration, with their live sources. One whose way is None is not asked: who belongs to it
    is then unknown.
    """

    def source(given: object) -> Any:
        match given:
            case configured.FileSource(file=path):
                return directory.FileSource(path)
            case configured.HttpSource(http=name):
                return TargetSource(name, targets) if targets is not None else _NotAsked(name)
            case configured.SlackGroup(slack=handle):
                return directory.SlackGroupSource(handle.removeprefix("@"), members or _ask_nobody)
            case configured.DirectoryTable(oncall=oncall, owner_of=owners):
                return directory.Directory(oncall, owners)
            case _:
                return given

    members = slack_people.members if slack_people is not None else None
    return People(
        _persons(service),
        {name: source(group) for name, group in service.groups.items()},
        source(service.directory),
        members or (_ask_nobody if service.slack is not None else None),
        _absences(service),
        service.server.admins,
    )


@asynccontextmanager
async def open_people(
    service: configured.Service, now: Callable[[], datetime], *, live: bool = True
) -> AsyncIterator[People]:
    """The people by themselves, for commands. Without `live`, nothing outside of this machine is asked."""
    if not live:
        yield build_people(service, None, None)
        return
    async with AsyncExitStack() as stack:
        targets = await _targets(stack, service, now)
        slack = await _slack(stack, service.slack)
        yield build_people(service, SlackPeople(slack) if slack is not None else None, targets)


@dataclass(frozen=True, slots=True)
class _NotAsked:
    """A live source that is left alone."""

    name: str

    async def read(self) -> Any:
        raise SourceUnavailable(self.name, "it was not asked")


async def _ask_nobody(handle: str) -> Sequence[str]:
    raise SourceUnavailable(f"slack:@{handle}", "Slack was not asked")


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
    reload: Callable[[Configuration], Sequence[str]]
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
        engine = Engine(
            store, tokens=tokens, base_url=base_url, clock=clock, resources=resources, watch=metrics.appended
        )
        targets = await _targets(stack, service, clock.now)
        slack = await _slack(stack, service.slack)
        slack_people = SlackPeople(slack) if slack is not None else None
        link = decision_links(engine, tokens, base_url)
        returning = service.email.bounces if service.email else None
        return_paths = ReturnPaths(returning.address, tokens) if returning else None
        email = _email(stack, service.email, link, clock, return_paths)
        slack_out = SlackOut(slack, slack_people, now=clock.now) if slack and slack_people else None
        engine.resources |= {
            Channels: Channels(
                slack=CountedChannel(slack_out, "slack", metrics.delivered) if slack_out else None,
                email=CountedChannel(email, "email", metrics.delivered) if email else None,
                base_url=base_url,
            ),
            HttpTargets: targets,
            People: build_people(service, slack_people, targets),
            Calendars: Calendars(service.calendars),
        }
        await stack.enter_async_context(engine.running())
        if returning is not None and return_paths is not None:
            listening = mail_in(
                engine=engine,
                return_paths=return_paths,
                host=returning.host,
                port=returning.port,
                protocol=returning.protocol,
            )
            await stack.enter_async_context(listening)

        incoming: SlackIn | None = None
        slack_path: Sequence[BaseRoute] = ()
        connections: dict[str, Connection] = {}
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
                connections=connections,
                extra=[*slack_path, *extra],
                open_pages=open_pages,
            )

        def reload(fresh: Configuration) -> Sequence[str]:
            """New requests see the new files; open runs keep the ones that they were started with. Gives the tables
            whose changes take effect only at the next start."""
            listing = list_workflows(fresh)
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


def needing_a_restart(started: configured.Service, fresh: configured.Service) -> Sequence[str]:
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


def api_keys(service: configured.Service) -> list[ApiKey]:
    return [ApiKey(name, key.key.get_secret_value(), key.may_vote) for name, key in service.api_keys.items()]


def decision_links(engine: Engine, tokens: Tokens, base_url: str) -> Callable[[str, str], Any]:
    """`link(hook_id, address)`: this person's own page of a request, made when it is sent and never kept."""

    async def link(hook_id: str, address: str) -> str:
        hook = await engine.find_hook(hook_id)
        record = await engine.record(hook.run_id) if hook is not None else None
        view = request_of(record, hook_id) if record is not None else None
        if hook is None or view is None:
            return ""
        for recipient, known in view.recipients.items():
            if known == address:
                token = tokens.sign(DECISION, {"h": hook_id, "r": recipient, "g": hook.generation})
                return f"{base_url}/decisions/{token}"
        return ""

    return link


async def _targets(stack: AsyncExitStack, service: configured.Service, now: Callable[[], datetime]) -> OutgoingTargets:
    targets = {
        name: Target(str(target.url), target.secret.get_secret_value() if target.secret else None)
        for name, target in service.http.items()
    }
    return await stack.enter_async_context(
        outgoing_targets(targets=targets, allow_private=service.server.allow_private, now=now)
    )


async def _slack(stack: AsyncExitStack, slack: configured.Slack | None) -> SlackClient | None:
    if slack is None:
        return None
    token = slack.bot_token.get_secret_value()
    return await stack.enter_async_context(slack_client(token=token, api_url=str(slack.api_url)))


def _email(
    stack: AsyncExitStack,
    email: Email | None,
    link: Callable[[str, str], Any],
    clock: Clock,
    return_paths: ReturnPaths | None,
) -> EmailChannel | Digests | None:
    if email is None:
        return None
    relay = Relay(
        host=email.host,
        port=email.port,
        security=email.security,
        username=email.username,
        password=email.password.get_secret_value() if email.password else None,
    )
    turns = Turns(email.rate.count, email.rate.per) if email.rate else None
    channel = EmailChannel(
        relay=relay, sender=email.sender, link=link, now=clock.now, turns=turns, return_paths=return_paths
    )
    stack.push_async_callback(channel.aclose)
    return Digests(channel, span=email.digest, now=clock.now) if email.digest else channel
