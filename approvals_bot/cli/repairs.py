"""`retry` and `reset`: what operators do about runs that a bad release has stalled or ended, one or many."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from approvals_bot.approvals.plain_text import one_line
from approvals_bot.cli import show, terminal
from approvals_bot.cli.check_runs import Progress
from approvals_bot.cli.commands import error_text
from approvals_bot.cli.common import (
    clock_of,
    config_option,
    fail,
    json_option,
    misuse,
    record_of,
    this_user,
    with_engine,
)
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.core.durations import parse_duration
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Status
from approvals_bot.errors import ApprovalsBotError
from approvals_bot.service.python_workflows import import_programs
from approvals_bot.service.repairs import (
    REPAIRABLE,
    RETRYABLE,
    Act,
    Repair,
    act_of,
    attempt_again,
    error_of,
    find_broken,
    why_not_again,
)
from approvals_bot.service.repairs import reset as reset_run

CLI = "app:cli"
"""The actor in the audit."""

MOST_LISTED = 20  # runs that a question names; --dry-run --json lists all

_NEW_RUN, _IN_ITS_PLACE = "as a new run with the same input", "as a new run in its place"

SENTENCES: dict[Act, tuple[str, str]] = {
    "retry": ("1 stalled run tries again with today's code", "{} stalled runs try again with today's code"),
    "new_run": (f"1 run starts again, {_NEW_RUN}", f"{{}} runs start again, each {_NEW_RUN}"),
    "reset": (
        f"1 run goes on from event {{to}}, {_IN_ITS_PLACE}",
        f"{{}} runs go on from event {{to}}, each {_IN_ITS_PLACE}",
    ),
}
"""What an act does to one run, and to several."""

runs_argument = click.argument("run", required=False, help="A run's ID; without it, all runs that the filters find.")
reason_option = click.option("--reason", required=True, help="The reason, kept in the audit.")
workflow_option = click.option("--workflow", help="Only runs of this workflow.")
status_option = click.option(
    "--status", multiple=True, help="Only runs with this status; repeatable. Default: stalled and failed."
)
since_option = click.option(
    "--since",
    metavar="TIME",
    help="Only runs that ended since then, or stalled: '2h' ago, or a time like 2026-11-28T10:00Z.",
)
error_option = click.option("--error", metavar="TEXT", help="Only runs whose error has this text, in any case.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask. Needed where there is no terminal.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only print what would be done.")


@click.command()
@reason_option
@runs_argument
@config_option
@workflow_option
@status_option
@since_option
@error_option
@yes_option
@dry_run_option
@json_option
def retry(
    reason: str,
    run: str | None,
    config: Path,
    workflow: str | None,
    status: tuple[str, ...],
    since: str | None,
    error: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a stalled run go on, or start a failed or cancelled one again.

    A stalled run tries again with the code that the service has. A failed or cancelled one stays as it is: a new run
    with the same input starts, and names it. Without RUN, this prints what would be done to all runs that the filters
    find, and asks. Exits with 1 if one couldn't be done.

    \b
    Example: approvals-bot retry --workflow deploy --since 2h --reason "Release 1.4.1 mends it"
    """
    chosen = Chosen(run, workflow, status, since, error, yes=yes, dry_run=dry_run, as_json=as_json)
    _repair(chosen, config, reason, to=None, drop_payloads=False)


@click.command()
@click.option(
    "--to",
    type=int,
    required=True,
    metavar="SEQ",
    help="The number of the last event to keep; `show RUN --json` lists them.",
)
@reason_option
@runs_argument
@config_option
@click.option("--drop-payloads", is_flag=True, help="Drop what people sent after that event; otherwise it is kept.")
@workflow_option
@status_option
@since_option
@error_option
@yes_option
@dry_run_option
@json_option
def reset(
    to: int,
    reason: str,
    run: str | None,
    config: Path,
    drop_payloads: bool,
    workflow: str | None,
    status: tuple[str, ...],
    since: str | None,
    error: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let a new run go on from an event of another one, in its place.

    The new run begins with the old one's events up to SEQ, and takes over its open hooks: links and buttons that people
    have lead to it. What people sent after SEQ is handled again. Without RUN, this prints what would be done to all
    runs that the filters find, and asks. Exits with 1 if one couldn't be done.

    \b
    Example: approvals-bot reset RUN --to 17 --reason "Event 18 came from a bad release"
    """
    if to < 1:
        misuse("--to is the number of an event, from 1.")
    chosen = Chosen(run, workflow, status, since, error, yes=yes, dry_run=dry_run, as_json=as_json)
    _repair(chosen, config, reason, to=to, drop_payloads=drop_payloads)


@dataclass(frozen=True)
class Chosen:
    """Which runs to repair, and how to ask."""

    run: str | None
    workflow: str | None
    statuses: tuple[str, ...]
    since: str | None
    error: str | None
    yes: bool
    dry_run: bool
    as_json: bool

    @property
    def is_bulk(self) -> bool:
        return self.run is None


@dataclass
class Done:
    """What has been done so far."""

    repairs: list[Repair] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)  # of runs: the id, and why nothing was changed


def _repair(chosen: Chosen, config: Any, reason: str, *, to: int | None, drop_payloads: bool) -> None:
    _check_options(chosen, reason, to)
    since = _instant(chosen.since, clock_of(config).now()) if chosen.since is not None else None

    async def run(engine: Engine, service: ServiceSettings) -> Done | None:
        import approvals_bot.approvals.workflow  # noqa: F401  # its runs need their code

        import_programs(service.server.workflows)
        if chosen.run is not None:
            found = [await record_of(engine, chosen.run.partition(".")[0])]
            if chosen.dry_run and to is None and (error := why_not_again(found[0])) is not None:
                fail(error_text(error))
        else:
            statuses = cast("list[Status]", chosen.statuses) or REPAIRABLE
            filters = {"workflow": chosen.workflow, "since": since, "error": chosen.error}
            found = [_slim(each) async for each in find_broken(engine, statuses=statuses, **filters)]  # type: ignore[arg-type]
        if not _agreed(chosen, found, to):
            return None
        return await _each(engine, chosen, found, reason, to=to, drop_payloads=drop_payloads)

    done = with_engine(config, run)
    if done is not None:
        _print_done(chosen, done)
        if done.errors:
            raise click.exceptions.Exit(1)


def _check_options(chosen: Chosen, reason: str, to: int | None) -> None:
    if not reason.strip():
        misuse("--reason must say why; the audit keeps it.")
    if chosen.run is not None and (chosen.workflow or chosen.statuses or chosen.since or chosen.error):
        misuse("Give either RUN or filters, not both.")
    for status in chosen.statuses:
        if status not in show.STATUSES:
            misuse(f"There is no status {status!r}. Statuses: {', '.join(show.STATUSES)}.")
        if to is None and status not in RETRYABLE:
            misuse(f"Runs that are {status} can't be retried. Those that are {', '.join(RETRYABLE)} can.")
    if chosen.is_bulk and not (chosen.yes or chosen.dry_run or _has_terminal()):
        misuse("There is no terminal to ask on. Look with --dry-run first, then add --yes.")


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _instant(text: str, now: datetime) -> datetime:
    """Return the time that --since names: a duration before now, or a time, in UTC unless it says otherwise."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        misuse(f"--since {text!r} is neither a duration like '2h' nor a time like 2026-11-28T10:00Z.")
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _slim(record: RunRecord) -> RunRecord:
    """Return the record without what a run shows: there may be thousands of them."""
    return record._replace(view=None, parts=[])


def _agreed(chosen: Chosen, found: list[RunRecord], to: int | None) -> bool:
    """Say what would be done, and ask. Returns whether to do it."""
    if not chosen.is_bulk and not chosen.dry_run:
        return True
    if chosen.dry_run and chosen.as_json:
        rows = [_row(record, to) for record in found]
        terminal.say({"dry_run": True, "count": len(found), "runs": rows}, "", as_json=True)
        return False
    to_people = chosen.as_json  # then standard output is for programs
    click.echo("\n".join(_preview(found, to)), err=to_people)
    if chosen.dry_run or not found:
        if chosen.as_json:
            terminal.say({"count": 0, "runs": [], "errors": 0}, "", as_json=True)
        return False
    if chosen.yes or click.confirm("Continue?", err=to_people):
        return True
    click.echo("Nothing was changed.", err=to_people)
    return False


def _row(record: RunRecord, to: int | None) -> dict[str, Any]:
    return {
        "run_id": record.id,
        "workflow": record.workflow,
        "status": record.status,
        "error": error_of(record) or None,
        "act": act_of(record.status, to),
    }


def _preview(found: list[RunRecord], to: int | None) -> list[str]:
    if not found:
        return ["No run matches."]
    counts = Counter(act_of(record.status, to) for record in found)
    lines = [f"{len(found):,} {'run' if len(found) == 1 else 'runs'}:"]
    lines += [f"  {_sentence(act, count, to)}" for act, count in counts.items()]
    rows = [(each.id, each.workflow, each.status, one_line(error_of(each), 80)) for each in found[:MOST_LISTED]]
    lines += ["", *show.columns(rows, "  ")]
    if len(found) > MOST_LISTED:
        lines.append(f"  … and {len(found) - MOST_LISTED:,} more")
    return lines


def _sentence(act: Act, count: int, to: int | None) -> str:
    one, many = SENTENCES[act]
    return (one if count == 1 else many).format(f"{count:,}", to=to)


async def _each(
    engine: Engine, chosen: Chosen, found: list[RunRecord], reason: str, *, to: int | None, drop_payloads: bool
) -> Done:
    """Repair each run. An error concerns one run: it is kept, and the others go on."""
    done, progress = Done(), Progress("runs done")
    for number, record in enumerate(found, 1):
        try:
            if to is None:
                repair = await attempt_again(engine, record.id, who=CLI, actor=this_user(), reason=reason)
            else:
                user = this_user()
                repair = await reset_run(
                    engine, record.id, to, who=CLI, actor=user, reason=reason, drop_payloads=drop_payloads
                )
            done.repairs.append(repair)
        except ApprovalsBotError as error:
            if not chosen.is_bulk:
                fail(error_text(error))
            done.errors.append((record.id, error_text(error)))
            progress.clear()
            click.echo(f"{record.id}: {error_text(error)}", err=True)
        progress.show(number)
    progress.clear()
    return done


def _print_done(chosen: Chosen, done: Done) -> None:
    rows: list[dict[str, Any]] = [
        {"run_id": each.run_id, "act": each.act, "next_run": each.next_run} for each in done.repairs
    ]
    if not chosen.is_bulk:
        (repair,) = done.repairs
        terminal.say(rows[0], _said(repair), chosen.as_json)
        return
    rows += [{"run_id": run_id, "error": why} for run_id, why in done.errors]
    lines = [_said(each) for each in done.repairs]
    lines.append(f"{len(done.repairs):,} done, {len(done.errors):,} refused.")
    terminal.say(
        {"count": len(done.repairs), "errors": len(done.errors), "runs": rows}, "\n".join(lines), chosen.as_json
    )


def _said(repair: Repair) -> str:
    match repair.act:
        case "retry":
            return f"{repair.run_id} tries again."
        case "new_run":
            return f"{repair.run_id} {'starts' if repair.is_new else 'was started'} again as {repair.next_run}."
        case _:
            return f"{repair.run_id} goes on as {repair.next_run}."
