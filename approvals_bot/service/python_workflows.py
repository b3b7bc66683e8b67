"""Python workflows: the folder's *.py files, imported, and matched with the TOML files that offer them.

A TOML file with `run = "module:function"` gives a function a form and a list of requesters. Whether the two match is
checked on loading, by validating an example of each field against the function's own types.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from approvals_bot.approvals import fields
from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.durations import duration_text, parse_duration
from approvals_bot.approvals.field_specs import FieldName, FieldSpec, item_of
from approvals_bot.approvals.policy import Definition
from approvals_bot.config.load import python_files, samples
from approvals_bot.config.messages import ConfigProblem, Finding
from approvals_bot.config.schedules import input_faults
from approvals_bot.durable.core.annotations import check_annotations_of, signature_of
from approvals_bot.durable.core.api import Workflow
from approvals_bot.durable.core.signature import Signature
from approvals_bot.durable.core.steps import check_limits_of
from approvals_bot.errors import AnnotationError, DefinitionError, InvalidPayloadError, SerializationError

PACKAGE = "approvals_bot_workflows"
"""The package that the folder's files are imported into, so their names can't clash with installed modules."""


FRAMEWORKS = ("pydantic_ai",)
"""The packages of extras that samples import."""


class _SourceLoader(SourceFileLoader):
    """Compiles the source that is there now, and leaves nothing beside it.

    A kept `.pyc` counts as current while the file's size and its time in seconds are the same. Images and editors make
    files for which both are, though their text is another.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@dataclass(frozen=True, slots=True)
class Program:
    """A workflow that a Python file defines."""

    workflow: Workflow[Any, Any]
    file: Path
    attribute: str
    folder: str = ""  # below that of all workflows

    @property
    def line(self) -> int:
        return int(self.workflow.function.__code__.co_firstlineno)

    def is_meant_by(self, run: str) -> bool:
        module, _, function = run.partition(":")
        return module == self.file.stem and function in (self.attribute, self.workflow.name)


def import_programs(
    folder: Path, limits: Collection[str] | None = None, built_in: Sequence[Path] = ()
) -> tuple[list[Program], list[ConfigProblem]]:
    """Import the folder's *.py files. Returns their workflows, and a problem for each file that failed.

    `limits`: those that the steps may have. None: they aren't checked. `built_in`: files of the package, besides.
    An unchanged sample whose framework isn't installed is left out.
    """
    programs: list[Program] = []
    problems: list[ConfigProblem] = []
    for file in (*python_files(folder), *built_in):
        beside = file.parent.relative_to(folder).as_posix() if file.is_relative_to(folder) else "."
        above = "" if beside == "." else beside
        name = ".".join((PACKAGE, *Path(above).parts, file.stem))
        loader = _SourceLoader(name, str(file))
        spec = spec_from_file_location(name, file, loader=loader)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        try:
            loader.exec_module(module)
            check_annotations_of(name)
            check_limits_of(name, limits)
        except (AnnotationError, DefinitionError) as error:
            where = str(file) if Path(error.file) == file.absolute() else error.file
            key = "annotation" if isinstance(error, AnnotationError) else "step"
            problems.append(ConfigProblem(where, error.line, key, error.problem))
            continue
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a broken file must not keep the others from loading
            if isinstance(error, ImportError) and error.name in FRAMEWORKS and _is_sample(file):
                continue
            what = f"can't be imported: {type(error).__name__}: {_first_line(error)}"
            problems.append(ConfigProblem(str(file), _line_of(error, file), "import", what))
            continue
        programs += [
            Program(made, file, attribute, above)
            for attribute, made in vars(module).items()
            if isinstance(made, Workflow) and made.function.__module__ == name
        ]
    return programs, problems


def _is_sample(file: Path) -> bool:
    sample = samples() / "workflows" / file.name
    return sample.is_file() and sample.read_bytes() == file.read_bytes()


def _first_line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return next(iter(text.splitlines()), "")


def _line_of(error: BaseException, file: Path) -> int:
    """Return the line of this file that failed; 1 if it failed before any line ran."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno or 1
    line, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def find_program(run: str, programs: Sequence[Program], folder: str = "") -> Program | Finding:
    """Return the program that `run = "module:function"` names, or a finding if there is none.

    `folder`: the sub-folder of the file that names it. Its module is beside it.
    """
    programs = [program for program in programs if program.folder == folder]
    for program in programs:
        if program.is_meant_by(run):
            return program
    module, _, function = run.partition(":")
    inside = [program.attribute for program in programs if program.file.stem == module]
    if inside:
        near = nearest(function, inside)
        what = f"{module}.py has no @workflow named {function}"
        return Finding(("workflow", "run"), what, f"{module}:{near}" if near else "")
    near = nearest(run, [f"{program.file.stem}:{program.attribute}" for program in programs])
    return Finding(
        ("workflow", "run"), f"no {module}.py with a @workflow was found in {folder or 'the workflows folder'}", near
    )


def fit(definition: Definition, program: Program) -> tuple[Definition, list[Finding]]:
    """Match a definition with its function. Without fields in the file, they come from the function's type.

    Returns the definition, and a finding for each mismatch.
    """
    signature = program.workflow.signature
    parameters = signature_of(program.workflow.function).parameters
    own = [name for name in parameters if not (name == "settings" and signature.takes_bound)]
    found = list(_settings(definition, program))
    if more := [name for name in own[1:] if _is_needed(parameters[name])]:
        what = (
            f"{definition.workflow.run} needs more than the fields: {', '.join(more)} (one argument must take them all)"
        )
        return definition, [*found, Finding(("workflow", "run"), what)]
    if not own:
        if definition.fields:
            found.append(Finding(("fields",), f"{definition.workflow.run} has no argument to take them"))
        return definition, found
    members = _members(signature.annotation(own[0]))
    if members is None:
        return definition, found
    if definition.fields:
        return definition, [*found, *_fields(definition.fields, members)]
    derived = derive_fields({each.name: (each.kind, each.default, each.is_needed) for each in members.all})
    return definition.model_copy(update={"fields": derived}), found


def scheduled_input(definition: Definition, program: Program) -> Iterator[Finding]:
    """Yield what the function refuses of the input of the file's schedules."""
    signature = program.workflow.signature
    first = signature.first_parameter()
    for at, schedule in enumerate(definition.schedule):
        if first is None:
            if schedule.input:
                yield Finding(("schedule", at, "input"), f"{definition.workflow.run} takes no input")
            continue
        given, refused = schedule.input, list(input_faults(("schedule", at), schedule, definition.fields))
        if definition.fields:
            yield from refused
            if refused:
                continue
            given = fields.dump(definition.fields, fields.values(definition.fields, given))
        try:
            signature.encode_call((with_durations(signature.annotation(first), given),), {})
        except InvalidPayloadError as error:
            for fault in error.errors:
                yield Finding(("schedule", at, "input", *fault["loc"]), fault["msg"])
        except SerializationError as error:
            yield Finding(("schedule", at, "input"), str(error))


def _is_needed(parameter: inspect.Parameter) -> bool:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variable


@dataclass(frozen=True, slots=True)
class _Member:
    """One field of the type that takes the form's input. `default`: a value, or PydanticUndefined."""

    name: str
    kind: Any
    default: Any
    is_needed: bool


@dataclass(frozen=True, slots=True)
class _Members:
    type: str
    all: tuple[_Member, ...]
    takes_others: bool

    def get(self, name: str) -> _Member | None:
        return next((member for member in self.all if member.name == name), None)


def _members(kind: Any) -> _Members | None:
    """Return the fields of a model or dataclass; None for any other type. Those validate their input themselves."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, BaseModel):
        members = tuple(
            _Member(
                info.alias or name,
                Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation,
                info.default,
                info.is_required(),
            )
            for name, info in kind.model_fields.items()
        )
        return _Members(kind.__name__, members, kind.model_config.get("extra") == "allow")
    if dataclasses.is_dataclass(kind):
        return _Members(kind.__name__, tuple(_of_dataclass(kind)), takes_others=False)
    return None


def _of_dataclass(kind: type) -> Iterator[_Member]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    for each in dataclasses.fields(kind):
        if each.init:
            default = each.default if each.default is not dataclasses.MISSING else PydanticUndefined
            has_none = default is PydanticUndefined and each.default_factory is dataclasses.MISSING
            yield _Member(each.name, hints.get(each.name, Any), default, has_none)


def _fields(fields: Mapping[str, FieldSpec], members: _Members) -> Iterator[Finding]:
    for name, spec in fields.items():
        member = members.get(name)
        if member is None:
            if not members.takes_others:
                near = nearest(name, [each.name for each in members.all])
                yield Finding(("fields", name), f"{members.type} has no such field", near)
            continue
        for example in _examples(spec):
            if spec.type == "duration" and _wants_duration(member.kind):
                continue
            if _is_refused(example, member.kind, is_text=spec.type in ("string", "text", "email", "url", "person")):
                yield Finding(("fields", name), _unfit(spec, example, member, members.type))
                break
        else:
            if not spec.required and spec.default is None and _is_refused(None, member.kind):
                what = f"is optional here, but {members.type}.{name} takes no null; give it a default"
                yield Finding(("fields", name), what)
    for member in members.all:
        if member.is_needed and member.name not in fields:
            yield Finding(("fields", member.name), f"is missing; {members.type} needs it")


def with_durations(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parse durations ("1h30m") in the input, where the type that takes it has a timedelta.

    A text that isn't a duration stays as it is: the type itself will refuse it.
    """
    members = _members(kind)
    read = dict(given)
    for member in members.all if members is not None else ():
        value = given.get(member.name)
        if isinstance(value, str) and _wants_duration(member.kind):
            with suppress(ValueError):
                read[member.name] = parse_duration(value)
    return read


def _wants_duration(kind: Any) -> bool:
    """Return whether the type is a timedelta, perhaps optional or annotated, and takes no text."""
    if get_origin(kind) is Annotated:
        return _wants_duration(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return str not in get_args(kind) and any(_wants_duration(one) for one in get_args(kind))
    return kind is timedelta


_EXAMPLES: dict[str, Any] = {
    "string": "a text",
    "text": "a text",
    "integer": 1,
    "decimal": "1.5",
    "money": "1.50",
    "boolean": True,
    "date": "2026-11-05",
    "datetime": "2026-11-05T14:00:00Z",
    "duration": "1h30m",
    "email": "ann@acme.eu",
    "person": "ann@acme.eu",
    "url": "https://acme.eu/",
    "file": {"id": "file_1", "name": "plan.pdf", "size": 1, "sha256": "", "type": "application/pdf"},
}
"""An example of each type, as workflows receive it."""


def _examples(spec: FieldSpec) -> Iterable[Any]:
    if spec.type == "list":
        return ([each] for each in _examples(item_of(spec)))
    return spec.values if spec.values is not None else (_EXAMPLES[spec.type],)


_OF_TYPE = ("_type", "_parsing", "literal_error", "enum", "int_from_float")
_OF_TEXTS = ("uuid_parsing", "url_parsing")  # some texts are valid, and the type itself knows which


def _is_refused(value: Any, kind: Any, is_text: bool = False) -> bool:
    """Return whether the type can't take this kind of value. Bounds and the author's own validators don't count."""
    try:
        TypeAdapter(kind).validate_python(value)
    except PydanticUserError:
        return False
    except ValidationError as error:
        kinds = [each["type"] for each in error.errors(include_url=False, include_input=False)]
        return all(each.endswith(_OF_TYPE) and not (is_text and each in _OF_TEXTS) for each in kinds)
    return False


def _unfit(spec: FieldSpec, example: Any, member: _Member, owner: str) -> str:
    wants = member.kind.__name__ if isinstance(member.kind, type) else str(member.kind).replace("typing.", "")
    if spec.type == "enum":
        return f'"{example}" is not a value of {owner}.{member.name} ({wants})'
    return f"a value of type {spec.type} is passed as {example!r}, which {owner}.{member.name} ({wants}) doesn't take"


def _settings(definition: Definition, program: Program) -> Iterator[Finding]:
    signature = program.workflow.signature
    if not signature.takes_bound:
        if definition.settings:
            yield Finding(("settings",), f"{definition.workflow.run} has no argument named settings")
        return
    try:
        TypeAdapter(signature.annotation("settings")).validate_python(definition.settings)
    except PydanticUserError:
        return
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            message = "is missing" if fault["type"] == "missing" else fault["msg"][:1].lower() + fault["msg"][1:]
            yield Finding(("settings", *fault["loc"]), message)


_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "decimal",
    Decimal: "decimal",
    datetime: "datetime",
    date: "date",
    timedelta: "duration",
}
_LONGEST_TEXT = 50_000  # characters of a str; the type's own bounds are checked by the type

_FORM: TypeAdapter[dict[str, FieldSpec]] = TypeAdapter(dict[FieldName, FieldSpec], config=ConfigDict(defer_build=True))


def derive_fields(members: Mapping[str, tuple[Any, Any, bool]]) -> dict[str, FieldSpec]:
    """Derive fields from these members (type, default, whether it is required).

    Returns {} if one of them can't be shown in a form, such as a list: then only the type checks the input.
    """
    described: dict[str, dict[str, Any]] = {}
    for name, (kind, default, is_needed) in members.items():
        spec = _described(kind, default, is_needed)
        if spec is None:
            return {}
        described[name] = spec
    try:
        return _FORM.validate_python(described, context={})  # as in a file
    except ValidationError:
        return {}


def _described(kind: Any, default: Any, is_needed: bool) -> dict[str, Any] | None:
    bare, takes_null = _bare(kind)
    spec = _type_of(bare)
    if spec is None:
        return None
    if is_needed:
        return spec
    if default is None and takes_null:
        return {**spec, "required": False}
    if default is None or default is PydanticUndefined:
        return None  # a default factory: no form can show its value
    shown = (
        duration_text(default)
        if isinstance(default, timedelta)
        else TypeAdapter(bare).dump_python(default, mode="json")
    )
    return {**spec, "default": shown}


def _bare(kind: Any) -> tuple[Any, bool]:
    """Return the type without Annotated and None, and whether None was one of its members."""
    takes_null = False
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            members = [member for member in get_args(kind) if member is not NoneType]
            takes_null = takes_null or len(members) < len(get_args(kind))
            if len(members) != 1:
                return kind, takes_null
            kind = members[0]
        else:
            return kind, takes_null


def _type_of(kind: Any) -> dict[str, Any] | None:
    if get_origin(kind) is Literal:
        return _enum(get_args(kind))
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Enum):
        return _enum([member.value for member in kind])
    if kind is str:
        return {"type": "string", "max_length": _LONGEST_TEXT}
    return {"type": _TYPES[kind]} if kind in _TYPES else None


def _enum(values: Any) -> dict[str, Any] | None:
    return {"type": "enum", "values": list(values)} if all(isinstance(value, str) for value in values) else None


PLAIN_JSON = ("string", "integer", "number", "boolean", "array", "null")
"""The types that JSON has besides objects."""


def takes_whole_input(signature: Signature) -> bool:
    """Return whether the input is the workflow's only argument (a model, a dataclass, a dict).

    Otherwise it has the arguments by name.
    """
    parameters = list(signature.called.parameters.values())
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY) for each in parameters):
        return True
    return len(parameters) == 1 and _takes_objects(signature.annotation(parameters[0].name))


def arguments_by_name(signature: Signature, given: Mapping[str, JsonValue]) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and named arguments. Raises InvalidPayloadError for unknown and missing ones."""
    known = signature.called.parameters
    faults = [
        {"loc": ["input", name], "msg": "the workflow has no such argument"} for name in given if name not in known
    ]
    faults += [
        {"loc": ["input", name], "msg": "is required"}
        for name, parameter in known.items()
        if name not in given and parameter.default is inspect.Parameter.empty
    ]
    if faults:
        raise InvalidPayloadError(faults, "input")
    positional, named = list[Any](), dict[str, Any]()
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    return positional, named


def _takes_objects(annotation: Any) -> bool:
    """Return whether the type takes objects, by its JSON schema. A type without a schema counts as such."""
    with suppress(PydanticUserError):
        return not _is_plain(TypeAdapter(annotation).json_schema())
    return True


def _is_plain(schema: Mapping[str, Any]) -> bool:
    if "anyOf" in schema:
        return all(_is_plain(each) for each in schema["anyOf"])
    return schema.get("type") in PLAIN_JSON
