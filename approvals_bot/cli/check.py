"""`check`, `lint`, `doctor`, `schema`: what can be known before anybody is asked."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from approvals_bot.cli import show
from approvals_bot.cli.common import CONFIG, Config, Json, with_engine
from approvals_bot.config.schema import service_schema, workflow_schema
from approvals_bot.config.service import ServiceSettings
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.engine import Engine, RunRecord
from approvals_bot.durable.store.protocol import Status
from approvals_bot.errors import ApprovalsBotError


def check(
    config: Config = CONFIG,
    runs: Annotated[
        bool, typer.Option("--runs", help="Replay every open run on this code, too; say which would stall.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check config.toml and all workflows.

    Starts nothing. Exits 1 if something is wrong.
    """
    from approvals_bot.service.catalog import find_problems, load_catalog, read_configuration

    show.quiet_logs()
    problems = find_problems(config, os.environ)
    if problems:
        lines = "\n".join(str(problem) for problem in problems)
        show.say({"problems": [asdict(problem) for problem in problems], "workflows": []}, lines, as_json)
        raise typer.Exit(1)
    names = sorted(load_catalog(read_configuration(config, os.environ)).names())
    found: dict[str, object] = {"problems": [], "workflows": names}
    text = f"{config}: fine. Workflows: {', '.join(names) or 'none'}."
    if not runs:
        show.say(found, text, as_json)
        return
    if _check_runs(config, found, text, as_json):
        raise typer.Exit(1)


def _check_runs(config: Path, found: dict[str, object], text: str, as_json: bool) -> bool:
    """Print what became of the open runs. True: some would stall."""
    checked, stalling = with_engine(config, replay_open_runs, upgrade=False)
    found["runs"] = {"checked": checked, "would_stall": [asdict(each) for each in stalling]}
    lines = [text, f"{checked:,} open {'run goes' if checked == 1 else 'runs go'} on with this code."]
    if stalling:
        lines[1] = f"Of {checked:,} open runs {len(stalling):,} would stall on this code:"
        lines += [f"  {each.run_id}  {each.workflow}: {each.why}" for each in stalling]
        lines.append("Deploy code that still matches their logs, or give the new code @workflow(version=…).")
    show.say(found, "\n".join(lines), as_json)
    return bool(stalling)


def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files, or folders of *.py files.", metavar="PATHS", exists=True)
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> None:
    """Find what a workflow's replay could not repeat: clocks, random numbers, I/O, the order of sets.

    Without PATHS it reads the configuration's workflows folder. Imports nothing. Exits 1 if something is found.
    """
    from approvals_bot.durable.lint import lint_paths
    from approvals_bot.service.catalog import workflows_folder

    found = lint_paths(paths or [workflows_folder(config, os.environ)])
    text = "\n".join(str(finding) for finding in found) or "Nothing found."
    show.say({"findings": [asdict(finding) for finding in found]}, text, as_json)
    if found:
        raise typer.Exit(1)


def schema(
    of: Annotated[
        Literal["service", "workflow"],
        typer.Argument(help="service (config.toml) or workflow (one of its files).", metavar="KIND"),
    ],
) -> None:
    """Print a file's JSON Schema, for editors."""
    found = service_schema() if of == "service" else workflow_schema()
    show.say(found, "", as_json=True)


def doctor(
    config: Config = CONFIG,
    send: Annotated[
        str | None, typer.Option("--send", help="Mail a test to this address, too.", metavar="ADDRESS")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try everything that a running service needs.

    Each line says what to do. Exits 1 if something fails.
    """
    from approvals_bot.cli.doctor import examine, report

    show.quiet_logs()
    findings = asyncio.run(examine(config, os.environ, send))
    say = {"findings": [asdict(finding) for finding in findings]}
    show.say(say, report(findings), as_json)
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(1)


OPEN: tuple[Status, ...] = ("pending", "running", "stalled")
PAGE = 200  # runs read at once
SAY_EVERY = 1.0  # seconds between two lines of progress


@dataclass(frozen=True, slots=True)
class Stalling:
    """A run that this code can't go on with."""

    run_id: str
    workflow: str
    why: str


async def replay_open_runs(engine: Engine, _: ServiceSettings) -> tuple[int, list[Stalling]]:
    """How many runs are open, and which of them would stall. Nothing is written, no step is run."""
    checked, stalling = 0, list[Stalling]()
    said = time.monotonic()
    for status in OPEN:
        cursor: str | None = None
        while True:
            page = await engine.records(status=status, limit=PAGE, cursor=cursor)
            for record in page.records:
                checked += 1
                if why := await _why_it_stalls(engine, record):
                    stalling.append(Stalling(record.id, record.workflow, why))
                if time.monotonic() - said > SAY_EVERY and sys.stderr.isatty():
                    typer.echo(f"{checked:,} open runs replayed …", err=True)
                    said = time.monotonic()
            cursor = page.cursor
            if cursor is None:
                break
    return checked, stalling


async def _why_it_stalls(engine: Engine, record: RunRecord) -> str:
    found = await engine.store.read(record.id)
    if found is None or found[0].ended_at is not None:
        return ""
    row, log = found
    try:
        workflow = registry.get(row.code, row.version)
        await engine.replayer.replay(workflow, log, secrets.token_bytes(32))
    except ApprovalsBotError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever a body's replay raises is what would stall its run
        return f"{type(error).__name__}: {error}"
    return ""
