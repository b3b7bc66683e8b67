"""`runs`, `show`, `resume`: runs of any workflow."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from approvals_bot.cli import show
from approvals_bot.cli.offline import record_of, with_engine
from approvals_bot.cli.options import CONFIG, Config, Json, RunId, fail, read_json
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine, Page
from approvals_bot.durable.store.protocol import Status


def runs(
    config: Config = CONFIG,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    status: Annotated[str | None, typer.Option(help=f"Only runs with this status: {', '.join(show.STATUSES)}.")] = None,
    waiting_for: Annotated[
        str | None, typer.Option(help="Only runs that wait for this person.", metavar="ADDRESS")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list said so.")] = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    if status is not None and status not in show.STATUSES:
        fail(f"There is no status {status!r}. Statuses: {', '.join(show.STATUSES)}.")
    whom = waiting_for.lower() if waiting_for else None

    async def look(engine: Engine, _: ServiceSettings) -> Page:
        try:
            return await engine.records(workflow, cast("Status | None", status), whom, limit=limit, cursor=cursor)
        except ValueError as error:
            fail(f"--cursor: {error}")

    page = with_engine(config, look)
    found = {"runs": [show.record_json(record) for record in page.records], "cursor": page.cursor}
    show.say(found, show.table(page), as_json)


def show_command(run: RunId, config: Config = CONFIG, as_json: Json = False) -> None:
    """Show a run: its card, and its log as a story."""

    async def look(engine: Engine, _: ServiceSettings) -> None:
        record, events = await record_of(engine, run), await engine.events(run.partition(".")[0])
        show.say(show.run_json(record, events), show.history_text(record, events, engine.now()), as_json)

    with_engine(config, look)


def resume(
    token: Annotated[str, typer.Argument(help="A hook's token.", metavar="TOKEN")],
    config: Config = CONFIG,
    payload: Annotated[str, typer.Option(help="The payload, as JSON.", metavar="JSON")] = "null",
    resume_id: Annotated[str | None, typer.Option(help="The same id twice is one payload.")] = None,
    as_json: Json = False,
) -> None:
    """Give a payload to a hook."""
    value = read_json(payload, "--payload")

    async def give(engine: Engine, service: ServiceSettings) -> None:
        from approvals_bot.service.python_workflows import import_programs

        import_programs(service.server.workflows)  # a hook's schema stands in its workflow's code
        info = await engine.resume_hook(token, value, resume_id=resume_id)
        show.say({"run_id": info.run_id, "hook_id": info.hook_id}, f"{info.run_id} was resumed.", as_json)

    with_engine(config, give)
