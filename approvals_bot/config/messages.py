"""What is wrong with a configuration, said so that it can be mended without a search."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from approvals_bot.approvals.base import nearest, one_of
from approvals_bot.config.positions import Path
from approvals_bot.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a key. `path` may name a key that is missing; it is then looked up where its table begins.

    `about`: what else it was found by, such as another table ("fields") or the addresses that it counts.
    """

    path: Path
    message: str
    suggestion: str = ""
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A finding with its place. `key` is "file" or "syntax" for what has no key."""

    file: str
    line: int
    key: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        meant = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.file}:{self.line}: {self.key}: {self.message}{meant}"


class ConfigErrors(ConfigError):
    """The configuration can't be loaded. The operator's to mend; `problems` has every one, with file, line and key."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.file, each.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def written(path: Path) -> str:
    """A path as people write it: `stage[0].from`, `people."ann@acme.eu".manager`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.fullmatch(part) else '"' + part.encode("unicode_escape").decode()[:80] + '"'
            text += f".{shown}" if text else shown
    return text


# Pydantic's errors, in the words of the person who wrote the file: where in the file, and what to write instead.

_EXPECTED = re.compile(r"'([^']*)'")
_MUST_BE = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": 'a text, in "quotes"',
    "tuple_type": 'a list, like ["…", "…"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


@dataclass(frozen=True, slots=True)
class _Mistake:
    """One of pydantic's errors: either what the value must be, or `what` is wrong with it."""

    path: Path
    must_be: str = ""
    what: str = ""
    suggestion: str = ""


def findings(error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any]) -> list[Finding]:
    """Return one finding for each place, in the order of the errors. Alternatives that all failed are one finding."""
    places: dict[Path, list[_Mistake]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # its elements are wrong, which is said of each
        mistake = _mistake(details, model, raw)
        places.setdefault(mistake.path, []).append(mistake)
    return [_finding(path, mistakes) for path, mistakes in places.items()]


def _finding(path: Path, mistakes: Sequence[_Mistake]) -> Finding:
    """Say all of them at once: "must be … or a whole number"."""
    first = mistakes[0]
    message = f"must be {first.must_be}" if first.must_be else first.what
    others = dict.fromkeys(each.must_be or each.what for each in mistakes)
    others.pop(first.must_be or first.what)
    suggestion = next((each.suggestion for each in mistakes if each.suggestion), "")
    return Finding(path, " or ".join([message, *others]), suggestion)


def _mistake(details: ErrorDetails, model: type[BaseModel], raw: Mapping[str, Any]) -> _Mistake:
    typed, inside = _follow(model, details["loc"])
    context, given = details.get("ctx", {}), details.get("input")
    path = in_file(typed, raw, keep_last=details["type"] in ("missing", "extra_forbidden"))
    match details["type"]:
        case "refused":
            return _Mistake((*path, *context["at"]), what=context["what"], suggestion=context["suggestion"])
        case "missing":
            return _Mistake(path, what="is missing")
        case "extra_forbidden":
            return _Mistake(path, what="unknown key", suggestion=nearest(typed[-1], _keys(inside)))
        case "literal_error":
            expected = _EXPECTED.findall(str(context.get("expected", "")))
            return _Mistake(path, must_be=one_of(expected), suggestion=nearest(given, expected))
        case "string_too_short" | "too_short":
            return _Mistake(path, what="must not be empty")
        case "string_too_long" | "too_long":
            return _Mistake(path, what=f"is too long; at most {context['max_length']:,} are allowed")
        case "string_pattern_mismatch":
            return _Mistake(path, what=_form(str(context["pattern"])))
        case "greater_than_equal":
            return _Mistake(path, must_be=f"at least {context['ge']}")
        case "less_than_equal":
            return _Mistake(path, must_be=f"at most {context['le']}")
        case kind:
            return _Mistake(path, must_be=_MUST_BE.get(kind, ""), what=details["msg"])


def _form(pattern: str) -> str:
    match pattern:
        case _ if pattern.startswith("^[A-Za-z0-9](?:"):
            return "has letters, digits, dots, dashes and underscores, and begins and ends with a letter or a digit"
        case _ if pattern.startswith("^[A-Za-z]["):
            return "a field's name has letters, digits and underscores, and begins with a letter"
        case _ if pattern.startswith("^(#"):
            return 'write a channel like "#deploys", or its id'
        case _ if pattern.startswith("^[UW]"):
            return 'write a Slack user id like "U012AB3CD"'
        case _ if pattern.startswith("^@"):
            return 'write a Slack user group like "slack:@sre"'
        case _ if pattern.startswith("^[A-Z]{3}"):
            return 'write a currency like "EUR"'
        case _:
            return f"does not have the form {pattern}"


def in_file(path: Path, raw: Any, keep_last: bool) -> Path:
    """Leave out what the file doesn't say, such as the seat of a stage that is one seat itself.

    `keep_last`: the path names a key, which stays even if it is missing.
    """
    kept: list[int | str] = []
    for at, part in enumerate(path):
        there = part in raw if isinstance(raw, dict) else isinstance(raw, list) and part in range(len(raw))
        if there:
            kept.append(part)
            raw = raw[part]
        elif keep_last and at == len(path) - 1:
            kept.append(part)
    return tuple(kept)


def _follow(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Path, Any]:
    """Walk the types along a location, leaving out what is no key: tags of unions and "[key]". (path, last table)."""
    path: list[int | str] = []
    kind: Any = model
    table: Any = model
    rest = list(loc)
    while rest:
        kind, rest = _settle(kind, rest)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind.model_rebuild()  # it may name types that are defined below it
            table = kind
        if not rest:
            break
        part = rest.pop(0)
        if part == "[key]":
            continue
        path.append(part)
        kind = _step(kind, part)
    return tuple(path), table


def _settle(kind: Any, rest: list[int | str]) -> tuple[Any, list[int | str]]:
    """Open Annotated and unions, consuming the tag that says which member it was."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, UnionType):
            members = [member for member in get_args(kind) if member is not NoneType]
            tagged = {tag: member for member in members for tag in _tags(member)}
            if rest and rest[0] in tagged:
                kind, rest = tagged[str(rest[0])], rest[1:]
            elif len(members) == 1:
                kind = members[0]
            else:
                return kind, rest[1:]
        else:
            return kind, rest


def _tags(member: Any) -> Iterator[str]:
    if get_origin(member) is Annotated:
        yield from (each.tag for each in get_args(member)[1:] if isinstance(each, Tag))


def _step(kind: Any, part: int | str) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, member in kind.model_fields.items():
            if part in (name, member.alias):
                return Annotated[member.annotation, *member.metadata] if member.metadata else member.annotation
        return None
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    return arguments[0] if arguments else None


def _keys(model: Any) -> list[str]:
    names = [member.alias or name for name, member in model.model_fields.items()]
    return [*names, *getattr(model, "also_written", ())]


# What is left of a file when its wrong keys are taken out, so that the rest can be checked at the same time.

Model = TypeVar("Model", bound=BaseModel)
Fit = Callable[[dict[str, Any]], tuple[Model | None, list[Finding]]]
"""Fits a file's content to a model: the model, or what is wrong."""

_NOBODY = "nobody@example.invalid"
_STAND_INS: dict[str, Any] = {"from": [_NOBODY], "to": [_NOBODY], "request": ["*"]}
_ROUNDS = 5  # taking one key out can make another one missing, and so on outwards
_TEXTS = frozenset({"when", "title", "key", "text", "json"})  # they name fields


def remainder(content: Mapping[str, Any], wrong: Iterable[Finding], fit: Fit[Model]) -> Model | None:
    """The model of what is left. None when nothing is, or an element of a list would have to go (lines would shift)."""
    rest = copy.deepcopy(dict(content))
    found = list(wrong)
    for _ in range(_ROUNDS):
        if not all(_take_out(rest, each.path) for each in found):
            return None
        model, found = fit(rest)
        if model is not None:
            return model
    return None


def independent(found: Iterable[Finding], wrong: Iterable[Finding]) -> Iterator[Finding]:
    """The findings that don't follow from what was taken out: a lost field makes names in texts unknown."""
    told = {each.path for each in wrong}
    lost_fields = any({"fields", "ask"} & set(path) for path in told)
    lost_stages = any(path[:1] == ("stage",) and len(path) < 3 for path in told)
    for each in found:
        in_text = bool(_TEXTS & set(each.path))
        follows_from_field = lost_fields and (in_text or "fields" in each.about)
        follows_from_stage = lost_stages and (in_text or each.path[:1] == ("stage",))
        if not (each.path in told or _NOBODY in each.about or follows_from_field or follows_from_stage):
            yield each


def _take_out(rest: dict[str, Any], path: Path) -> bool:
    """Remove a key, or put a stand-in where one is missing. False if that can't be done."""
    if not path:
        return False
    *around, last = path
    table: Any = rest
    for part in around:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(table, list):
        return _take_out(rest, tuple(around))  # a wrong element takes its whole list along
    if not isinstance(table, dict):  # written in short, like `price = "money"`: it goes as a whole
        return bool(around) and _take_out(rest, tuple(around))
    if last in table:
        del table[last]
    elif last in _STAND_INS:
        table[last] = _STAND_INS[str(last)]
    else:  # what is missing can't be made up, so its table goes
        return bool(around) and not isinstance(around[-1], int) and _take_out(rest, tuple(around))
    return True
