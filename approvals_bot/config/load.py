"""Loads config.toml and the workflow files.

All problems are reported at once, each with its file, line and key. Nothing is returned unless everything is valid, so
a bad reload leaves the old configuration in force.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from approvals_bot.approvals.agent_policy import TOOL_CALL
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.messages import (
    ConfigErrors,
    ConfigProblem,
    Finding,
    findings,
    in_file,
    independent,
    remainder,
    written,
)
from approvals_bot.config.positions import Path as Place
from approvals_bot.config.positions import Places, UnreadableError, find_places
from approvals_bot.config.service import ServiceSettings
from approvals_bot.config.slips import slip_of

LARGEST_FILE = 262_144  # bytes
DEEPEST_FOLDER = 5  # of workflows, below the folder of all
EXTENDS = "extends"
SIMULATION = "simulation"
"""What ends the URL of a page about a workflow, `/workflows/pay/simulation`: no name with a slash ends so."""

TESTS = ".test.toml"
"""What the names of policy tests end with: `deploy.test.toml`, beside `deploy.toml`."""

Check = Callable[[Definition, ServiceSettings], Iterable[Finding]]
"""Checks beyond the shape: whether names exist, conditions compile, stages can be filled."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The service and its workflows, checked together."""

    service: ServiceSettings
    workflows: tuple[Definition, ...]
    files: Mapping[str, str] = field(default_factory=dict)  # name → SHA-256
    texts: Mapping[str, str] = field(default_factory=dict)  # of the workflows' files, by workflow


def load_configuration(
    path: Path, env: Mapping[str, str], check: Check | None = None, *, any_secrets: bool = False
) -> Configuration:
    """Load config.toml and all its workflows. `any_secrets`: those that are missing may be anything.

    Raises ConfigErrors with every problem of every file.
    """
    problems: list[ConfigProblem] = []
    service: ServiceSettings | None = None
    workflows: list[Definition] = []
    try:
        service = load_service(path, env)
    except ConfigErrors as error:
        service = _but_for_its_secrets(path, env)
        problems += () if any_secrets and service is not None else error.problems
    try:
        folder = service.server.workflows if service is not None else path.parent / "workflows"
        if service is not None and not folder.exists():
            missing = Finding(("server", "workflows"), f"the folder {folder} doesn't exist; make it, or name another")
            raise ConfigErrors(problems_of(path, [missing]))
        workflows = load_workflows(folder, service, check)
    except ConfigErrors as error:
        problems += error.problems
    if problems or service is None:
        raise ConfigErrors(problems)
    return Configuration(service, tuple(workflows), dict(_digests(path, folder)), dict(_texts(folder)))


def _digests(path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the SHA-256 of config.toml and of each file of workflows, by its name below their folder."""
    yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()
    for file in (*_toml_files(folder), *python_files(folder)):
        if not file.name.endswith(TESTS):
            with suppress(OSError):
                yield file.relative_to(folder).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the text of each workflow's file, and below it that of the file which it extends."""
    for file in workflow_files(folder):
        with suppress(OSError, ConfigErrors):
            text = file.read_bytes().decode()
            if (base := _base_of(file, folder)) is not None:
                text = f"{text.rstrip()}\n\n# {base.name}, which this file extends:\n\n{base.read_bytes().decode()}"
            yield name_of(file, folder), text


def _base_of(path: Path, folder: Path) -> Path | None:
    """Return the file that a workflow's file extends. Raises ConfigErrors, OSError."""
    if EXTENDS.encode() not in path.read_bytes():  # as good as all: reading every file twice would take its time
        return None
    base = read_workflow(path, folder).base
    return None if base is None else Path(base.name)


def load_service(path: Path, env: Mapping[str, str]) -> ServiceSettings:
    """Load config.toml alone, resolving each `env:NAME` from `env`. Raises ConfigErrors."""
    file = TomlFile.read(path)
    service, wrong = file.fit(ServiceSettings, {"env": env, "folder": path.parent})
    if service is None:
        raise ConfigErrors(file.problems(wrong))
    return service


def _but_for_its_secrets(path: Path, env: Mapping[str, str]) -> ServiceSettings | None:
    """Load the service as if every secret were set, to check its workflows despite missing secrets."""
    try:
        return load_service(path, _AnySecret(env))
    except ConfigErrors:
        return None


class _AnySecret(dict[str, str]):
    """An environment in which every variable is set, those that are missing each to a different value."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name) or hashlib.sha256(name.encode()).hexdigest()


def load_workflows(
    folder: Path, service: ServiceSettings | None = None, check: Check | None = None
) -> list[Definition]:
    """Load every *.toml of the folder, sorted by name. Without a service, only shapes are checked.

    Raises ConfigErrors with every problem of every file.
    """
    definitions: list[Definition] = []
    problems: list[ConfigProblem] = []
    for path in workflow_files(folder) if service is not None or folder.is_dir() else ():
        try:
            definitions.append(_load_workflow(path, folder, service, check))
        except ConfigErrors as error:
            problems += error.problems
    if problems:
        raise ConfigErrors(dict.fromkeys(problems))  # one of a file that many extend is one problem
    return definitions


def load_changed(path: Path, service: ServiceSettings, check: Check, name: str | None = None) -> Definition:
    """Load a workflow's file that may stand anywhere, as if it were the workflow of this name. Raises ConfigErrors.

    `name`: None means what its place in the folder of workflows or, outside it, its `id` says.
    """
    folder = service.server.workflows.resolve()
    inside = path.resolve().is_relative_to(folder)
    definition = _load_workflow(path, path.parent, service, check, is_elsewhere=True)
    named = name or (name_of(path.resolve(), folder) if inside else definition.id)
    return definition.in_folder(named.rpartition("/")[0]) if "/" in named else definition


def workflow_files(folder: Path) -> list[Path]:
    """List the workflow files of the folder and its sub-folders. Raises ConfigErrors if the folder can't be read."""
    return [path for path in _toml_files(folder) if not path.name.endswith(TESTS) and not path.name.startswith("_")]


def name_of(path: Path, folder: Path) -> str:
    """Return the name of a workflow's file, or of its tests, below the folder: `team-a/pay`."""
    return path.relative_to(folder).as_posix().removesuffix(".toml").removesuffix(".test")


def find_tests(folder: Path) -> list[Path]:
    """List the folder's files of policy tests. Raises ConfigErrors for a folder that can't be read."""
    return [path for path in _toml_files(folder) if path.name.endswith(TESTS)]


def _toml_files(folder: Path) -> list[Path]:
    """List the folder's *.toml. Raises ConfigErrors for an unreadable folder, which would look empty otherwise."""
    try:
        return visible(folder, ".toml")
    except FileNotFoundError:
        what = "this folder of workflows doesn't exist"
    except OSError as error:
        what = f"can't be read: {error.strerror or 'unknown'}"
    raise ConfigErrors([ConfigProblem(str(folder), 1, "file", what)])


def visible(folder: Path, suffix: str) -> list[Path]:
    """List the files with this suffix in the folder and its sub-folders, sorted. Raises OSError.

    Left out are dotfiles, which editors and file systems put there, links to folders, and what is too deep.
    """
    found = []
    for path, depth in _walk(folder):
        if path.suffix == suffix and not path.name.startswith(".") and depth <= DEEPEST_FOLDER:
            found.append(path)
    return sorted(found)


def _walk(folder: Path, depth: int = 0) -> Iterator[tuple[Path, int]]:
    """Yield everything in the folder and its sub-folders, but for Python packages, each with its depth."""
    for path in sorted(folder.iterdir()):
        if not _is_entered(path):
            yield path, depth
        elif depth <= DEEPEST_FOLDER:
            with suppress(OSError):
                yield from _walk(path, depth + 1)


def _is_entered(path: Path) -> bool:
    is_package = path.name.startswith((".", "__")) or (path / "__init__.py").exists()
    return path.is_dir() and not path.is_symlink() and not is_package


def unread_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that look like workflows and aren't read, each with the reason."""
    extended = set[Path | None]()
    for path in workflow_files(folder):
        with suppress(ConfigErrors, OSError):
            extended.add(_base_of(path, folder))
    for path, depth in _walk(folder):
        name = path.name.lower()
        if path.is_dir():
            if path.is_symlink() and not name.startswith("."):
                yield path, "isn't read: it is a link to a folder"
        elif ".toml" not in name and not name.endswith((".tml", ".yaml", ".yml")):
            continue
        elif path.suffix != ".toml":
            yield path, "isn't read: workflows are files that end with .toml"
        elif name.startswith("."):
            yield path, "isn't read: its name begins with a dot"
        elif depth > DEEPEST_FOLDER:
            yield path, f"isn't read: it is more than {DEEPEST_FOLDER} folders deep"
        elif name.startswith("_") and path not in extended:
            yield path, "isn't read: no workflow extends it, and a name that begins with _ is no workflow's"


def samples() -> Path:
    """Return the folder of the sample configuration: the source tree, or inside the installed package."""
    inside = Path(__file__).parent.parent / "samples"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent


def python_files(folder: Path) -> list[Path]:
    """Return the folder's *.py files; [] if it can't be read. Loading the *.toml files reports that."""
    try:
        return visible(folder, ".py")
    except OSError:
        return []


def _load_workflow(
    path: Path, folder: Path, service: ServiceSettings | None, check: Check | None, *, is_elsewhere: bool = False
) -> Definition:
    """Load one file. `is_elsewhere`: it is a changed copy, whose own name says nothing."""
    file, above = read_workflow(path, folder), path.relative_to(folder).parent
    if bad := next((part for part in above.parts if not _FOLDER.fullmatch(part)), None):
        what = f'the folder "{bad}" is part of the workflow\'s name: use letters, digits, "-", "_" and "."'
        raise ConfigErrors([ConfigProblem(file.name, 1, "file", what)])
    definition, wrong = file.fit(Definition, {})
    found = list(wrong)
    whole = definition or remainder(file.content, wrong, partial(_fit, Definition, {}))
    if whole is not None:
        rest: list[Finding] = []
        if whole.id != path.stem and not is_elsewhere:
            rest.append(Finding(("workflow", "id"), f'must be the file\'s name, "{path.stem}"', path.stem))
        elif above.parts and whole.id == TOOL_CALL:
            rest.append(Finding(("workflow", "id"), "is read only at the top of the folder of workflows"))
        elif above.parts and whole.id == SIMULATION:
            rest.append(Finding(("workflow", "id"), "ends the URL of another page; take another name in a sub-folder"))
        if check is not None and service is not None:
            checked = check(whole, service)
            rest += [replace(each, path=in_file(each.path, file.content, keep_last=True)) for each in checked]
        found += independent(rest, wrong)
    if definition is None or found:
        raise ConfigErrors(file.problems(found))
    definition = definition.in_folder(above.as_posix()) if above.parts else definition
    if service is None:
        return definition
    return definition.with_calendar(service.calendars).with_group_names(service.group_names)


def problems_of(path: Path, found: Iterable[Finding]) -> list[ConfigProblem]:
    """Give findings that were made after loading their lines in the file."""
    found = list(found)
    if not found:
        return []
    file = read_workflow(path, path.parent)
    return list(file.problems(replace(each, path=in_file(each.path, file.content, keep_last=True)) for each in found))


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed TOML file and the lines of its keys."""

    name: str
    content: dict[str, Any]
    places: Places
    base: TomlFile | None = None  # the file that it extends, with the lines of what is still in force of it

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        name = str(path)
        text = _text(path, name)
        places, readable, stopped_at = Places(), text, 0
        try:
            places = find_places(text)
        except UnreadableError as error:
            if error.message:
                raise ConfigErrors([ConfigProblem(name, error.line, "syntax", error.message)]) from None
            # tomllib reads only what was scanned, so nothing slow reaches it
            stopped_at = error.line
            readable = "\n".join(text.split("\n")[:stopped_at])
        try:
            content = tomllib.loads(readable)
        except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
            raise ConfigErrors([_syntax_problem(name, readable, error, stopped_at)]) from None
        if stopped_at:
            message = slip_of(text, stopped_at, 1, "") or "this is not TOML"
            raise ConfigErrors([ConfigProblem(name, stopped_at, "syntax", message)])
        return cls(name, content, places)

    def fit(self, model: type[Model], context: Mapping[str, Any]) -> tuple[Model | None, list[Finding]]:
        return _fit(model, context, self.content)

    def over(self, base: TomlFile) -> TomlFile:
        """Return this file merged with the one that it extends: tables merge, everything else is replaced."""
        replaced = set[Place]()
        content = _merged(base.content, self.content, (), replaced)
        lines = {place: line for place, line in base.places.lines.items() if not _is_below(place, replaced)}
        return replace(self, content=content, base=replace(base, places=Places(lines)))

    def file_of(self, path: Place) -> TomlFile:
        """Return the file that has a key: this one, or the one that it extends."""
        if self.base is not None and self.base.places.known(path) > self.places.known(path):
            return self.base
        return self

    def problems(self, found: Iterable[Finding]) -> Iterator[ConfigProblem]:
        for each in found:
            file = self.file_of(each.path)
            yield ConfigProblem(
                file.name,
                file.places.line_of(each.path),
                written(each.path) or "file",
                each.message,
                each.suggestion,
            )


def read_workflow(path: Path, folder: Path) -> TomlFile:
    """Read a workflow's file, merged with the one that it extends. Raises ConfigErrors.

    `folder`: the folder of all workflows, which no file may lead out of.
    """
    own = TomlFile.read(path)
    if EXTENDS not in own.content:
        return own
    named = own.content.pop(EXTENDS)
    if why := _unfit_base(named, path, folder):
        raise ConfigErrors(own.problems([Finding((EXTENDS,), why)]))
    base = TomlFile.read(path.parent / named)
    if EXTENDS in base.content:
        what = f"{path.name} extends this file, so it can't extend another"
        raise ConfigErrors(base.problems([Finding((EXTENDS,), what)]))
    return own.over(base)


def _unfit_base(named: object, path: Path, folder: Path) -> str:
    """Say why a file can't be extended; "" if it can."""
    if not isinstance(named, str) or not named.endswith(".toml") or "\\" in named or "\0" in named:
        return 'write the name of a file, like "_defaults.toml"'
    if Path(named).is_absolute() or ".." in Path(named).parts:
        return "names a file in this folder or one below, without .."
    base = path.parent / named
    if not base.is_file():
        return f"there is no {named} beside this file"
    if not base.resolve().is_relative_to(folder.resolve()):
        return "leads out of the folder of workflows"
    return "is this file itself" if base.resolve() == path.resolve() else ""


def _merged(base: dict[str, Any], own: dict[str, Any], at: Place, replaced: set[Place]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = _merged(base[key], value, (*at, key), replaced)
        else:
            merged[key] = value
            replaced.add((*at, key))
    return merged


def _is_below(place: Place, tops: Collection[Place]) -> bool:
    return any(place[:length] in tops for length in range(1, len(place) + 1))


def _fit(model: type[Model], context: Mapping[str, Any], content: dict[str, Any]) -> tuple[Model | None, list[Finding]]:
    try:
        return model.model_validate(content, context=dict(context)), []
    except ValidationError as error:
        return None, findings(error, model, content)


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        todo = "; `approvals-bot init` writes one, --config reads another" if name == "config.toml" else ""
        what = f"can't be read: {error.strerror or 'unknown'}{todo}"
        raise ConfigErrors([ConfigProblem(name, 1, "file", what)]) from None
    if len(content) > LARGEST_FILE:
        raise ConfigErrors([ConfigProblem(name, 1, "file", f"is larger than {LARGEST_FILE:,} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigErrors([ConfigProblem(name, line, "syntax", "is not UTF-8")]) from None


_FOLDER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")  # as a Slug
_LONG_NUMBER = re.compile(r"[0-9_]{4000,}")  # Python reads integers of up to 4,300 digits
_NUMBER = re.compile(r"\d+")


def _syntax_problem(name: str, text: str, error: Exception, stopped_at: int) -> ConfigProblem:
    message, line, column = str(error), stopped_at, 1
    if isinstance(error, tomllib.TOMLDecodeError):  # "Invalid value (at line 3, column 5)", or "(at end of document)"
        message, _, place = message.rpartition(" (")
        numbers = [int(number) for number in _NUMBER.findall(place)]
        line, column = numbers if len(numbers) == 2 else (stopped_at or text.count("\n") + 1, 1)
        message = slip_of(text, line, column, message) or message
    elif isinstance(error, RecursionError):
        message = "is nested too deeply"
    else:
        message = "this number is too long"
        number = _LONG_NUMBER.search(text)
        line = text.count("\n", 0, number.start()) + 1 if number else line
    return ConfigProblem(name, line or 1, "syntax", message[:1].lower() + message[1:])
