"""Commands from an empty folder to a running service: `init`, `slack manifest`, `dev`, `serve`, `migrate`, `copy`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import click

from approvals_bot.approvals.policy import Definition
from approvals_bot.channels.slack.manifest import manifest as manifest_of
from approvals_bot.cli import terminal
from approvals_bot.cli.common import FILE, config_option, fail, json_option, misuse, uncollected, with_engine
from approvals_bot.config.load import TESTS
from approvals_bot.config.messages import ConfigErrors
from approvals_bot.config.monitoring import LogFormat, LogLevel
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.people.addresses import AddressError, IdentityRules, canonical_in_file

log = logging.getLogger("approvals_bot.cli")

port_option = click.option(
    "--port",
    type=click.IntRange(min=0, max=65_535),
    default=8000,
    envvar="PORT",
    show_envvar=True,
    help="The port to listen on; 0 picks a free one.",
)


@click.command()
@port_option
@click.option(
    "--config",
    type=FILE,
    metavar="FILE",
    help="Use the people and workflows of this config.toml. Default: samples, with the workflows of "
    "./workflows if that exists.",
)
@click.option("--fresh", is_flag=True, help="Delete the playground's data first.")
def dev(port: int, config: Path | None, fresh: bool) -> None:
    """Try everything on this machine, with a fake Slack and mailbox.

    Opens a playground in which you press the buttons as anybody. Its data stays in .approvals/.

    \b
    Example: approvals-bot dev --config config.toml
    """
    if find_spec("aiosmtpd") is None:
        fail("The playground's mailbox needs one more package: pip install 'approvals-bot[dev]'")
    from approvals_bot.cli.dev import dev as run_dev
    from approvals_bot.cli.serving import run

    terminal.quiet_logs()
    run(run_dev(port, config, fresh))


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@port_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    help="Must be 1. To scale out, run several `serve` on PostgreSQL behind a load balancer.",
)
@click.option(
    "--log-format",
    type=click.Choice(get_args(LogFormat)),
    help="What the log's lines look like, instead of [log] format.",
)
@click.option(
    "--log-level",
    type=click.Choice(get_args(LogLevel)),
    help="From which level on lines are written, instead of [log] level.",
)
def serve_command(
    config: Path, host: str, port: int, workers: int, log_format: LogFormat | None, log_level: LogLevel | None
) -> None:
    """Run the service.

    Reloads when a configuration file changes, and on SIGHUP.
    """
    if workers > 1:
        misuse(
            f"--workers {workers} isn't possible: one `serve` is one process. With SQLite, more processes would only "
            "wait for each other, since a file takes one writer at a time. With PostgreSQL, run `serve` as often as "
            "you like, each on its own port or machine, behind a load balancer."
        )
    with uncollected():  # until it is ready
        _serve(config, host, port, log_format, log_level)


def _serve(config: Path, host: str, port: int, log_format: LogFormat | None, log_level: LogLevel | None) -> None:
    from importlib.metadata import version

    from approvals_bot.app.service import PACKAGE, open_service
    from approvals_bot.cli.logs import set_up_logs
    from approvals_bot.cli.serving import ConfigSource, hold_standard_streams, listen, run, serve
    from approvals_bot.cli.traces import set_up_traces
    from approvals_bot.service.catalog import read_configuration

    async def main() -> None:
        configuration = read_configuration(config)
        listening, place = listen(host, port), configuration.service.metrics.place
        scraped = None if place is None else listen(*place, "[metrics] listen")
        table, replica = configuration.service.log, secrets.token_hex(8)
        format = log_format or table.format
        handler = set_up_logs(format, log_level or table.level, version=version(PACKAGE), replica=replica)
        end_traces = set_up_traces(version=version(PACKAGE), replica=replica)
        log.info("starting", extra={"event": "service_started"})
        where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"

        def ready() -> None:
            text = f"Approvals Bot is ready on {where}"
            said = log.makeRecord(log.name, logging.INFO, "", 0, text, (), None, extra={"event": "service_ready"})
            try:
                click.echo(text if format == "text" else handler.format(said))
            except (
                OSError
            ) as error:  # nobody reads standard output, or its disk is full; the service is up all the same
                why = error.strerror or type(error).__name__
                log.warning("standard output can't be written (%s): %s", why, text, extra={"event": "service_ready"})
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the interpreter would write the line again at its end

        async with open_service(configuration, replica=replica) as service:
            source = ConfigSource(lambda: read_configuration(config), [config])
            service.monitoring.log = handler
            await serve(service, listening, source, ready, scraped)
        await asyncio.to_thread(end_traces)
        log.info("stopped", extra={"event": "service_stopped"})

    hold_standard_streams()
    terminal.quiet_logs()
    run(main())


@click.command()
@click.option("--from", "source", required=True, metavar="URL", help="The database to copy: a URL, or env:NAME.")
@click.option("--to", "target", required=True, metavar="URL", help="An empty database: a URL, or env:NAME.")
@click.option(
    "--as-new", is_flag=True, help="Make it another installation, such as staging: links sent before are void there."
)
def copy_command(source: str, target: str, as_new: bool) -> None:
    """Copy a stopped service's database to another one.

    Copies and verifies everything, or copies nothing.

    \b
    Example: approvals-bot copy --from sqlite:///approvals.db --to env:DATABASE_URL
    """
    from approvals_bot.durable.store.copying import copy

    urls = _url(source, "--from"), _url(target, "--to")
    counts = asyncio.run(copy(*urls, lambda text: click.echo(text, err=True), as_new=as_new))
    click.echo(f"Copied and verified {counts['runs']:,} runs, {counts['events']:,} events and the audit log.")


def _url(given: str, option: str) -> str:
    """Resolve a database URL; `env:NAME` keeps its password out of the list of processes."""
    name = given.removeprefix("env:")
    if name != given:
        given = os.environ.get(name, "")
        if not given:
            fail(f"{option}: the environment variable {name} is not set.")
    if not given.startswith(("sqlite:///", "postgresql://", "postgres://")):
        misuse(f"{option}: write a database URL that starts with sqlite:/// or postgresql://.")
    return given


@click.command()
@config_option
def migrate(config: Path) -> None:
    """Update the database's schema.

    `serve` does this too, at its start.
    """

    async def look(engine: Engine, _: ServiceSettings) -> None:
        await engine.ready()

    with_engine(config, look)
    click.echo("The database is up to date.")


# `init` writes a configuration that works immediately and is short enough to read.

CONFIG_TEMPLATE = """\
#:schema schemas/service.json
# Approvals Bot: the service's configuration. `approvals-bot check` finds mistakes in it.
[server]
base_url     = "http://127.0.0.1:8000"             # links in messages begin with this
database     = "sqlite:///approvals.db"
signing_keys = ["file:secrets/signing.key"]        # the first signs, all verify; to rotate, add a new one in front
workflows    = "workflows"

[api_keys]
ci = { key = "file:secrets/ci.key", requesters = ["*"] }  # Authorization: Bearer <the content of that file>

# [slack]                                          # `approvals-bot slack manifest` prints the manifest of the app
# bot_token      = "env:SLACK_BOT_TOKEN"
# signing_secret = "env:SLACK_SIGNING_SECRET"

[email]
host     = "127.0.0.1"
port     = 25
security = "none"                                  # starttls or tls for a relay on another machine
sender   = "Approvals <approvals@example.com>"

[people."@you@"]
name = "You"
[people."@colleague@"]
name = "A Colleague"

[groups]
approvers = ["@you@", "@colleague@"]
"""

WORKFLOW_TEMPLATE = """\
#:schema ../schemas/workflow.json
# An approval: who may request it, who approves it, and how they are notified.
[workflow]
id      = "@what@"                   # the same as the file's name
title   = "{{ what }}"
request = ["*", "app:ci"]            # who may request it: everyone, and the API key "ci"

[fields]
what = { type = "string", pinned = true }
why  = { type = "text", required = false }

[[stage]]
id   = "ok"
from = ["@approvers"]                # nobody approves their own request
need = 1

[deliver]
email = true

[clock]
deadline    = "2d"
remind      = ["4h", "1d"]
on_deadline = "expire"
"""


TESTS_TEMPLATE = """\
#:schema ../schemas/tests.json
# What is expected of @what@.toml. `approvals-bot test` plays it, and so does `approvals-bot check`.
[[case]]
name      = "a colleague approves"
requester = "@you@"
input     = { what = "A first try" }
votes     = [{ by = "@colleague@", choice = "approve" }]
asked     = ["@colleague@"]
outcome   = "approved"

[[case]]
name      = "nobody approves their own request"
requester = "@you@"
input     = { what = "A first try" }
votes     = [{ by = "@you@", choice = "approve", after = "1h" }]
outcome   = "waiting"
why       = "You can't approve your own request."

[[case]]
name      = "if nobody decides, it expires"
requester = "@you@"
input     = { what = "A first try" }
outcome   = "expired"
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to init's three questions, with defaults."""

    you: str = "you@example.com"
    colleague: str = "colleague@example.com"
    what: str = "first"

    def check(self) -> None:
        """Raise ValueError for an answer that can't be used."""
        for address in (self.you, self.colleague):
            try:
                canonical_in_file(address)
            except AddressError as error:
                raise ValueError(f"{error}. Nothing was written.") from None
        same = IdentityRules().canonical
        if same(self.you) == same(self.colleague):
            what = "The two addresses are the same, but nobody can approve their own requests. Nothing was written."
            raise ValueError(what)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", self.what):
            raise ValueError(
                f"{self.what!r} can't be a file name. Use one word of letters and digits. Nothing was written."
            )

    def fill(self, text: str) -> str:
        for mark, answer in (("@you@", self.you), ("@colleague@", self.colleague), ("@what@", self.what)):
            text = text.replace(mark, answer)
        return text


DEFAULTS = Answers()


def write_beginning(folder: Path, answers: Answers) -> Iterator[str]:
    """Write the files, and yield a line about each.

    Raises FileExistsError if there is a config.toml. Nothing is overwritten.
    """
    from approvals_bot.config.schema import SCHEMAS  # `serve` needs none

    answers.check()
    config = folder / "config.toml"
    if config.exists():
        raise FileExistsError(
            f"{config} already exists. Nothing was changed. Choose another folder, or edit that file."
        )
    kept = folder / "secrets"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "workflows").mkdir(exist_ok=True)
    config.write_text(answers.fill(CONFIG_TEMPLATE), "utf-8")
    yield f"{config}: the service's configuration: people, groups, keys, mail, Slack"
    for name in ("signing.key", "ci.key"):
        file = kept / name
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(48), "ascii")
        yield f"{file}: a secret; keep it out of version control"
    schemas = folder / "schemas"
    schemas.mkdir(exist_ok=True)
    for name, make in SCHEMAS.items():
        if not (file := schemas / f"{name}.json").exists():
            file.write_text(json.dumps(make(), ensure_ascii=False), "utf-8")
    yield f"{schemas}: what editors need to complete and check these files; `approvals-bot schema` prints them"
    first = folder / "workflows" / f"{answers.what}.toml"
    if not first.exists():
        first.write_text(answers.fill(WORKFLOW_TEMPLATE), "utf-8")
        first.with_suffix(TESTS).write_text(answers.fill(TESTS_TEMPLATE), "utf-8")
    yield f"{first}: a first approval workflow; {first.stem}{TESTS} beside it says what is expected of it"
    named = shlex.quote(str(config))
    yield f"Next, try it on this machine: approvals-bot dev --config {named}"
    beside = "" if folder == Path() else f" --config {named}"
    yield f"After each change: approvals-bot check{beside}, and approvals-bot test{beside}"
    body = {"workflow": answers.what, "requester": answers.you, "input": {"what": "A first try"}}
    key = shlex.quote(str(kept / "ci.key"))  # `serve` takes it, too; the short key of `dev` is no other command's
    yield (
        f'Then open a request: curl http://127.0.0.1:8000/api/runs -H "Authorization: Bearer $(cat {key})" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


@click.command()
@click.argument("folder", type=FILE, default=Path(), help="The folder to write to; by default, the working directory.")
@click.option("--you", metavar="ADDRESS", help="Your email address.")
@click.option("--colleague", metavar="ADDRESS", help="The email address of the second approver.")
@click.option("--what", metavar="NAME", help="The workflow's name, such as purchase.")
def init(folder: Path, you: str | None, colleague: str | None, what: str | None) -> None:
    """Create config.toml, a first workflow and signing keys.

    On a terminal, it asks for what the options don't say. Nothing is overwritten.

    \b
    Example: approvals-bot init approvals --you you@acme.eu --what purchase
    """
    try:
        answers = Answers(
            you=_answer("Your email address", you, DEFAULTS.you),
            colleague=_answer("A second approver's email address", colleague, DEFAULTS.colleague),
            what=_answer("What needs approval, in one word (the workflow's name)", what, DEFAULTS.what),
        )
        for line in write_beginning(folder, answers):
            click.echo(line)
    except FileExistsError as error:
        fail(str(error))
    except ValueError as error:
        misuse(str(error))


def _answer(question: str, given: str | None, default: str) -> str:
    """Return the answer from the command line, else from the terminal, else the default."""
    if given is not None:
        return given
    return str(click.prompt(question, default=default)) if sys.stdin.isatty() else default


slack_app = click.Group("slack", help="Set up the Slack app.")

MANIFEST_HOW = """\
Paste this at https://api.slack.com/apps → Create New App → From a manifest. Then install the app, and put its tokens
in [slack] of config.toml: {tokens}."""
MANIFEST_TOKENS = {
    True: "bot_token (xoxb-…) and app_token (xapp-…, with the scope connections:write)",
    False: "bot_token (xoxb-…) and signing_secret",
}


@slack_app.command()
@config_option
@click.option("--base-url", help="The service's URL, instead of [server] base_url.")
@click.option("--socket/--http", default=None, help="Use Socket Mode, or HTTP. Default: as [slack] is configured.")
@json_option
def manifest(config: Path, base_url: str | None, socket: bool | None, as_json: bool) -> None:
    """Print the manifest to create the Slack app from.

    Works before any token is set.

    \b
    Example: approvals-bot slack manifest --base-url https://approve.acme.eu
    """
    given = _table(config)
    url = base_url or given.get("server", {}).get("base_url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        if base_url is not None:
            misuse("--base-url: write a URL that starts with https://, like https://approve.acme.eu.")
        fail(f"{config} has no [server] base_url. Pass --base-url https://….")
    of_file = given.get("slack", {})
    by_socket = socket if socket is not None else "app_token" in of_file and "signing_secret" not in of_file
    if not as_json:
        click.echo(MANIFEST_HOW.format(tokens=MANIFEST_TOKENS[by_socket]), err=True)
        if not by_socket and not url.startswith("https://"):
            what = f"Slack posts to https URLs only, and {url} isn't one; --socket needs no public URL."
            click.echo(what, err=True)
    steps = _steps(config.parent / str(given.get("server", {}).get("workflows", "workflows")))
    terminal.say(manifest_of(url, socket=by_socket, steps=steps), "", as_json=True)


def _steps(folder: Path) -> list[Definition]:
    """Return the workflows that are steps of Workflow Builder."""
    from approvals_bot.config.load import load_workflows

    try:
        return [definition for definition in load_workflows(folder) if definition.deliver.builder]
    except ConfigErrors as errors:
        fail(str(errors))


def _table(config: Path) -> dict[str, Any]:
    """Read the file unchecked, since its secrets may not exist before the app does."""
    try:
        given = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{config} can't be read: {error}")
    return {name: table for name, table in given.items() if isinstance(table, dict)}
