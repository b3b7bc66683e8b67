"""`schedules`: when workflows start next, and what became of the last time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from approvals_bot.approvals import card_text
from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.plain_text import one_line
from approvals_bot.approvals.policy import Definition
from approvals_bot.cli import show, terminal
from approvals_bot.cli.common import config_option, fail, json_option, with_engine
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.engine import Engine
from approvals_bot.service.read import iso
from approvals_bot.service.schedules import ScheduleReport, name_of, read_schedules


@click.command()
@config_option
@click.option("--workflow", metavar="NAME", help="Only schedules of this workflow.")
@click.option(
    "--next", "following", type=click.IntRange(min=1, max=100), default=1, help="How many of the next times to list."
)
@json_option
def schedules(config: Path, workflow: str | None, following: int, as_json: bool) -> None:
    """List schedules: their next times, and what became of the last one.

    Each time is in the schedule's own zone.

    \b
    Example: approvals-bot schedules --next 3
    """
    from approvals_bot.service.catalog import read_configuration

    terminal.quiet_logs()
    definitions = read_configuration(config).workflows
    chosen = [each for each in definitions if workflow in (None, each.id)]
    if not chosen and workflow is not None:
        fail(f"There is no workflow named {workflow!r}. `approvals-bot check` lists them.")
    found = with_engine(config, partial(_read, definitions=chosen, most=following), to_read=True)
    terminal.say({"schedules": [_as_json(each) for each in found]}, _table(found), as_json)


async def _read(
    engine: Engine, _: ServiceSettings, *, definitions: Sequence[Definition], most: int
) -> list[ScheduleReport]:
    return await read_schedules(engine, definitions, most)


def _as_json(report: ScheduleReport) -> dict[str, Any]:
    entry, state = report.entry, report.state
    last = None if state is None else state.last
    queued = None if state is None else state.queued
    missed = None if state is None else state.missed
    return {
        "workflow": report.workflow,
        "id": entry.id,
        "cron": entry.cron,
        "zone": entry.zone,
        "requester": entry.requester,
        "overlap": entry.overlap,
        "catch_up": duration_text(entry.catch_up),
        "next": [iso(at) for at in report.next],
        "last": None
        if last is None
        else {"at": iso(last.at), "outcome": last.outcome, "run_id": last.run_id, "why": last.why},
        "queued": None if queued is None else iso(queued),
        "missed": None if missed is None else {"from": iso(missed[0]), "to": iso(missed[1])},
    }


def _table(reports: Sequence[ScheduleReport]) -> str:
    if not reports:
        return "No schedules."
    rows = [row for report in reports for row in _rows(report)]
    header, *lines = show.columns([("SCHEDULE", "NEXT", "LAST", "WHAT HAPPENED"), *rows])
    return "\n".join([terminal.bold(header), *lines])


def _rows(report: ScheduleReport) -> Iterator[tuple[str, str, str, str]]:
    zone, state = report.entry.zone, report.state
    first, *more = [card_text.moment(at, zone) for at in report.next] or ["never"]
    last = "" if state is None or state.last is None else card_text.moment(state.last.at, zone)
    yield name_of(report.workflow, report.entry), first, last, one_line(report.what_happened, 120)
    for time in more:
        yield "", time, "", ""
