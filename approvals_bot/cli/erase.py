"""`erase`: takes a person out of everything that has ended."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from approvals_bot.cli.backup import counted
from approvals_bot.cli.common import config_option, fail, json_option, misuse, this_user, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.people import AddressError

if TYPE_CHECKING:
    from approvals_bot.service.erasure import Erased

logger = logging.getLogger("approvals_bot.cli")

SAY_EVERY = 1.0  # seconds between two lines about how far it is


@click.command()
@click.argument("address", help="The person's email address.")
@config_option
@click.option("--dry-run", is_flag=True, help="Only say what would be erased.")
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name that they had; may be repeated. Needed if nothing here has it with their address any more.",
)
@json_option
def erase(address: str, config: Path, dry_run: bool, names: tuple[str, ...], as_json: bool) -> None:
    """Erase a person from ended runs, the audit and archives: their address, their name and what they wrote.

    Open runs that name them are listed, and then nothing is changed. It can't be undone.

    \b
    Example: approvals-bot erase bo@acme.eu --dry-run
    """
    from approvals_bot.app.directory import open_people
    from approvals_bot.service.erasure import LEFT, erase

    said = time.monotonic()

    def progress(runs: int) -> None:
        nonlocal said
        if time.monotonic() >= said + SAY_EVERY:
            said = time.monotonic()
            click.echo(f"{runs:,} runs read …", err=True)

    async def run(engine: Engine, service: ServiceSettings) -> Erased:
        async with open_people(service, engine.now, live=False) as people:
            archive, actor = service.retention.archive, this_user()
            return await erase(
                engine, people, address, actor=actor, archive=archive, dry_run=dry_run, progress=progress, also=names
            )

    try:
        done = with_engine(config, run, upgrade=False)
    except AddressError as error:
        misuse(str(error))
    except OSError as error:
        fail(f"An archive can't be rewritten: {error}. Mend that and repeat the command.")
    if as_json:
        click.echo(json.dumps(asdict(done)))
    if done.open:
        runs = ", ".join(done.open[:10]) + (" …" if len(done.open) > 10 else "")
        open_runs = f"{counted(len(done.open), 'open run')} {'names' if len(done.open) == 1 else 'name'}"
        fail(f"{open_runs} this person: {runs}. Nothing was erased; end or reassign first.")
    if not dry_run:
        logger.info("a person was erased", extra={"event": "erased"})
    if as_json:
        return
    if dry_run:
        ended = f"{counted(done.runs, 'ended run')} {'names' if done.runs == 1 else 'name'}"
        click.echo(f"{ended} this person, in {counted(done.events, 'event')}.")
        return
    click.echo(
        f"Erased as {done.id}: {counted(done.runs, 'run')}, {counted(done.events, 'event')}, "
        f"{counted(done.lines, 'audit line')}, {counted(done.archives, 'archive')}, {counted(done.rows, 'other row')}."
    )
    click.echo(f"Not erased: {LEFT}")
    if done.left:
        click.echo(f"Left to do: {done.left}.")
