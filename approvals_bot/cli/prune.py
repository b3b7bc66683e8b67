"""`prune`: deletes runs that ended long ago, by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from approvals_bot.cli.common import CONFIG, Config, Json, fail, misuse, this_user, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine

SAY_EVERY = 1.0  # seconds between two lines about how far it is


def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", help="How long ago the runs ended at least.", metavar="DURATION")
    ],
    config: Config = CONFIG,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.", metavar="WORKFLOW")] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="Where they are archived first. Default: what config.toml says.", metavar="FOLDER"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: Json = False,
) -> None:
    """Delete runs that ended long ago, archived first. What stays of each says how it ended.

    Open runs, and ended ones that these still need, aren't touched. A running service goes on.

    \b
    Example: approvals-bot prune --older-than 400d --archive /var/lib/approvals/archive
    """
    from approvals_bot.approvals.durations import parse_duration
    from approvals_bot.approvals.opening_policy import SHORTEST_RETENTION
    from approvals_bot.service.retention import Deleted, RetentionRules, count_ended, delete_ended

    try:
        age = parse_duration(older_than)
    except ValueError as error:
        misuse(f"--older-than: {error}")
    if age < SHORTEST_RETENTION:
        misuse("--older-than: runs are kept for a day at least")
    policy = RetentionRules(others=age) if workflow is None else RetentionRules(by_workflow={workflow: age})
    said = time.monotonic()

    def progress(done: Deleted) -> None:
        nonlocal said
        if time.monotonic() >= said + SAY_EVERY:
            said = time.monotonic()
            typer.echo(f"{done.runs:,} runs deleted …", err=True)

    async def run(engine: Engine, service: ServiceSettings) -> Deleted:
        if dry_run:
            return Deleted(runs=await count_ended(engine, policy))
        folder = archive if archive is not None else service.retention.archive
        return await delete_ended(engine, policy, folder, actor=this_user(), rest=1, progress=progress)

    try:
        done = with_engine(config, run, upgrade=False)
    except OSError as error:
        fail(f"The archive can't be written: {error}. Nothing was deleted that isn't in it.")
    if as_json:
        where = None if done.archive is None else str(done.archive)
        typer.echo(json.dumps({"runs": done.runs, "events": done.events, "files": done.files, "archive": where}))
    elif dry_run:
        typer.echo(f"{done.runs:,} runs would be deleted.")
    else:
        typer.echo(f"Deleted {done.runs:,} runs, {done.events:,} events and {done.files:,} files.")
        if done.archive is not None:
            typer.echo(f"They are in {done.archive}.")
