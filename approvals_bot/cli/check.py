"""`check`, `lint`, `doctor` and `schema`: finding problems before they reach people."""

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
        bool, typer.Option("--runs", help="Also replay every open run on this code; list those that would stall.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check config.toml and all workflows.

    Starts nothing. Reports every problem with file, line and key, and then exits with 1.
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
    text = f"{config}: no problems. Workflows: {', '.join(names) or 'none'}."
    if not runs:
        show.say(found, text, as_json)
        return
    if _check_runs(config, found, text, as_json):
        raise typer.Exit(1)


def _check_runs(config: Path, found: dict[str, object], text: str, as_json: bool) -> bool:
    """Replay the open runs and print the result. Returns whether any would stall."""
    checked, stalling = with_engine(config, replay_open_runs, upgrade=False)
    found["runs"] = {"checked": checked, "would_stall": [asdict(each) for each in stalling]}
    lines = [text, f"{checked:,} open {'run continues' if checked == 1 else 'runs continue'} with this code."]
    if stalling:
        lines[1] = f"{len(stalling):,} of {checked:,} open runs would stall on this code:"
        lines += [f"  {each.run_id}  {each.workflow}: {each.why}" for each in stalling]
        lines.append("Deploy code that still matches their logs, or give the new code another @workflow(version=…).")
    show.say(found, "\n".join(lines), as_json)
    return bool(stalling)


def lint(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Python files, or folders of them.", metavar="PATHS", exists=True)
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> None:
    """Find workflow code that can't be replayed.

    It finds clocks, random numbers, I/O, sets that are iterated over, and more. Without PATHS, it lints the workflows
    folder of config.toml. Imports nothing. Exits with 1 if anything is found.

    \b
    Example: approvals-bot lint workflows/refund.py
    """
    from approvals_bot.durable.lint import lint_paths
    from approvals_bot.service.catalog import workflows_folder

    found = lint_paths(paths or [workflows_folder(config, os.environ)])
    text = "\n".join(str(finding) for finding in found) or "No problems found."
    show.say({"findings": [asdict(finding) for finding in found]}, text, as_json)
    if found:
        raise typer.Exit(1)


def schema(
    of: Annotated[
        Literal["service", "workflow"],
        typer.Argument(help="service, for config.toml, or workflow, for a workflow file.", metavar="KIND"),
    ],
) -> None:
    """Print the JSON Schema of config.toml or of workflow files.

    Editors use it to complete and check TOML.

    \b
    Example: approvals-bot schema workflow > workflow.schema.json
    """
    found = service_schema() if of == "service" else workflow_schema()
    show.say(found, "", as_json=True)


def doctor(
    config: Config = CONFIG,
    send: Annotated[
        str | None, typer.Option("--send", help="Also send a test mail to this address.", metavar="ADDRESS")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check everything a running service needs.

    The store, Slack, mail, and whether people can be reached. Each problem comes with what to do about it. Exits with 1
    if anything fails.

    \b
    Example: approvals-bot doctor --send you@acme.eu
    """
    from approvals_bot.cli.doctor import examine, report

    show.quiet_logs()
    findings = asyncio.run(examine(config, os.environ, send))
    show.say({"findings": [asdict(finding) for finding in findings]}, report(findings), as_json)
    if any(finding.state == "FAIL" for finding in findings):
        raise typer.Exit(1)


OPEN: tuple[Status, ...] = ("pending", "running", "stalled")
PAGE_SIZE = 200  # runs
PROGRESS_EVERY = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Stalling:
    """A run that this code can't continue, and why."""

    run_id: str
    workflow: str
    why: str


async def replay_open_runs(engine: Engine, _: ServiceSettings) -> tuple[int, list[Stalling]]:
    """Count the open runs and find those that would stall. Writes nothing and runs no step."""
    checked, stalling = 0, list[Stalling]()
    reported_at = time.monotonic()
    for status in OPEN:
        cursor: str | None = None
        while True:
            page = await engine.records(status=status, limit=PAGE_SIZE, cursor=cursor)
            for record in page.records:
                checked += 1
                if why := await _why_it_stalls(engine, record):
                    stalling.append(Stalling(record.id, record.workflow, why))
                if time.monotonic() - reported_at > PROGRESS_EVERY and sys.stderr.isatty():
                    typer.echo(f"{checked:,} open runs replayed …", err=True)
                    reported_at = time.monotonic()
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
    except Exception as error:  # noqa: BLE001  # anything that a replayed body raises would stall its run
        return f"{type(error).__name__}: {error}"
    return ""
