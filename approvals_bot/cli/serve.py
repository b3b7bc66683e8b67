"""`init`, `slack manifest`, `dev`, `serve`, `migrate`, `copy`: from an empty folder to a running service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from approvals_bot.channels.slack.manifest import manifest as manifest_of
from approvals_bot.cli import show
from approvals_bot.cli.common import CONFIG, Config, Json, fail, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine

Port = Annotated[int, typer.Option(envvar="PORT", min=0, max=65_535, help="The port; 0 takes a free one.")]


def dev(
    port: Port = 8000,
    config: Annotated[
        Path | None, typer.Option("--config", help="Take people and workflows from it.", metavar="FILE")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from an empty store.")] = False,
) -> None:
    """Try everything here, with stand-ins for Slack and mail."""
    from approvals_bot.cli.dev import dev as run_dev
    from approvals_bot.cli.serving import run

    show.quiet_logs()
    run(run_dev(port, config, fresh))


def serve_command(
    config: Config = CONFIG,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[
        int, typer.Option(min=1, help="Only 1: for more, start one `serve` each, on PostgreSQL, behind a balancer.")
    ] = 1,
) -> None:
    """Run the service."""
    if workers > 1:
        fail(
            f"--workers {workers}: one `serve` is one process. On SQLite more would only wait for each other, since a "
            "file takes one writer at a time. On PostgreSQL start `serve` as often as you like, each on its own port "
            "or machine, behind a load balancer."
        )
    from approvals_bot.app.service import open_service
    from approvals_bot.cli.serving import ConfigSource, listen, run, serve
    from approvals_bot.service.catalog import read_configuration

    async def main() -> None:
        configuration = read_configuration(config)
        listening = listen(host, port)
        where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        async with open_service(configuration) as service:
            source = ConfigSource(lambda: read_configuration(config), [config])
            await serve(service, listening, source, lambda: typer.echo(f"Approvals Bot is ready on {where}"))

    show.quiet_logs()
    run(main())


def copy_command(
    source: Annotated[str, typer.Option("--from", help="The database to copy: a URL, or env:NAME.", metavar="URL")],
    target: Annotated[str, typer.Option("--to", help="An empty one: a URL, or env:NAME.", metavar="URL")],
) -> None:
    """Copy a stopped installation to another database: all of it, or nothing."""
    from approvals_bot.durable.store.copying import copy

    urls = _url(source, "--from"), _url(target, "--to")
    counts = asyncio.run(copy(*urls, lambda text: typer.echo(text, err=True)))
    typer.echo(f"Copied {counts['runs']:,} runs, {counts['events']:,} events; verified, the audit's chain too.")


def _url(given: str, option: str) -> str:
    """`env:NAME` keeps a password out of the list of processes."""
    name = given.removeprefix("env:")
    if name != given:
        given = os.environ.get(name, "")
        if not given:
            fail(f"{option}: the environment variable {name} is not set")
    if not given.startswith(("sqlite:///", "postgresql://", "postgres://")):
        fail(f"{option}: a database's URL starts with sqlite:/// or postgresql://")
    return given


def migrate(config: Config = CONFIG) -> None:
    """Bring the database's schema up to date. `serve` does it, too."""

    async def look(engine: Engine, _: ServiceSettings) -> None:
        await engine.ready()

    with_engine(config, look)
    typer.echo("The database is up to date.")


# `init`: a configuration that works at once, small enough to be read whole.

CONFIG_TEMPLATE = """\
# Approvals Bot: the service's file. `approvals-bot check` tells what is wrong with it, with the line.
[server]
base_url     = "http://127.0.0.1:8000"             # people's links are made from this
database     = "sqlite:///approvals.db"
signing_keys = ["file:secrets/signing.key"]        # first signs, all verify: put a new one in front to rotate
workflows    = "workflows"

[api_keys]
ci = { key = "file:secrets/ci.key", may_vote = false }   # Authorization: Bearer <what is in that file>

# [slack]                                          # `approvals-bot slack manifest` prints the app to create
# bot_token      = "env:SLACK_BOT_TOKEN"
# signing_secret = "env:SLACK_SIGNING_SECRET"

[email]
host     = "127.0.0.1"
port     = 25
security = "none"                                  # starttls or tls for a relay that isn't this machine
sender   = "Approvals <approvals@example.com>"

[people."@you@"]
name = "You"
[people."@colleague@"]
name = "A Colleague"

[groups]
approvers = ["@you@", "@colleague@"]
"""

WORKFLOW_TEMPLATE = """\
# Who may decide, and how they hear of it. The file's name is the workflow's name.
[workflow]
id      = "@what@"
title   = "{{ what }}"
request = ["*", "app:ci"]            # who may ask: every person, and the app "ci"

[fields]
what = { type = "string", pinned = true }
why  = { type = "text", required = false }

[[stage]]
id   = "ok"
from = ["@approvers"]                # one of them decides; whoever asked never decides alone
need = 1

[deliver]
email = true

[clock]
deadline    = "2d"
remind      = ["4h", "1d"]
on_deadline = "expire"
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """The three answers, and what is proposed for each."""

    you: str = "you@example.com"
    colleague: str = "colleague@example.com"
    what: str = "first"

    def check(self) -> None:
        """ValueError says which can't be used."""
        for address in (self.you, self.colleague):
            if not re.fullmatch(r"[^\s@\"\\]+@[^\s@\"\\]+", address):
                raise ValueError(f"{address!r} is not a mail address. Nothing was written.")
        if self.you.lower() == self.colleague.lower():
            raise ValueError("The two addresses are one person, and nobody decides alone. Nothing was written.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", self.what):
            raise ValueError(
                f"{self.what!r} is no name of a file: one word of letters and digits. Nothing was written."
            )

    def fill(self, text: str) -> str:
        for mark, answer in (("@you@", self.you), ("@colleague@", self.colleague), ("@what@", self.what)):
            text = text.replace(mark, answer)
        return text


PROPOSED = Answers()


def write_beginning(folder: Path, answers: Answers) -> Iterator[str]:
    """Write the files and say what they are. FileExistsError if there is a config.toml; nothing is overwritten."""
    answers.check()
    config = folder / "config.toml"
    if config.exists():
        raise FileExistsError(f"{config} exists. Nothing was changed; choose another folder, or edit that file.")
    kept = folder / "secrets"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "workflows").mkdir(exist_ok=True)
    config.write_text(answers.fill(CONFIG_TEMPLATE), "utf-8")
    yield f"{config}: the service: people, groups, keys, mail, Slack"
    for name in ("signing.key", "ci.key"):
        file = kept / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48), "ascii")
        yield f"{file}: secret; keep it out of version control"
    first = folder / "workflows" / f"{answers.what}.toml"
    if not first.exists():
        first.write_text(answers.fill(WORKFLOW_TEMPLATE), "utf-8")
    yield f"{first}: a first approval"
    named = shlex.quote(str(config))
    yield f"Next: approvals-bot dev --config {named}   (everything on this machine, with a mailbox to look into)"
    body = {"workflow": answers.what, "requester": answers.you, "input": {"what": "A first try"}}
    yield (
        "Then ask for something: curl http://127.0.0.1:8000/api/runs -H 'Authorization: Bearer dev' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


def init(
    folder: Annotated[Path, typer.Argument(help="Where to.", metavar="FOLDER")] = Path(),
    you: Annotated[
        str | None, typer.Option("--you", help="Your mail address; asked for on a terminal.", metavar="ADDRESS")
    ] = None,
    colleague: Annotated[
        str | None, typer.Option("--colleague", help="Who decides besides you.", metavar="ADDRESS")
    ] = None,
    what: Annotated[
        str | None, typer.Option("--what", help="What is decided, as a name: purchase.", metavar="NAME")
    ] = None,
) -> None:
    """Write config.toml, a first workflow and signing keys.

    On a terminal it asks three questions; Enter takes what is proposed.
    """
    try:
        answers = Answers(
            you=_asked("Your mail address", you, PROPOSED.you),
            colleague=_asked("Who decides besides you (a mail address)", colleague, PROPOSED.colleague),
            what=_asked("What is decided (one word, the workflow's name)", what, PROPOSED.what),
        )
        for line in write_beginning(folder, answers):
            typer.echo(line)
    except (FileExistsError, ValueError) as error:
        fail(str(error))


def _asked(question: str, given: str | None, proposed: str) -> str:
    """The answer: given on the command line, else typed on a terminal, else what is proposed."""
    if given is not None:
        return given
    return str(typer.prompt(question, default=proposed)) if sys.stdin.isatty() else proposed


slack_app = typer.Typer(help="Show what the Slack app needs.", no_args_is_help=True)

MANIFEST_HOW = """\
Paste this at https://api.slack.com/apps → Create New App → From a manifest, install the app, and put its tokens into
[slack] of config.toml: {tokens}."""
MANIFEST_TOKENS = {
    True: "bot_token (xoxb-…) and app_token (xapp-…, with the scope connections:write)",
    False: "bot_token (xoxb-…) and signing_secret",
}


@slack_app.callback()
def _slack_group() -> None:
    """Keeps `manifest` a command of its own."""


@slack_app.command()
def manifest(
    config: Config = CONFIG,
    base_url: Annotated[str | None, typer.Option(help="The service's URL, instead of the file's.")] = None,
    socket: Annotated[
        bool | None, typer.Option("--socket/--http", help="Socket Mode, or HTTP. Default: as the file says.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the manifest to make the Slack app from. Tokens need not be set yet."""
    given = _table(config) if base_url is None or socket is None else {}
    url = base_url or given.get("server", {}).get("base_url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        fail(f"{config} names no [server] base_url. Name one with --base-url https://….")
    of_file = given.get("slack", {})
    by_socket = socket if socket is not None else "app_token" in of_file and "signing_secret" not in of_file
    if not as_json:
        typer.echo(MANIFEST_HOW.format(tokens=MANIFEST_TOKENS[by_socket]), err=True)
        if not by_socket and not url.startswith("https://"):
            typer.echo(f"Slack posts to https URLs only, and {url} is none; --socket needs no public URL.", err=True)
    show.say(manifest_of(url, socket=by_socket), "", as_json=True)


def _table(config: Path) -> dict[str, Any]:
    """The file as it is, unchecked: it may name secrets that are not known before the app is made."""
    try:
        given = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{config} can't be read: {error}")
    return {name: table for name, table in given.items() if isinstance(table, dict)}
