"""What can be typed: one function a command, each a few lines; the work is done elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from approvals_bot.app import Listing, build_plain_people, list_workflows, read_configuration
from approvals_bot.cli import show
from approvals_bot.cli.beginning import write_beginning
from approvals_bot.cli.dev import dev as run_dev
from approvals_bot.cli.serving import Source, listen, serve
from approvals_bot.config.load import Configuration
from approvals_bot.config.problems import ConfigErrors
from approvals_bot.engine import Engine
from approvals_bot.errors import ApprovalsBotError, ConfigError
from approvals_bot.store import connect
from approvals_bot.tokens import Tokens
from approvals_bot.web.opening import open_run
from approvals_bot.web.problems import Problem

T = TypeVar("T")

app = typer.Typer(
    name="approvals-bot",
    help="Approvals by Slack and email, on durable workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would print secrets
)

Config = Annotated[Path, typer.Option("--config", help="The service's file.", metavar="FILE")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")]
CONFIG = Path("config.toml")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to.", metavar="FOLDER")] = Path(),
) -> None:
    """Write config.toml, a first workflow and signing keys."""
    try:
        for line in write_beginning(folder):
            typer.echo(line)
    except FileExistsError as error:
        _fail(str(error))


@app.command()
def dev(
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8000,
    config: Annotated[Path | None, typer.Option("--config", help="Take people and workflows from it.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from an empty store.")] = False,
) -> None:
    """Try everything on this machine, with stand-ins for Slack and mail."""
    show.quiet_logs()
    try:
        asyncio.run(run_dev(port, config, fresh))
    except ApprovalsBotError as error:
        _fail(str(error))


@app.command(name="serve")
def serve_command(
    config: Config = CONFIG,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
) -> None:
    """Run the service."""
    from approvals_bot.app import open_service

    async def run(configuration: Configuration) -> None:
        listening = listen(host, port)
        where = f"http://{host}:{listening.getsockname()[1]}"
        async with open_service(configuration) as service:
            source = Source(lambda: read_configuration(config), [config])
            await serve(service, listening, source, lambda: typer.echo(f"Approvals Bot is ready on {where}"))

    show.quiet_logs()
    try:
        asyncio.run(run(_read(config)))
    except ApprovalsBotError as error:
        _fail(str(error))


@app.command()
def check(config: Config = CONFIG) -> None:
    """Check config.toml and all workflows, without starting anything."""
    try:
        listing = list_workflows(read_configuration(config))
    except ConfigErrors as errors:
        for problem in errors.problems:
            typer.echo(str(problem))
        raise typer.Exit(1) from None
    except ConfigError as error:
        typer.echo(str(error))
        raise typer.Exit(1) from None
    typer.echo(f"{config}: fine. Workflows: {', '.join(sorted(listing.names())) or 'none'}.")


@app.command()
def start(
    workflow: Annotated[str, typer.Argument(help="A workflow's name.")],
    config: Config = CONFIG,
    input: Annotated[str, typer.Option(help="The input, as a JSON object.")] = "{}",
    requester: Annotated[str | None, typer.Option(help="Who asks: a person's address.")] = None,
    on_behalf_of: Annotated[str | None, typer.Option(help="Whom it is asked for.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same run.")] = None,
    as_json: Json = False,
) -> None:
    """Open a request, or start any other workflow."""
    given = _object(input)

    async def run(engine: Engine, configuration: Configuration, listing: Listing) -> None:
        started = await open_run(
            engine=engine,
            workflows=listing,
            people=build_plain_people(configuration.service),
            name=workflow,
            input=given,
            opener=requester or "app:cli",
            requester=requester,
            on_behalf_of=on_behalf_of,
            idempotency_key=key,
        )
        url = f"{str(configuration.service.server.base_url).rstrip('/')}/requests/{started.id}"
        show.say({"run_id": started.id, "url": url, "is_new": started.is_new}, f"{started.id}\n{url}", as_json)

    _with_engine(config, run)


@app.command()
def runs(
    config: Config = CONFIG,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs with this status.")] = None,
    waiting_for: Annotated[str | None, typer.Option(help="Only runs that wait for this person.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in show.STATUSES:
        _fail(f"There is no status {status!r}. Statuses: {', '.join(show.STATUSES)}.")

    async def run(engine: Engine, _: Configuration, __: Listing) -> None:
        page = await engine.records(workflow, status, waiting_for, limit=limit)  # type: ignore[arg-type]
        show.say(
            {"runs": [show.record_json(r) for r in page.records], "cursor": page.cursor},
            show.table(page.records),
            as_json,
        )

    _with_engine(config, run)


@app.command(name="show")
def show_command(run: RunId, config: Config = CONFIG, as_json: Json = False) -> None:
    """Show a run: its card, and its log as a story."""

    async def look(engine: Engine, _: Configuration, __: Listing) -> None:
        record = await engine.record(run)
        if record is None:
            _fail(f"There is no run {run}.")
        events = await engine.events(run)
        show.say(show.run_json(record, events), show.story(record, events, engine.now()), as_json)

    _with_engine(config, look)


@app.command()
def cancel(
    run: RunId,
    config: Config = CONFIG,
    reason: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> None:
    """Withdraw a request, or end any other run."""
    from approvals_bot.web.votes import withdraw

    async def end(engine: Engine, _: Configuration, __: Listing) -> None:
        record = await engine.record(run)
        if record is not None and not record.has_ended and record.view and record.view.get("hook_id"):
            verdict = await withdraw(engine, record.view["hook_id"], by="app:cli", reason=reason or "", via="cli")
            typer.echo(verdict.text)
            return
        await engine.cancel(run, reason)
        typer.echo(f"{run} was cancelled.")

    _with_engine(config, end)


@app.command()
def resume(
    token: Annotated[str, typer.Argument(help="A hook's token.")],
    config: Config = CONFIG,
    payload: Annotated[str, typer.Option(help="The payload, as JSON.")] = "null",
) -> None:
    """Give a payload to a hook."""
    try:
        value = json.loads(payload)
    except ValueError as error:
        _fail(f"--payload is not JSON: {error}")

    async def give(engine: Engine, _: Configuration, __: Listing) -> None:
        info = await engine.resume_hook(token, value)
        typer.echo(f"{info.run_id} was resumed.")

    _with_engine(config, give)


@app.command()
def migrate(config: Config = CONFIG) -> None:
    """Bring the database's schema up to date. `serve` does it too."""

    async def nothing(engine: Engine, _: Configuration, __: Listing) -> None:
        await engine.ready()
        typer.echo("The database is up to date.")

    _with_engine(config, nothing)


# ── what they share ───────────────────────────────────────────────────────────────────────────────────────────────


def _read(config: Path) -> Configuration:
    try:
        return read_configuration(config, os.environ)
    except ConfigError as error:
        _fail(str(error))


@asynccontextmanager
async def _engine(configuration: Configuration) -> AsyncIterator[Engine]:
    """An engine that starts, resumes and looks, but leaves the work to the service."""
    service = configuration.service
    tokens = Tokens([key.get_secret_value() for key in service.server.signing_keys])
    engine = Engine(await connect(service.server.database), tokens=tokens, base_url=str(service.server.base_url))
    async with engine.running(work=False):
        yield engine


def _with_engine(config: Path, use: Callable[[Engine, Configuration, Listing], Coroutine[Any, Any, None]]) -> None:
    show.quiet_logs()
    configuration = _read(config)

    async def run() -> None:
        listing = list_workflows(configuration)
        async with _engine(configuration) as engine:
            await use(engine, configuration, listing)

    try:
        asyncio.run(run())
    except Problem as problem:
        _fail(show.problem_text(problem))
    except ApprovalsBotError as error:
        _fail(str(error))


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        _fail(f"--input is not JSON: {error}")
    if not isinstance(value, dict):
        _fail('--input must be a JSON object, like \'{"version": "2.1"}\'')
    return value


def _fail(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(1)
