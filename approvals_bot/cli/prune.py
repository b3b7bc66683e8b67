"""`prune`: deletes runs that ended long ago, and old lines of the audit, by hand."""

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
@click.option("--older-than", metavar="DURATION", help="How long ago the runs ended at least.")
@click.option("--audit", metavar="DURATION", help="Cut the audit: how old the lines are at least that are deleted.")
@config_option
@click.option("--workflow", metavar="WORKFLOW", help="Only runs of this workflow.")
@click.option(
    "--archive", type=FILE, metavar="FOLDER", help="Where they are archived first. Default: what config.toml says."
)
@click.option("--dry-run", is_flag=True, help="Only count them, as things are now.")
@json_option
def prune(
    older_than: str | None,
    audit: str | None,
    config: Path,
    workflow: str | None,
    archive: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete runs that ended long ago, archived first. What stays of each says how it ended.

    Open runs, and ended ones that these still need, aren't touched, nor are lines of the audit about what is still
    here. A running service goes on.

    \b
    Example: approvals-bot prune --older-than 400d --archive /var/lib/approvals/archive --audit 7y
    """
    from approvals_bot.service.audit_cut import count_cut, cut_audit
    from approvals_bot.service.audit_key import AuditKey
    from approvals_bot.service.retention import Deleted, RetentionRules, count_ended, delete_ended

    age, kept = _age("--older-than", older_than), _age("--audit", audit)
    if age is None and kept is None:
        misuse("Say what to delete: --older-than DURATION for runs, --audit DURATION for lines of the audit.")
    if age is None and (workflow is not None or archive is not None):
        misuse("--workflow and --archive are for runs: write --older-than, too.")
    if workflow is None:
        policy = RetentionRules(others=age)
    else:
        policy = RetentionRules(by_workflow={} if age is None else {workflow: age})
    said = time.monotonic()

    def progress(done: Deleted) -> None:
        nonlocal said
        if time.monotonic() >= said + SAY_EVERY:
            said = time.monotonic()
            click.echo(f"{done.runs:,} runs deleted …", err=True)

    async def run(engine: Engine, service: ServiceSettings) -> tuple[Deleted, int]:
        ended = max((each for each in (age, service.retention.ended) if each is not None), default=None)
        if kept is not None and ended is not None and kept < ended:
            misuse("--audit: the audit is kept as long as the runs that it is about, or longer")
        if dry_run:
            return Deleted(runs=await count_ended(engine, policy)), 0 if kept is None else await count_cut(engine, kept)
        folder = archive if archive is not None else service.retention.archive
        done = await delete_ended(engine, policy, folder, actor=this_user(), rest=1, progress=progress)
        if kept is None:
            return done, 0
        key = None if service.audit.seed is None else AuditKey(service.audit.seed)
        return done, await cut_audit(engine, kept, key, actor=this_user())

    try:
        done, lines = with_engine(config, run, upgrade=False)
    except OSError as error:
        fail(f"The archive can't be written: {error}. Nothing was deleted that isn't in it.")
    if not dry_run:
        logger.info("what is old was deleted", extra={"event": "pruned"})
    if as_json:
        where = None if done.archive is None else str(done.archive)
        counts = {"runs": done.runs, "events": done.events, "files": done.files, "damaged": done.damaged}
        click.echo(json.dumps(counts | {"archive": where, "audit_lines": lines}))
        return
    of_audit = [] if kept is None else [f"{counted(lines, 'line')} of the audit"]
    if dry_run:
        found = [*([] if age is None else [counted(done.runs, "run")]), *of_audit]
        click.echo(f"{' and '.join(found)} would be deleted.")
        return
    of_runs = [counted(done.runs, "run"), counted(done.events, "event"), counted(done.files, "file")]
    *others, last = [*([] if age is None else of_runs), *of_audit]
    click.echo(f"Deleted {' and '.join([*([', '.join(others)] if others else []), last])}.")
    if done.archive is not None:
        click.echo(f"The archive is {done.archive}.")
    if done.damaged:
        runs = counted(done.damaged, "run")
        click.echo(f"Not deleted: {runs} with a log that isn't as it was written. `approvals-bot fsck` names them.")


def _age(option: str, text: str | None) -> timedelta | None:
    """Return the length of time that an option says."""
    from approvals_bot.approvals.durations import parse_duration
    from approvals_bot.approvals.opening_policy import SHORTEST_RETENTION, in_years

    if text is None:
        return None
    try:
        given = in_years(text)
        age = given if isinstance(given, timedelta) else parse_duration(text)
    except ValueError as error:
        misuse(f"{option}: {error}")
    if age < SHORTEST_RETENTION:
        misuse(f"{option}: at least a day")
    return age
