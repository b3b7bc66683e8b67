"""`approvals-bot dev`: the real service on this machine, with a fake Slack, SMTP server and HTTP targets.

It writes to `.approvals/`: the database, throwaway secrets, and a config.toml that makes every other command work
beside it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from approvals_bot.app.directory import known_people
from approvals_bot.app.service import Service, open_service
from approvals_bot.approvals.delivery_policy import SayInSlack
from approvals_bot.approvals.templates import channels_of
from approvals_bot.channels.slack.manifest import SCOPES, SHORTCUT, function, step_name
from approvals_bot.cli.common import PlaygroundClock, write_whole
from approvals_bot.cli.dev_samples import Samples
from approvals_bot.cli.serving import ConfigSource, listen, serve
from approvals_bot.cli.toml_text import document
from approvals_bot.config.groups import slack_handles
from approvals_bot.config.load import Configuration, samples
from approvals_bot.config.messages import ConfigErrors, ConfigProblem
from approvals_bot.config.service import ServiceSettings
from approvals_bot.errors import ConfigError
from approvals_bot.playground import APP_ID, Playground, SeedApp, SeedChannel, SeedGroup, User, routes
from approvals_bot.service.catalog import read_configuration

STATE = Path(".approvals")
CONFIG = "config.toml"  # in there
WORKFLOWS = "workflows"  # the folder, unless server.workflows names another
API_KEY = "dev"
ALSO = {API_KEY: API_KEY}
"""The key's short value. It isn't in the derived file, so no other command and no `serve` takes it."""
HOST = "127.0.0.1"


async def dev(port: int, source: Path | None, fresh: bool) -> None:
    """Run until interrupted.

    Raises ConfigError for an invalid configuration, and AddressTakenError if the port is in use.
    """
    listening = listen(HOST, port)
    port = listening.getsockname()[1]
    base_url = f"http://{HOST}:{port}"
    if fresh:
        shutil.rmtree(STATE, ignore_errors=True)
    origin = Origin(source, base_url)
    async with open_dev(origin) as (service, playground):

        def read() -> Configuration:
            fresh = origin.read()
            playground.add_people_and_channels(_people(fresh.service), _places(fresh))
            playground.ring()  # open pages look again a moment later, and find samples of what has been loaded
            return fresh

        await serve(service, listening, ConfigSource(read, origin.files), lambda: _print_ready(base_url))


@asynccontextmanager
async def open_dev(origin: Origin) -> AsyncIterator[tuple[Service, Playground]]:
    """Open the service and its playground, which somebody else serves at `origin.base_url`."""
    configuration, clock = origin.read(), PlaygroundClock(STATE / "clock.json")
    async with (
        build_playground(configuration, origin.base_url, clock) as playground,
        open_service(configuration, clock=clock, extra=routes(playground), open_pages=True, also_keys=ALSO) as service,
    ):
        playground.follow(service.engine, Samples(service, API_KEY))
        yield service, playground


def _print_ready(base_url: str) -> None:
    print(  # noqa: T201
        f"Approvals Bot is ready. Open {base_url}  (API: {base_url}/api/runs, key: {API_KEY})",
        flush=True,
    )


class Origin:
    """`.approvals/config.toml`, derived from another file and pointed at this machine's fakes.

    People, groups, keys and workflows come from that file, which is the samples' unless one is given. A folder with
    workflows of its own and no such file is served with the samples' people. The file is derived again when its source
    changes; until then, manual changes stay.
    """

    def __init__(self, source: Path | None, base_url: str) -> None:
        own = Path(WORKFLOWS).resolve()
        self.workflows = own if source is None and own.is_dir() else None
        self.source = source = source or samples() / "config.example.toml"
        self.base_url = base_url
        self.smtp_port = _free_port()
        self.config = STATE / CONFIG
        self.files = [source, self.config]
        self.seen = ""

    def read(self) -> Configuration:
        """Derive and load the configuration. ConfigErrors refer to the source file's lines where they can."""
        try:
            text = self.source.read_text("utf-8-sig")
            if text != self.seen:
                self.write(text)
                self.seen = text
            return read_configuration(self.config)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
            try:
                read_configuration(self.source, _every_variable(self.source))
            except ConfigErrors as of_source:
                raise _shared_problems(of_source, error, self.source) from None
            raise

    def write(self, text: str) -> None:
        STATE.mkdir(mode=0o700, exist_ok=True)
        secret_folder = STATE / "secrets"
        secret_folder.mkdir(mode=0o700, exist_ok=True)
        given = _with_secrets(tomllib.loads(text), secret_folder, self.source.parent.resolve())
        server = given.setdefault("server", {})
        workflows = self.workflows or (self.source.parent / server.get("workflows", WORKFLOWS)).resolve()
        server["workflows"] = str(workflows)
        made = _on_this_machine(given, self.base_url, self.smtp_port)
        write_whole(
            self.config,
            "# Written by `approvals-bot dev` at every start. Use it with other commands while the playground runs:\n"
            "#   approvals-bot runs --config .approvals/config.toml\n" + document(made),
        )


def _shared_problems(of_source: ConfigErrors, error: Exception, source: Path) -> ConfigErrors:
    """Keep the source's problems that remain in the derived file, where for instance the API key "dev" exists."""
    if not isinstance(error, ConfigErrors):
        return of_source
    ours = {source.name, CONFIG}  # their lines differ

    def place(problem: ConfigProblem) -> tuple[object, ...]:
        name = Path(problem.file).name
        return (problem.key,) if name in ours else (name, problem.line, problem.key)

    here = {place(problem) for problem in error.problems}
    kept = [problem for problem in of_source.problems if place(problem) in here]
    return ConfigErrors(kept) if kept else error


def _every_variable(source: Path) -> dict[str, str]:
    """Return an environment with a value for every variable that the file refers to."""
    named = re.findall(r"env:(\w+)", source.read_text("utf-8", "replace")) if source.exists() else []
    return {name: f"{name} " * 8 for name in named} | os.environ


def _with_secrets(given: Any, secrets: Path, folder: Path) -> Any:
    """Replace unset environment variables by throwaway values in files, and make paths absolute.

    The derived file is in another folder, so relative paths would no longer work.
    """
    match given:
        case {"file": str(file), **rest} if not rest:
            return {"file": str(folder / file)}
        case dict():
            return {key: _with_secrets(value, secrets, folder) for key, value in given.items()}
        case list():
            return [_with_secrets(value, secrets, folder) for value in given]
        case str() if given.startswith("env:") and given.removeprefix("env:") not in os.environ:
            return _throw_away(secrets, given.removeprefix("env:"))
        case str() if given.startswith("file:"):
            return f"file:{folder / given.removeprefix('file:')}"
        case _:
            return given


def _throw_away(folder: Path, name: str) -> str:
    file = folder / re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if not file.exists():
        write_whole(file, secrets.token_urlsafe(48))
    return f"file:secrets/{file.name}"


def _on_this_machine(given: dict[str, Any], base_url: str, smtp_port: int) -> dict[str, Any]:
    server, secret_folder = given["server"], STATE / "secrets"
    server["base_url"] = base_url
    server["database"] = "sqlite:///approvals.db"
    # Everybody on this machine reads the playground's mailbox, so what is signed here must be worth nothing elsewhere.
    server["signing_keys"] = [_throw_away(secret_folder, "dev-signing.key")]
    given.setdefault("chat", {}).setdefault("enabled", True)
    server["allow_private"] = [base_url.removeprefix("http://")]
    given.setdefault("api_keys", {})[API_KEY] = {
        "key": _throw_away(secret_folder, "dev-api-key"),  # a long one: the short one is `dev`'s own
        "may_vote": True,
        "may": ["operate", "audit"],
    }
    slack = given.setdefault("slack", {})
    slack["bot_token"] = slack.get("bot_token") or _throw_away(secret_folder, "SLACK_BOT_TOKEN")
    slack["signing_secret"] = slack.get("signing_secret") or _throw_away(secret_folder, "SLACK_SIGNING_SECRET")
    slack["api_url"] = f"{base_url}/playground/slack/api/"
    slack["app_id"] = APP_ID
    slack.pop("app_token", None)  # the fake Slack posts over HTTP, as Slack does to a public URL
    sender = given.get("email", {}).get("sender", "Approvals <approvals@example.com>")
    limits = {key: value for key, value in given.get("email", {}).items() if key in ("rate", "digest")}
    given["email"] = {"host": HOST, "port": smtp_port, "security": "none", "sender": sender, **limits}
    for name, target in given.get("http", {}).items():
        target["url"] = f"{base_url}/playground/http/{name}"
    return given


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


def build_playground(configuration: Configuration, base_url: str, clock: PlaygroundClock) -> Playground:
    """Build the fakes, which know the configuration's people, channels, groups and targets."""
    service = configuration.service
    assert service.slack is not None
    assert service.slack.signing_secret is not None
    assert service.email is not None
    return Playground(
        app=SeedApp(
            bot_token=service.slack.bot_token.get_secret_value(),
            signing_secret=service.slack.signing_secret.get_secret_value(),
            scopes=SCOPES,
            shortcuts=((SHORTCUT, "Request approval"),),
            functions={step_name(each.id): function(each) for each in configuration.workflows if each.deliver.builder},
        ),
        people=_people(service),
        channels=_places(configuration),
        groups=[
            SeedGroup(handle, tuple(p.address for p in known_people(service)))
            for handle in slack_handles(service.groups)
        ],
        base_url=base_url,
        events_url=f"{base_url}/slack/events",
        target_secrets=_target_secrets(service.http),
        advance=clock.advance,
        smtp_port=service.email.port,
        api_key=API_KEY,
        memory=STATE / "playground" / "memory.db",
        now=clock.now,
        signing_clock=lambda: clock.now().timestamp(),
    )


def _people(service: ServiceSettings) -> list[User]:
    return [User(person) for person in known_people(service)]


def _places(configuration: Configuration) -> list[SeedChannel]:
    return [SeedChannel("general"), *(SeedChannel(name) for name in _channels(configuration))]


def _target_secrets(targets: Mapping[str, Any]) -> dict[str, str]:
    return {name: target.secret.get_secret_value() for name, target in targets.items() if target.secret is not None}


def _channels(configuration: Configuration) -> list[str]:
    """List every Slack channel that a workflow names, for the fake Slack to have."""
    named = [
        channel
        for definition in configuration.workflows
        for to in definition.deliveries
        if to.slack
        for channel in channels_of(to.slack, definition.fields)
    ]
    actions = [
        channel
        for definition in configuration.workflows
        for action in definition.follow_ups()
        if isinstance(action, SayInSlack)
        for channel in channels_of(action.slack, definition.fields)
    ]
    return list(dict.fromkeys(name.removeprefix("#") for name in [*named, *actions] if name.startswith("#")))
