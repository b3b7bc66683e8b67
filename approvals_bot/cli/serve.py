"""`init`, `dev`, `serve`, `migrate`: from an empty folder to a running service."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from approvals_bot.cli import show
from approvals_bot.cli.init import PROPOSED, Answers, write_beginning
from approvals_bot.cli.offline import with_engine
from approvals_bot.cli.options import CONFIG, Config, fail
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine

Port = Annotated[int, typer.Option(envvar="PORT", min=0, max=65_535, help="The port; 0 takes a free one.")]


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
