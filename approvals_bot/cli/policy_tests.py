"""`test`: plays the policy tests that stand beside the workflows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from approvals_bot.cli import terminal
from approvals_bot.cli.common import FILE, config_option, json_option, misuse, uncollected

if TYPE_CHECKING:
    from approvals_bot.config.load import Configuration
    from approvals_bot.service.policy_tests import CaseResult, FileResult

BROKEN = "a bug in Approvals Bot, not in your policy, ended this case; please report it: {}"


@click.command("test")
@click.argument("path", type=FILE, required=False, help="A test file, its workflow's file, or a folder of them.")
@config_option
@click.option("--junit", type=FILE, metavar="FILE", help="Also write the results as JUnit XML.")
@json_option
def play(path: Path | None, config: Path, junit: Path | None, as_json: bool) -> None:
    """Play the policy tests: deploy.test.toml beside deploy.toml.

    Plays each case with the workflow's own rules, in no time. Stores, sends and calls nothing, and needs no secrets.
    Says of each failing case what was expected, what happened and why, and which rules and stages no case has met.
    Exits with 1 if a case fails, and with 2 if there is nothing to play or a file can't be read.

    \b
    Example: approvals-bot test workflows/deploy.test.toml --junit results.xml
    """
    terminal.quiet_logs()
    with uncollected():
        from approvals_bot.config.messages import ConfigErrors
        from approvals_bot.service.catalog import read_configuration

        try:
            configuration = read_configuration(config, os.environ, any_secrets=True)
            results = play_tests(configuration, path)
        except ConfigErrors as errors:
            misuse(str(errors))
    if not results:
        misuse(f"There are no policy tests: no *.test.toml in {path or configuration.service.server.workflows}.")
    if junit is not None:
        from approvals_bot.cli.junit import junit_xml

        junit.write_bytes(junit_xml(results))
    terminal.say(_as_json(results), _as_text(results), as_json)
    if any(not case.passed for result in results for case in result.cases):
        raise click.exceptions.Exit(1)


def play_tests(configuration: Configuration, path: Path | None = None) -> list[FileResult]:
    """Play the tests of a configuration, or those below a path. Raises ConfigErrors with every problem."""
    from approvals_bot.app.directory import build_plain_people, build_tested_people, read_directory
    from approvals_bot.config.messages import ConfigErrors, ConfigProblem
    from approvals_bot.config.policy_tests import load_tests
    from approvals_bot.service.policy_tests import run_tests

    service, problems, tested = configuration.service, list[ConfigProblem](), []
    for file in _chosen(configuration, path):
        try:
            tested.append(load_tests(file, configuration))
        except ConfigErrors as errors:
            problems += errors.problems
    if problems:
        raise ConfigErrors(problems)

    async def play() -> list[FileResult]:
        people = build_plain_people(service)
        await read_directory(service, people, None)
        make = partial(build_tested_people, service, rosters=people.rosters)
        return [await run_tests(one, make) for one in tested]

    return asyncio.run(play())


def _chosen(configuration: Configuration, path: Path | None) -> Sequence[Path]:
    """Return the test files below a path. Raises ConfigErrors for a path that is none."""
    from approvals_bot.config.load import TESTS, find_tests
    from approvals_bot.config.messages import ConfigErrors, ConfigProblem

    folder = configuration.service.server.workflows
    found = find_tests(folder)
    if path is None:
        return found
    if path.suffix == ".toml" and not path.name.endswith(TESTS):
        path = path.with_name(path.name.removesuffix(".toml") + TESTS)
    wanted = path.resolve()
    chosen = [file for file in found if file.resolve() == wanted or wanted in file.resolve().parents]
    if not chosen and not path.is_dir():
        what = "there is no such file" if not path.exists() else f"is not a test file in {folder}"
        raise ConfigErrors([ConfigProblem(str(path), 1, "file", what)])
    return chosen


def failed_lines(results: Sequence[FileResult]) -> list[tuple[str, int, str, str]]:
    """Return file, line, case and what is wrong, of each expectation that wasn't met and each case that broke."""
    found = []
    for result in results:
        for case in result.cases:
            found += [(result.file, failure.line, case.name, str(failure)) for failure in case.failures]
            found += [(result.file, case.line, case.name, BROKEN.format(case.broken))] if case.broken else []
    return found


def _as_text(results: Sequence[FileResult]) -> str:
    rows = [("workflow", "passed", "covered", "")]
    for result in results:
        passed = sum(case.passed for case in result.cases)
        covered = f"{len(result.coverage) - len(result.missed)} of {len(result.coverage)}"
        missed = f"not met: {', '.join(result.missed)}" if result.missed else ""
        rows.append((result.workflow, f"{passed} of {len(result.cases)}", covered, missed))
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    failed = [line for result in results for case in result.cases for line in _case_lines(result, case)]
    table = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True))]) for row in rows]
    return "\n".join([*failed, *(row.rstrip() for row in table)])


def _case_lines(result: FileResult, case: CaseResult) -> list[str]:
    if case.passed:
        return []
    lines = [
        f"{file}:{line}: {name}: {what}" for file, line, name, what in failed_lines([replace(result, cases=(case,))])
    ]
    return [*lines, *(f"    {line}" for line in case.timeline)]


def _as_json(results: Sequence[FileResult]) -> dict[str, Any]:
    cases = [case for result in results for case in result.cases]
    files = [
        {
            "file": result.file,
            "workflow": result.workflow,
            "cases": [asdict(case) | {"passed": case.passed} for case in result.cases],
            "coverage": dict(result.coverage),
        }
        for result in results
    ]
    passed, broken = sum(case.passed for case in cases), sum(bool(case.broken) for case in cases)
    return {"passed": passed, "failed": len(cases) - passed - broken, "broken": broken, "files": files}
