"""`backup` and `restore`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.common import FILE, config_option, json_option, this_user, with_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine import Engine
    from approvals_bot.durable.store.backups import BackedUp, Repeated

logger = logging.getLogger("approvals_bot.cli")

backup_argument = click.argument("file", type=FILE, help="The backup.")

NOT_IN_IT = "The configuration, workflow files and secrets are not in it: keep config.toml, workflows/ and keys, too."
MOST_SHOWN = 20  # runs in the text for people
QUIET_FOR = 1.0  # seconds, also between two lines


def counted(number: int, what: str) -> str:
    """Return "1 run", or "1,204 runs"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


class ProgressLines:
    """Lines on standard error, from the second second on, at most one a second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + QUIET_FOR

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + QUIET_FOR
            click.echo(text, err=True)


@click.command()
@backup_argument
@config_option
@json_option
def backup(file: Path, config: Path, as_json: bool) -> None:
    """Write a backup of the database, while the service runs.

    It is one SQLite file, whichever database the service uses, and is read back before it gets its name. An existing
    file is refused. The configuration, workflow files and secrets are not in it.

    \b
    Example: approvals-bot backup /backups/approvals-monday.db
    """
    from approvals_bot.durable.store.audit import BACKED_UP
    from approvals_bot.durable.store.backups import back_up

    async def run(engine: Engine, service: ServiceSettings) -> BackedUp:
        done = await back_up(service.server.database.get_secret_value(), file, ProgressLines())
        await engine.audit(BACKED_UP, actor=this_user().as_json(), data=asdict(done))
        return done

    done = with_engine(config, run, upgrade=False)
    logger.info("a backup was written", extra={"event": "backup_written"})
    if not as_json:
        click.echo(f"{file}: {file.stat().st_size:,} bytes, read back. {NOT_IN_IT}")
    text = f"Backed up {counted(done.runs, 'run')}, {counted(done.events, 'event')} up to seq {done.seq:,}"
    terminal.say(asdict(done) | {"file": str(file)}, text, as_json)


@click.command()
@backup_argument
@config_option
@click.option("--replace", is_flag=True, help="Move what is in the database aside first. Nothing of it is deleted.")
@click.option(
    "--as-new", is_flag=True, help="Make it another installation, such as staging: links sent before are void there."
)
@json_option
def restore(file: Path, config: Path, replace: bool, as_new: bool, as_json: bool) -> None:
    """Restore a backup into the configured database.

    Refused while a service uses the database, and where it isn't empty. Links that were sent go on working. Nobody is
    signed in afterwards. It names the runs whose deliveries or calls may be repeated: what happened after the backup
    isn't known any more.

    \b
    Example: approvals-bot restore /backups/approvals-monday.db --replace
    """
    from approvals_bot.config.load import load_service
    from approvals_bot.durable.store import backups
    from approvals_bot.durable.store.audit import RESTORED

    terminal.quiet_logs()
    service = load_service(config, os.environ)
    at = datetime.now(UTC)
    url = service.server.database.get_secret_value()
    counts, aside = asyncio.run(backups.restore(file, url, ProgressLines(), at=at, replace=replace, as_new=as_new))
    repeated = backups.repeated_by(file, at)

    async def record(engine: Engine, _: ServiceSettings) -> None:
        data = {"runs": counts["runs"], "events": counts["events"], "as_new": as_new, "replaced": aside is not None}
        await engine.audit(RESTORED, actor=this_user().as_json(), data=data)

    with_engine(config, record, upgrade=False)
    logger.info("a backup was restored", extra={"event": "restored"})
    found = {"runs": counts["runs"], "events": counts["events"], "aside": aside, "as_new": as_new}
    terminal.say(
        found | {"repeated": [asdict(each) for each in repeated]},
        "\n".join(_lines(file, counts, aside, repeated)),
        as_json,
    )


def _lines(file: Path, counts: dict[str, int], aside: str | None, repeated: Sequence[Repeated]) -> list[str]:
    lines = [] if aside is None else [f"What was there before is now {aside}."]
    if repeated:
        count = counted(len(repeated), "run")
        lines.append(f"Deliveries or calls of {count} may be repeated: what they did after the backup isn't known:")
        lines += [
            f"  {each.run_id}  {each.workflow}  {', '.join(each.steps)}".rstrip() for each in repeated[:MOST_SHOWN]
        ]
        if len(repeated) > MOST_SHOWN:
            lines.append(f"  and {len(repeated) - MOST_SHOWN:,} more: `--json` lists all")
    lines.append("Nobody is signed in, and codes that were sent don't count. `approvals-bot fsck` checks the database.")
    return [*lines, f"Restored {counted(counts['runs'], 'run')} and {counted(counts['events'], 'event')} from {file}"]
