"""`prune`: deletes runs that ended long ago, by hand."""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta
from pathlib import Path

import click

from approvals_bot.cli.backup import counted
from approvals_bot.cli.common import FILE, config_option, fail, json_option, misuse, this_user, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine

logger = logging.getLogger("approvals_bot.cli")

SAY_EVERY = 1.0  # seconds between two lines about how far it is


@click.command()
@click.option("--older-than", required=True, metavar="DURATION", help="How long ago the runs ended at least.")
@config_option
@click.option("--workflow", metavar="WORKFLOW", help="Only runs of this workflow.")
@click.option(
    "--archive", type=FILE, metavar="FOLDER", help="Where they are archived first. Default: what config.toml says."
)
@click.option("--dry-run", is_flag=True, help="Only count them.")
@json_option
def prune(
    older_than: str, config: Path, workflow: str | None, archive: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Delete runs that ended long ago, archived first. What stays of each says how it ended.

    Open runs, and ended ones that these still need, aren't touched. A running service goes on.

    \b
    Example: approvals-bot prune --older-than 400d --archive /var/lib/approvals/archive
    """
    from approvals_bot.approvals.durations import parse_duration
    from approvals_bot.approvals.opening_policy import SHORTEST_RETENTION, in_years
    from approvals_bot.service.retention import Deleted, RetentionRules, count_ended, delete_ended

    try:
        given = in_years(older_than)
        age = given if isinstance(given, timedelta) else parse_duration(older_than)
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
            click.echo(f"{done.runs:,} runs deleted …", err=True)

    async def run(engine: Engine, service: ServiceSettings) -> Deleted:
        if dry_run:
            return Deleted(runs=await count_ended(engine, policy))
        folder = archive if archive is not None else service.retention.archive
        return await delete_ended(engine, policy, folder, actor=this_user(), rest=1, progress=progress)

    try:
        done = with_engine(config, run, upgrade=False)
    except OSError as error:
        fail(f"The archive can't be written: {error}. Nothing was deleted that isn't in it.")
    if not dry_run:
        logger.info("runs that ended long ago were deleted", extra={"event": "pruned"})
    if as_json:
        where = None if done.archive is None else str(done.archive)
        click.echo(
            json.dumps(
                {
                    "runs": done.runs,
                    "events": done.events,
                    "files": done.files,
                    "damaged": done.damaged,
                    "archive": where,
                }
            )
        )
    elif dry_run:
        click.echo(f"{counted(done.runs, 'run')} would be deleted.")
    else:
        deleted = f"{counted(done.runs, 'run')}, {counted(done.events, 'event')} and {counted(done.files, 'file')}"
        click.echo(f"Deleted {deleted}.")
        if done.archive is not None:
            click.echo(f"The archive is {done.archive}.")
        if done.damaged:
            runs = counted(done.damaged, "run")
            click.echo(f"Not deleted: {runs} with a log that isn't as it was written. `approvals-bot fsck` names them.")
