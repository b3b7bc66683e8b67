"""`check`, `lint`, `doctor` and `schema`: finding problems before they reach people."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.common import config_option, json_option, misuse, uncollected, with_engine

if TYPE_CHECKING:
    from approvals_bot.config.load import Configuration
    from approvals_bot.config.messages import ConfigProblem


@click.command()
@config_option
@click.option(
    "--runs", is_flag=True, help="Also replay every open run on this code; list those that would stall or end."
)
@click.option(
    "--ended",
    metavar="TIME",
    help="With --runs: also replay the runs that ended this recently; list those that would end otherwise.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1_000,
    help="With --runs: list at most this many runs; all are counted.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if there are warnings, too.")
@json_option
def check(config: Path, runs: bool, ended: str | None, limit: int, strict: bool, as_json: bool) -> None:
    """Check config.toml and all workflows.

    Starts nothing. Plays the policy tests, too. Reports every problem with file, line and key, and then exits with 1.
    Warns of requests that no stage covers, of stages that never apply, of those without a notification or a deadline,
    and of tables of config.toml that another key turns off.

    \b
    Example: approvals-bot check --runs --ended 30d
    """
    terminal.quiet_logs()
    since = _span(ended, runs)
    with uncollected():
        from approvals_bot.config.warnings import warning_text
        from approvals_bot.service.catalog import check_configuration

        checked = check_configuration(config, os.environ)
        names, warnings = checked.names, checked.warnings
        problems = checked.problems
        if checked.configuration is not None and not problems:
            problems = _failing_tests(checked.configuration)
    if problems:
        lines = "\n".join(str(problem) for problem in problems)
        terminal.say({"problems": [asdict(problem) for problem in problems], "workflows": []}, lines, as_json)
        raise click.exceptions.Exit(1)
    found: dict[str, object] = {"problems": [], "warnings": [asdict(each) for each in warnings]}
    found["workflows"] = list(names)
    if not as_json:
        for warning in warnings:
            click.echo(warning_text(warning))
        click.echo(f"{config}: no problems. Workflows: {', '.join(names) or 'none'}.")
    if runs:
        from approvals_bot.cli.check_runs import RunsReport, check_runs

        report = RunsReport(limit, print_lines=not as_json)
        with_engine(config, partial(check_runs, report=report, ended=since), to_read=True)
        found["runs"] = report.as_json()
        if not as_json:
            click.echo(report.summary(with_ended=ended is not None))
    if as_json:
        terminal.say(found, "", as_json=True)
    if (runs and report.has_findings) or (strict and warnings):
        raise click.exceptions.Exit(1)


def _failing_tests(configuration: Configuration) -> Sequence[ConfigProblem]:
    """Play the policy tests, if there are any. Returns what is wrong with them, and what fails."""
    from approvals_bot.config.load import find_tests
    from approvals_bot.config.messages import ConfigErrors, ConfigProblem

    if not find_tests(configuration.service.server.workflows):
        return ()
    from approvals_bot.cli.policy_tests import failed_lines, play_tests

    try:
        results = play_tests(configuration)
    except ConfigErrors as errors:
        return errors.problems
    return [ConfigProblem(file, line, name, what) for file, line, name, what in failed_lines(results)]


def _span(ended: str | None, runs: bool) -> timedelta | None:
    if ended is None:
        return None
    if not runs:
        misuse("--ended needs --runs: it replays runs that have ended, too.")
    from approvals_bot.durable.core.durations import parse_duration

    try:
        return parse_duration(ended)
    except ValueError as error:
        misuse(f"--ended: {error}")


@click.command()
@click.argument(
    "paths", nargs=-1, type=click.Path(exists=True, path_type=Path), help="Python files, or folders of them."
)
@config_option
@json_option
def lint(paths: tuple[Path, ...], config: Path, as_json: bool) -> None:
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
    terminal.say({"findings": [asdict(finding) for finding in found]}, text, as_json)
    if found:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument(
    "of",
    type=click.Choice(["service", "workflow", "tests", "defaults"]),
    metavar="KIND",
    help="service, for config.toml, workflow, for a workflow file, tests, or defaults, for what it extends.",
)
def schema(of: Literal["service", "workflow", "tests", "defaults"]) -> None:
    """Print the JSON Schema of config.toml, of workflow files, of their tests or of what they extend.

    Editors use it to complete and check TOML.

    \b
    Example: approvals-bot schema workflow > workflow.schema.json
    """
    from approvals_bot.config.schema import SCHEMAS

    terminal.say(SCHEMAS[of](), "", as_json=True)


@click.command()
@config_option
@click.option("--send", metavar="ADDRESS", help="Also send a test mail to this address.")
@json_option
def doctor(config: Path, send: str | None, as_json: bool) -> None:
    """Check everything a running service needs.

    The store, Slack, mail, and whether people can be reached. Each problem comes with what to do about it. Exits with 1
    if anything fails.

    \b
    Example: approvals-bot doctor --send you@acme.eu
    """
    from approvals_bot.cli.doctor import examine, report

    terminal.quiet_logs()
    findings = asyncio.run(examine(config, os.environ, send))
    terminal.say({"findings": [asdict(finding) for finding in findings]}, report(findings), as_json)
    if any(finding.state == "FAIL" for finding in findings):
        raise click.exceptions.Exit(1)
