"""The workflows that can be started: the configuration, read and checked as a whole, and the catalog made from it.

A reload makes a new catalog, so it affects new requests only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.policy import Definition, pinned
from approvals_bot.config.chat import CHAT_WORKFLOW
from approvals_bot.config.checks import check_definition
from approvals_bot.config.groups import DirectoryGroupEntry, FileSourceEntry
from approvals_bot.config.load import (
    Configuration,
    load_configuration,
    load_service,
    problems_of,
    python_files,
    samples,
    unread_files,
)
from approvals_bot.config.messages import ConfigErrors, ConfigProblem, Finding
from approvals_bot.config.service import ServiceSettings
from approvals_bot.config.warnings import service_warnings, warnings_of
from approvals_bot.people import SourceUnavailable, canonical, is_mail
from approvals_bot.people.roster import LARGEST_DIRECTORY, read_roster
from approvals_bot.service.directory import DirectoryFile

if TYPE_CHECKING:
    from approvals_bot.durable.core.api import Workflow
    from approvals_bot.service.python_workflows import Program

CHAT_NEEDS = "pip install 'approvals-bot[pydantic-ai]'"

# `check` starts quickly because it imports neither the engine nor the approval, and what reads Python files only where
# there are any. So these imports are inside the functions below; tests/cli/test_cli_imports.py holds them there.


@dataclass(frozen=True, slots=True)
class Listed:
    """A workflow as offered now. `definition`: its TOML file's, None for a plain Python workflow."""

    workflow: Workflow[Any, Any]
    definition: Definition | None = None

    @property
    def is_approval(self) -> bool:
        return self.definition is not None and self.definition.is_approval

    @property
    def makes_request(self) -> bool:
        """Whether each run is one request: an approval's, or a tool call's."""
        return self.definition is not None and (self.definition.is_approval or self.definition.is_tool_call)


@dataclass(frozen=True)
class Catalog:
    """The workflows that this configuration offers: TOML files, and Python workflows of the folder or built in.

    `missing`: what has to be installed before a built-in workflow works, by its name.
    """

    listed: Mapping[str, Listed]
    missing: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def named_people(self) -> frozenset[str]:
        """The addresses that workflow files name: these people are known, whatever else knows them."""
        definitions = [listed.definition for listed in self.listed.values() if listed.definition is not None]
        return frozenset(canonical(address) for each in definitions for address in _named_by(each) if is_mail(address))

    def find(self, name: str) -> Listed | None:
        """Return the workflow of this name, None if there is none."""
        return self.listed.get(name)

    def names(self) -> Collection[str]:
        """Return every name that is listed."""
        return self.listed.keys()


def _named_by(definition: Definition) -> Iterator[str]:
    about = definition.workflow
    yield from (*about.request, *(about.owners or ()), *(about.viewers or ()), *(about.may_ask or ()))
    for stage in definition.stage:
        for seat in stage.seats:
            yield from (*seat.from_, *(seat.notify or ()))
    for escalation in definition.escalate:
        yield from escalation.to
    for schedule in definition.schedule:
        yield schedule.requester


def read_configuration(path: Path, env: Mapping[str, str] | None = None, *, any_secrets: bool = False) -> Configuration:
    """Read config.toml and all files it names, and check the whole. Raises ConfigErrors with every problem.

    `any_secrets`: for what calls nobody, secrets that aren't set may be anything.
    """
    return load_configuration(path, os.environ if env is None else env, check_definition, any_secrets=any_secrets)


@dataclass(frozen=True, slots=True)
class CheckedConfiguration:
    """What was read and checked. `configuration`: None if it can't be loaded; `names`: of the workflows, if it can."""

    configuration: Configuration | None
    names: Sequence[str]
    problems: Sequence[ConfigProblem]
    warnings: Sequence[ConfigProblem]


def check_configuration(path: Path, env: Mapping[str, str] | None = None) -> CheckedConfiguration:
    """Read and check everything once, in TOML and in Python. Starts nothing."""
    names: Sequence[str] = ()
    configuration: Configuration | None = None
    warned: list[ConfigProblem] = []
    found: list[ConfigProblem] = []
    try:
        configuration = read_configuration(path, env)
    except ConfigErrors as errors:
        folder = workflows_folder(path, env)
        _, broken = _programs(folder)
        found += [*errors.problems, *broken]
    else:
        folder = configuration.service.server.workflows
        try:
            names = sorted(_find_offers(configuration))
            for definition in configuration.workflows:
                warned += warnings_of(definition, folder / f"{definition.id}.toml")
            warned += (ConfigProblem(str(path), 1, "file", why) for path, why in unread_files(folder))
            warned += problems_of(path, service_warnings(configuration.service))
            warned += _directory_warnings(configuration.service)
        except ConfigErrors as errors:
            found += errors.problems
    problems = ConfigErrors([*found, *_not_replayable(folder)]).problems
    return CheckedConfiguration(configuration, names, problems, warned)


def _directory_warnings(service: ServiceSettings) -> Iterator[ConfigProblem]:
    """Yield what is wrong in the file that lists everybody: it stops nothing from loading."""
    source = service.directory.people
    if not isinstance(source, FileSourceEntry):
        return
    file = DirectoryFile(source.file)
    try:
        roster = read_roster(file.read(LARGEST_DIRECTORY + 1), service.rules, file.name)
    except SourceUnavailable as error:
        yield ConfigProblem(str(source.file), 1, "file", error.reason)
        return
    yield from (ConfigProblem(str(source.file), one.line, one.key, one.message) for one in roster.faults)
    if (more := roster.bad - len(roster.faults)) > 0:
        yield ConfigProblem(str(source.file), 1, "people", f"{more} more entries have faults")
    for name, group in service.groups.items():
        if isinstance(group, DirectoryGroupEntry) and group.directory not in roster.groups:
            what = f"nobody is in the group {group.directory}, which [groups] {name} means"
            yield ConfigProblem(str(source.file), 1, "people", what, nearest(group.directory, roster.groups))


def workflows_folder(path: Path, env: Mapping[str, str] | None) -> Path:
    """Return the workflows folder; the default one if config.toml itself can't be loaded."""
    try:
        return load_service(path, os.environ if env is None else env).server.workflows
    except ConfigErrors:
        return path.parent / "workflows"


def load_catalog(configuration: Configuration, tool_calls_ask: Sequence[str] = ()) -> Catalog:
    """Import the folder's Python files, then list what they and the TOML files define.

    The workflow of agents' tool calls is there without a file. Then it asks `tool_calls_ask`, by default nobody.

    A Python workflow that a TOML file offers (`run = "module:function"`) is listed under that file's name only, so
    nobody can bypass the file's list of requesters. Raises ConfigErrors with every problem; then the previous modules
    and workflows stay in force.
    """
    from approvals_bot.approvals.workflow import approval

    def listed(offer: Offer) -> Listed:
        definition, program = offer.definition, offer.program
        if definition is None:
            assert program is not None
            return Listed(program.workflow)
        if program is None:
            return Listed(approval.under(definition.id, pinned(definition)), definition)
        return Listed(program.workflow.under(definition.id, offer.settings), definition)

    offers = {TOOL_CALL: Offer(_built_in(configuration, tool_calls_ask), None)} | _find_offers(configuration)
    found = {name: listed(offer) for name, offer in offers.items()}
    wants_chat = configuration.service.chat.enabled and CHAT_WORKFLOW not in found
    return Catalog(found, {CHAT_WORKFLOW: CHAT_NEEDS} if wants_chat else {})


def built_in_files(configuration: Configuration) -> list[Path]:
    """Return the files of built-in Python workflows that this configuration has, and doesn't replace by its own."""
    file = samples() / "workflows" / f"{CHAT_WORKFLOW}.py"
    folder = configuration.service.server.workflows
    own = {path.stem for path in python_files(folder) if path.parent == folder}
    own |= {definition.id for definition in configuration.workflows}
    return [file] if configuration.service.chat.enabled and file.is_file() and file.stem not in own else []


def _built_in(configuration: Configuration, asks: Sequence[str]) -> Definition:
    """Return the workflow `tool-call` as if a file had it. Addresses of groups that aren't there are left out."""
    groups = configuration.service.groups
    asked = [address for address in asks if not address.startswith("@") or address[1:] in groups]
    about = {"id": TOOL_CALL, "title": "{{ agent }}: {{ tool }}", "may_ask": asked}
    stages = [{"id": "go", "from": asked}] if asked else []
    table = {"workflow": about, "stage": stages, "deliver": {"dm": True}}
    return Definition.model_validate(table, context={}).with_group_names(configuration.service.group_names)


# What the files offer, before workflows are made of it.


@dataclass(frozen=True, slots=True)
class Offer:
    """A TOML file with an approval, a Python workflow, or both: a TOML file with `run`, and its `settings`."""

    definition: Definition | None
    program: Program | None
    settings: Any = None


def _find_offers(configuration: Configuration) -> dict[str, Offer]:
    """Return what is offered under each name. Raises ConfigErrors with every problem, and then changes nothing."""
    if not python_files(configuration.service.server.workflows) and not built_in_files(configuration):
        return _match(configuration)
    with _trial():
        return _match(configuration)


@contextmanager
def _trial() -> Iterator[None]:
    """Import Python workflows. If the block raises ConfigErrors, the previous ones stay in force."""
    from approvals_bot.durable.core.registry import registry
    from approvals_bot.service.python_workflows import PACKAGE

    modules = {name: module for name, module in sys.modules.items() if name.startswith(f"{PACKAGE}.")}
    try:
        with registry.trial(f"{PACKAGE}."):
            yield
    except ConfigErrors:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        sys.modules |= modules
        raise


def _match(configuration: Configuration) -> dict[str, Offer]:
    folder = configuration.service.server.workflows
    programs, problems = _programs(folder, configuration.service.limits, built_in_files(configuration))
    broken = {Path(problem.file).stem for problem in problems}
    offers = {program.workflow.name: Offer(None, program) for program in programs}
    where = {program.workflow.name: f"{program.file.name}:{program.line}" for program in programs}
    runs = {definition.id: _program_of(definition, programs) for definition in configuration.workflows}
    for offered in runs.values():
        if offered is not None and not isinstance(offered, Finding):
            offers.pop(offered.workflow.name, None)
    for definition in configuration.workflows:
        file, found = folder / f"{definition.id}.toml", list[Finding]()
        match runs[definition.id]:
            case Finding() as missing:
                if (definition.workflow.run or "").partition(":")[0] not in broken:
                    found.append(missing)
            case _ if definition.id in where and definition.id in offers:
                other = where[definition.id]
                found.append(Finding(("workflow", "id"), f"a Python workflow has this name, too ({other}); rename one"))
            case None:
                offers[definition.id] = Offer(definition, None)
            case program:
                from approvals_bot.service.python_workflows import fit, scheduled_input

                fitted, unfit = fit(definition, program)
                found += [*unfit, *(scheduled_input(fitted, program) if not unfit else ())]
                offers[definition.id] = Offer(fitted, program, pinned(definition).get("settings"))
        problems += problems_of(file, found)
    if problems:
        raise ConfigErrors(problems)
    return offers


def _program_of(definition: Definition, programs: Sequence[Program]) -> Program | Finding | None:
    """Return the program that a file names, a finding if there is none, and None for an approval."""
    if definition.workflow.run is None:
        return None
    from approvals_bot.service.python_workflows import find_program

    return find_program(definition.workflow.run, programs, definition.id.rpartition("/")[0])


def _programs(
    folder: Path, limits: Collection[str] | None = None, built_in: Sequence[Path] = ()
) -> tuple[list[Program], list[ConfigProblem]]:
    if not python_files(folder) and not built_in:
        return [], []
    from approvals_bot.service.python_workflows import import_programs

    return import_programs(folder, limits, built_in)


def _not_replayable(folder: Path) -> list[ConfigProblem]:
    """Return the folder's lint findings. Unreadable files are left out, as importing them fails anyway."""
    files = python_files(folder)
    if not files:
        return []
    from approvals_bot.durable.lint import UNREADABLE, lint_paths

    found = lint_paths(files)
    return [ConfigProblem(each.file, each.line, each.code, each.message) for each in found if each.code != UNREADABLE]
