"""The workflows that can be started: the configuration, read and checked as a whole, and the catalog made from it.

A reload makes a new catalog, so it affects new requests only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.approvals.workflow import approval
from approvals_bot.config.checks import check_definition
from approvals_bot.config.load import Configuration, load_configuration, load_service, problems_of
from approvals_bot.config.messages import ConfigErrors, ConfigProblem, Finding
from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.registry import registry
from approvals_bot.durable.lint import UNREADABLE, lint_paths
from approvals_bot.service.python_workflows import PACKAGE, Program, find_program, fit, import_programs, python_files


@dataclass(frozen=True, slots=True)
class Listed:
    """A workflow as offered now. `definition`: its TOML file's, None for a plain Python workflow."""

    workflow: Workflow[Any, Any]
    definition: Definition | None = None

    @property
    def is_approval(self) -> bool:
        return self.definition is not None and self.definition.is_approval


@dataclass(frozen=True, slots=True)
class Catalog:
    """The workflows that this configuration offers: TOML files, and the folder's Python workflows."""

    listed: Mapping[str, Listed]

    def find(self, name: str) -> Listed | None:
        """Return the workflow of this name, None if there is none."""
        return self.listed.get(name)

    def names(self) -> Collection[str]:
        """Return every name that is listed."""
        return self.listed.keys()


def read_configuration(path: Path, env: Mapping[str, str] | None = None) -> Configuration:
    """Read config.toml and all files it names, and check the whole. Raises ConfigErrors with every problem."""
    return load_configuration(path, os.environ if env is None else env, check_definition)


def check_configuration(
    path: Path, env: Mapping[str, str] | None = None
) -> tuple[Catalog | None, Sequence[ConfigProblem]]:
    """Read and check everything once, in TOML and in Python. Starts nothing.

    Returns the catalog, None if it can't be made, and every problem.
    """
    catalog: Catalog | None = None
    found: list[ConfigProblem] = []
    try:
        configuration = read_configuration(path, env)
    except ConfigErrors as errors:
        folder = workflows_folder(path, env)
        _, broken = import_programs(folder)
        found += [*errors.problems, *broken]
    else:
        folder = configuration.service.server.workflows
        try:
            catalog = load_catalog(configuration)
        except ConfigErrors as errors:
            found += errors.problems
    return catalog, ConfigErrors([*found, *_not_replayable(folder)]).problems


def _not_replayable(folder: Path) -> list[ConfigProblem]:
    """Return the folder's lint findings. Unreadable files are left out, as importing them fails anyway."""
    found = lint_paths(python_files(folder))
    return [ConfigProblem(each.file, each.line, each.code, each.message) for each in found if each.code != UNREADABLE]


def workflows_folder(path: Path, env: Mapping[str, str] | None) -> Path:
    """Return the workflows folder; the default one if config.toml itself can't be loaded."""
    try:
        return load_service(path, os.environ if env is None else env).server.workflows
    except ConfigErrors:
        return path.parent / "workflows"


def load_catalog(configuration: Configuration) -> Catalog:
    """Import the folder's Python files, then list what they and the TOML files define.

    A Python workflow that a TOML file offers (`run = "module:function"`) is listed under that file's name only, so
    nobody can bypass the file's list of requesters. Raises ConfigErrors with every problem; then the previous modules
    and workflows stay in force.
    """
    modules = {name: module for name, module in sys.modules.items() if name.startswith(f"{PACKAGE}.")}
    try:
        with registry.trial(f"{PACKAGE}."):
            return _load_catalog(configuration)
    except ConfigErrors:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        sys.modules |= modules
        raise


def _load_catalog(configuration: Configuration) -> Catalog:
    folder = configuration.service.server.workflows
    programs, problems = import_programs(folder)
    broken = {Path(problem.file).stem for problem in problems}
    listed = {program.workflow.name: Listed(program.workflow) for program in programs}
    where = {program.workflow.name: f"{program.file.name}:{program.line}" for program in programs}
    for definition in configuration.workflows:
        if definition.workflow.run is not None:
            offered = find_program(definition.workflow.run, programs)
            if isinstance(offered, Program):
                listed.pop(offered.workflow.name, None)
    for definition in configuration.workflows:
        file, found = folder / f"{definition.id}.toml", list[Finding]()
        run = definition.workflow.run
        match find_program(run, programs) if run is not None else None:
            case Finding() as missing:
                if run is not None and run.partition(":")[0] not in broken:
                    found.append(missing)
            case _ if definition.id in where and definition.id in listed:
                other = where[definition.id]
                found.append(Finding(("workflow", "id"), f"a Python workflow has this name, too ({other}); rename one"))
            case None:
                listed[definition.id] = Listed(approval.under(definition.id, pinned(definition)), definition)
            case Program() as program:
                fitted, unfit = fit(definition, program)
                found += unfit
                settings = pinned(definition).get("settings")
                listed[definition.id] = Listed(program.workflow.under(definition.id, settings), fitted)
        problems += problems_of(file, found)
    if problems:
        raise ConfigErrors(problems)
    return Catalog(listed)
