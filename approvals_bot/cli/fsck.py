"""`approvals-bot fsck`: check the database against its own logs, and make again what is derived from them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.backup import ProgressLines, counted
from approvals_bot.cli.common import config_option, json_option

if TYPE_CHECKING:
    from approvals_bot.config.service import ServiceSettings
    from approvals_bot.durable.engine.fsck import FsckCounts, StoreFault

MOST_KEPT = 10_000  # faults in the JSON


@dataclass(slots=True)
class Report:
    """What was found, and how much of it was mended."""

    examined: FsckCounts
    faults: list[StoreFault] = field(default_factory=list)
    count: int = 0
    mended: int = 0

    def add(self, faults: list[StoreFault], *, mends: bool, print_lines: bool) -> None:
        from approvals_bot.durable.engine.fsck import DERIVED

        for fault in faults:
            self.count += 1
            is_mended = mends and fault.kind in DERIVED
            self.mended += is_mended
            if len(self.faults) < MOST_KEPT:
                self.faults.append(fault)
            if print_lines:
                about = f"run {fault.run_id}: " if fault.run_id else ""
                click.echo(f"{fault.kind}: {about}{fault.what}{' (mended)' if is_mended else ''}")

    def summary(self) -> str:
        examined = self.examined
        runs, events = counted(examined.runs, "run"), counted(examined.events, "event")
        checked = f"{runs}, {events} and {counted(examined.lines, 'audit line')}"
        lines = []
        if examined.not_replayed:
            number = sum(examined.not_replayed.values())
            names = ", ".join(sorted(examined.not_replayed))
            runs = counted(number, "run")
            lines.append(f"What {runs} of {names} show was not checked: the code isn't here, or stalls them.")
        if not self.count:
            return "\n".join([*lines, f"Checked {checked}: sound."])
        mended = f", {self.mended:,} mended" if self.mended else ""
        return "\n".join([*lines, f"Checked {checked}: {counted(self.count, 'fault')}{mended}."])


@click.command()
@config_option
@click.option("--repair", is_flag=True, help="Make again what is derived: rows, hooks, attributes. Never events.")
@json_option
def fsck(config: Path, repair: bool, as_json: bool) -> None:
    """Check the database: its logs, what is derived from them, and the chains.

    Writes nothing without --repair, which is refused while a service uses the database. Exits with 0 if all is sound,
    with 1 if there are faults that weren't mended, and with 2 if it couldn't look.

    \b
    Example: approvals-bot fsck --repair
    """
    import approvals_bot.approvals.workflow  # noqa: F401  # registers it
    from approvals_bot.config.load import load_service
    from approvals_bot.durable.engine.fsck import as_json as fault_json
    from approvals_bot.errors import ApprovalsBotError
    from approvals_bot.service.catalog import check_configuration

    terminal.quiet_logs()
    try:
        check_configuration(config, os.environ)  # which imports the workflows
        service = load_service(config, os.environ)
        report = asyncio.run(_examine(service, repairs=repair, print_lines=not as_json))
    except (ApprovalsBotError, sqlite3.Error, OSError) as error:
        click.echo(f"The database couldn't be checked: {error}", err=True)
        raise click.exceptions.Exit(2) from None
    found: dict[str, Any] = {
        "runs": report.examined.runs,
        "events": report.examined.events,
        "lines": report.examined.lines,
        "not_replayed": report.examined.not_replayed,
        "count": report.count,
        "mended": report.mended,
        "faults": [fault_json(fault) for fault in report.faults],
    }
    terminal.say(found, report.summary(), as_json)
    if report.count > report.mended:
        raise click.exceptions.Exit(1)


async def _examine(service: ServiceSettings, *, repairs: bool, print_lines: bool) -> Report:
    from approvals_bot.durable.core.registry import registry
    from approvals_bot.durable.engine import fsck as check
    from approvals_bot.durable.engine.replayer import Replayer
    from approvals_bot.durable.store import connect
    from approvals_bot.durable.store.chain import ChainKey
    from approvals_bot.durable.store.copying import opened, read_beside

    url = service.server.database.get_secret_value()
    await (await connect(url, to_read=True)).close()  # it is there, and has the schema of this program
    report, progress = Report(check.FsckCounts()), ProgressLines()
    replayer = Replayer(lambda hook_id: "")
    seed = service.audit.seed
    key = None if seed is None else ChainKey.derive(seed)
    async with opened(url) if repairs else read_beside(url) as tables:
        for what in await tables.integrity():
            report.add([check.StoreFault("store", None, what)], mends=False, print_lines=print_lines)
        pending = []
        async for faults, rebuilt in check.examine(tables, replayer, registry, key, report.examined):
            report.add(faults, mends=repairs and rebuilt is not None, print_lines=print_lines)
            progress(f"{report.examined.runs:,} runs checked …")
            if repairs and rebuilt is not None:
                pending.append((faults[0].run_id, rebuilt))
        for run_id, rebuilt in pending:
            assert run_id is not None
            await tables.rebuild(run_id, rebuilt.row, rebuilt.hooks, rebuilt.attributes)
    return report
