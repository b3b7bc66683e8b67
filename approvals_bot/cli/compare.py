"""`compare`: plays past requests through a changed workflow file."""

from __future__ import annotations

import os
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.common import FILE, config_option, json_option, misuse, with_engine

if TYPE_CHECKING:
    from approvals_bot.approvals.policy import Definition
    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine import Engine
    from approvals_bot.service.comparison import Compared, Course


@click.command()
@click.argument("file", type=FILE, help="The changed workflow file.")
@config_option
@click.option("--since", default="90d", metavar="TIME", help="How far to look back.")
@click.option("--workflow", metavar="NAME", help="The workflow whose requests are played, if not the file's own.")
@click.option("--live", is_flag=True, help="Read groups from Slack and HTTP sources.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=1_000, help="List at most this many requests; all are counted."
)
@json_option
def compare(file: Path, config: Path, since: str, workflow: str | None, live: bool, limit: int, as_json: bool) -> None:
    """Play past requests through a changed workflow file, and list what would differ.

    Each is played by the file that it was opened under and by the changed one, with today's people: who is asked, the
    outcome and who decides, and whether it could be opened at all. Reads the database, and writes nothing. Exits with 1
    if anything would differ, and with 2 if it couldn't look.

    \b
    Example: approvals-bot compare workflows/deploy.toml --since 90d
    """
    from approvals_bot.cli.commands import error_text
    from approvals_bot.config.load import load_service
    from approvals_bot.durable.core.durations import parse_duration
    from approvals_bot.errors import ApprovalsBotError

    try:
        span = parse_duration(since)
    except ValueError as error:
        misuse(f"--since: {error}")
    try:
        changed = _read_changed(file, load_service(config, os.environ), workflow)
    except ApprovalsBotError as error:
        misuse(str(error))
    found: dict[str, Any] = {"compared": 0, "not_played": [], "differ": [], "more": 0}

    async def look(engine: Engine, service: ServiceSettings) -> None:
        from approvals_bot.app.directory import open_people
        from approvals_bot.cli.check_runs import Progress
        from approvals_bot.service.comparison import compare as play

        began = engine.now() - span
        found.update(workflow=changed.id, since=began)
        progress = Progress("requests played")
        async with (
            open_people(service, engine.now, live=live) as people,
            aclosing(play(engine, changed, people, began)) as compared,
        ):
            async for each in compared:
                found["compared"] += 1
                progress.show(found["compared"])
                if each.failure:
                    found["not_played"].append({"run_id": each.run_id, "because": each.failure})
                elif each.differs and len(found["differ"]) >= limit:
                    found["more"] += 1
                elif each.differs:
                    found["differ"].append(asdict(each))
                    progress.clear()
                    if not as_json:
                        click.echo("\n".join(_lines(each)))
        progress.clear()

    try:
        with_engine(config, look, to_read=True)
    except (TimeoutError, ApprovalsBotError, OSError) as error:
        misuse(error_text(error))
    terminal.say(found, _summary(found), as_json)
    if found["differ"]:
        raise click.exceptions.Exit(1)


def _read_changed(file: Path, service: ServiceSettings, workflow: str | None) -> Definition:
    """Read and check the changed file. Raises ConfigErrors."""
    from approvals_bot.config.checks import check_definition
    from approvals_bot.config.load import load_changed

    changed = load_changed(file, service, check_definition, workflow)
    if not changed.is_approval:
        misuse(f"{file} is no approval, and only past requests can be compared.")
    return changed


def _lines(each: Compared) -> list[str]:
    was, would_be = each.was, each.would_be
    assert was is not None, "it was played"
    assert would_be is not None, "it was played"
    lines = [f"{each.run_id}  {each.created_at:%Y-%m-%d %H:%M}: {_shown(was)} → {_shown(would_be)}"]
    more = [address for address in would_be.asked if address not in was.asked]
    fewer = [address for address in was.asked if address not in would_be.asked]
    if more:
        lines.append(f"    also asks {', '.join(more)}")
    if fewer:
        lines.append(f"    no longer asks {', '.join(fewer)}")
    return lines


def _shown(course: Course) -> str:
    by = f" by {course.by}" if course.by else ""
    why = f" ({course.why})" if course.why else ""
    return f"{course.outcome}{by}{why}"


def _summary(found: dict[str, Any]) -> str:
    lines = [f"{each['run_id']} couldn't be played: {each['because']}" for each in found["not_played"]]
    differ, compared = len(found["differ"]) + found["more"], found["compared"]
    requests = f"{compared:,} {'request' if compared == 1 else 'requests'}"
    of = f"{requests} of {found['workflow']} since {found['since']:%Y-%m-%d}"
    lines.append(f"{differ:,} of {of} would differ." if compared else f"There are no requests of {found['workflow']}.")
    if found["more"]:
        lines.append(f"{found['more']:,} more aren't listed.")
    return "\n".join(lines)
