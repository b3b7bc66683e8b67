"""Configuration errors that say where they are and how to fix them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from approvals_bot.approvals.base import nearest, one_of
from approvals_bot.approvals.delivery_policy import ACTION_KEYS
from approvals_bot.approvals.field_specs import CallType, FieldSpec, JsonType
from approvals_bot.config.positions import Path
from approvals_bot.config.slips import NEEDS, VALUES_MEANT, key_meant, need_meant
from approvals_bot.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a key. `path` may name a missing key, which is reported where its table begins.

    `about`: what else the finding depends on, such as another table ("fields") or the addresses that it counts.
    """

    path: Path
    message: str
    suggestion: str = ""
    about: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """A finding with its place. `key` is "file" or "syntax" where no key is at fault."""

    file: str
    line: int
    key: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        meant = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.file}:{self.line}: {self.key}: {self.message}{meant}"


class ConfigErrors(ConfigError):
    """The configuration can't be loaded. `problems` lists what to fix, each with file, line and key."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.file, each.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def written(path: Path) -> str:
    """Write a path as people would: `stage[0].from`, `people."ann@acme.eu".manager`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.fullmatch(part) else '"' + part.encode("unicode_escape").decode()[:80] + '"'
            text += f".{shown}" if text else shown
    return text


# Pydantic's errors, translated for people who write TOML: where in the file, and what to write instead.

_EXPECTED = re.compile(r"'([^']*)'")
_MUST_BE = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": 'text, in "quotes"',
    "tuple_type": 'a list, like ["…", "…"]',
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


@dataclass(frozen=True, slots=True)
class _Mistake:
    """One of pydantic's errors: what the value must be, or else `what` is wrong with it."""

    path: Path
    must_be: str = ""
    what: str = ""
    suggestion: str = ""
    given: Any = None


def findings(error: ValidationError, model: type[BaseModel], raw: Mapping[str, Any]) -> list[Finding]:
    """Return one finding for each place, in the order of the errors.

    A union whose members all failed is one finding.
    """
    places: dict[Path, list[_Mistake]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # its elements are wrong, and each has an error of its own
        mistake = replace(_mistake(details, model, raw), given=details["input"])
        places.setdefault(mistake.path, []).append(mistake)
    return [_finding(path, mistakes) for path, mistakes in places.items()]


def _finding(path: Path, mistakes: Sequence[_Mistake]) -> Finding:
    """Join the mistakes at one place: "must be … or a whole number"."""
    first = mistakes[0]
    if path[-1:] == ("need",) and len(mistakes) > 1:
        return Finding(path, NEEDS, need_meant(first.given) or nearest(first.given, ("all", "majority")))
    message = f"must be {first.must_be}" if first.must_be else first.what
    others = dict.fromkeys(each.must_be or each.what for each in mistakes)
    others.pop(first.must_be or first.what)
    suggestion = next((each.suggestion for each in mistakes if each.suggestion), "")
    return Finding(path, " or ".join([message, *others]), suggestion)


def _mistake(details: ErrorDetails, model: type[BaseModel], raw: Mapping[str, Any]) -> _Mistake:
    typed, inside, kind_there = _follow(model, details["loc"])
    context, given = details.get("ctx", {}), details.get("input")
    path = in_file(typed, raw, keep_last=details["type"] in ("missing", "extra_forbidden"))
    match details["type"]:
        case "refused":
            return _Mistake((*path, *context["at"]), what=context["what"], suggestion=context["suggestion"])
        case "action" if unknown := [key for key in given or () if key not in ACTION_KEYS]:
            meant = key_meant(unknown[0], ACTION_KEYS, given) or nearest(unknown[0], ACTION_KEYS)
            return _Mistake((*path, unknown[0]), what="unknown key", suggestion=meant)
        case "missing":
            return _Mistake(path, what=_MISSING.get(path[-1:], "is missing"))
        case "extra_forbidden":
            near, homes = nearest(typed[-1], _keys(inside)), homes_of(typed, model, given)
            if meant := key_meant(str(typed[-1]), _keys(inside), given):
                return _Mistake(path, what="unknown key", suggestion=meant)
            if homes and not get_close_matches(str(typed[-1]), [near], cutoff=SURE):
                return _Mistake(path, what=f"unknown key; {homes}")
            return _Mistake(path, what="unknown key", suggestion=near)
        case "literal_error":
            words = _EXPECTED.findall(str(context.get("expected", "")))
            expected = [word for word in words if word not in (*get_args(JsonType), *get_args(CallType))]
            if not expected:  # a literal that is no text
                return _Mistake(path, must_be=str(context["expected"]).lower())
            word = str(given).lower()
            known = (_OTHER_WORDS.get(word, ""), VALUES_MEANT.get((str(typed[-1]), word), ""))
            meant = next((each for each in known if each in expected), "")
            suggestion = meant or (nearest(given, expected) if len(expected) > 1 else "")
            return _Mistake(path, must_be=one_of(expected), suggestion=suggestion)
        case "string_too_short" | "too_short":
            return _Mistake(path, what="must not be empty")
        case "string_too_long" | "too_long":
            return _Mistake(path, what=f"is too long; at most {context['max_length']:,} are allowed")
        case "string_pattern_mismatch" if typed[-1:] == ("http",) and "://" in str(given):
            what = "takes the name of a target; put the URL into config.toml, as url of [http.NAME], and NAME here"
            return _Mistake(path, what=what)
        case "string_pattern_mismatch":
            pattern, text = str(context["pattern"]), str(given)
            is_channel = pattern.startswith("^(#") and re.fullmatch("[a-z0-9_-]{1,79}", text)
            return _Mistake(path, what=_form(pattern), suggestion=f"#{text}" if is_channel else "")
        case "greater_than_equal":
            return _Mistake(path, must_be=f"at least {context['ge']}")
        case "less_than_equal":
            return _Mistake(path, must_be=f"at most {context['le']}")
        case "tuple_type" if _has_tables(kind_there):
            return _Mistake(path, must_be="a list of tables", suggestion=f"[[{_header(path)}]]")
        case "dict_type" | "model_type" | "model_attributes_type" if isinstance(given, list) and _are_tables(given):
            return _Mistake(path, must_be="a table", suggestion=f"[{_header(path)}]")
        case "dict_type" | "model_type" | "model_attributes_type" if kind_there is FieldSpec:
            return _Mistake(path, must_be='a type, like "string", or a table, like { type = "string" }')
        case "dict_type" | "model_type" | "model_attributes_type" if _is_of_list(typed):
            return _Mistake(path, must_be=f"a table, like {{ {_example(kind_there)} }}")
        case "dict_type" | "model_type" | "model_attributes_type":
            return _Mistake(path, must_be="a table", suggestion=f"[{_header(path)}]")
        case "tuple_type" if isinstance(given, str) and given:
            parts = [part.strip() for part in given[:60].split(",")]
            return _Mistake(path, must_be=f"a list, like {json.dumps(parts, ensure_ascii=False)}")
        case kind:
            return _Mistake(path, must_be=_MUST_BE.get(kind, ""), what=details["msg"])


_MISSING: dict[Path, str] = {("seats",): 'is missing; write seats = [{ from = ["@group"], need = 1 }]'}
_OTHER_WORDS = {
    "accept": "approve",
    "address": "email",
    "amount": "money",
    "array": "list",
    "attachment": "file",
    "bool": "boolean",
    "choice": "enum",
    "currency": "money",
    "deny": "reject",
    "float": "decimal",
    "int": "integer",
    "link": "url",
    "mail": "email",
    "multiline": "text",
    "no": "reject",
    "number": "decimal",
    "people": "person",
    "select": "enum",
    "str": "string",
    "time": "datetime",
    "timestamp": "datetime",
    "user": "person",
    "users": "person",
    "yes": "approve",
}
"""What other programs call the types of fields and the choices, and what they are here."""

MOST_HOMES = 3  # a key that more tables have says nothing about what was meant
SURE = 0.8  # the likeness of two words of which one is surely the other, mistyped


def homes_of(typed: Path, model: type[BaseModel], given: Any) -> str:
    """Say where in the file an unknown key would be known: `in [clock]`; "" if nowhere, or in too many places."""
    key, here = typed[-1], _header(typed[:-1])
    if key == "extends":  # which is read before the model is
        return "it belongs at the top of the file, before all tables"
    if isinstance(given, dict) or (isinstance(given, list) and _are_tables(given)):
        headers = [name for name, _ in _tables(model) if name.strip("[]").rpartition(".")[2] == key]
        return f"write {' or '.join(headers)}" if 0 < len(headers) <= MOST_HOMES else ""
    homes = [name for name, table in _tables(model) if key in _keys(table) and name.strip("[]") != here]
    if "" in homes:
        return "it belongs at the top of the file, before all tables"
    return f"it belongs in {' or '.join(homes)}" if 0 < len(homes) <= MOST_HOMES else ""


@lru_cache
def _tables(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel]], ...]:
    """Return the tables that a file may have, by their headers; "" for the top of the file."""
    return (("", model), *_tables_below(model, ""))


def _tables_below(model: type[BaseModel], above: str) -> Iterator[tuple[str, type[BaseModel]]]:
    model.model_rebuild()
    for name, member in model.model_fields.items():
        path = f"{above}{member.alias or name}"
        for table, is_list in _models(member.annotation):
            yield (f"[[{path}]]" if is_list else f"[{path}]"), table
            yield from _tables_below(table, f"{path}.")


def _models(kind: Any, is_list: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    """Yield the tables that a value may be. Those with names of the author's choice aren't among them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind, is_list
    elif get_origin(kind) is tuple:
        yield from _models(get_args(kind)[0], is_list=True)
    elif get_origin(kind) in (Union, UnionType, Annotated):
        for member in get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind):
            yield from _models(member, is_list)


def _is_of_list(typed: Path) -> bool:
    return bool(typed) and isinstance(typed[-1], int)


def _example(kind: Any) -> str:
    """Return the beginning of a table of this type."""
    table, _ = _settle(kind, [])
    has_people = isinstance(table, type) and issubclass(table, BaseModel) and "from" in _keys(table)
    return 'from = ["@group"]' if has_people else "…"


def _header(path: Path) -> str:
    """Write the name of a table as its header has it: `stage.seat`, which is of the last stage."""
    return written(tuple(part for part in path if not isinstance(part, int)))


def _are_tables(given: list[Any]) -> bool:
    return bool(given) and all(isinstance(each, dict) for each in given)


def _has_tables(kind: Any) -> bool:
    """Return whether the elements of a list of this type are tables, so that the file has `[[…]]` for each."""
    element, _ = _settle(_step(_settle(kind, [])[0], 0), [])
    members = get_args(element) if get_origin(element) in (Union, UnionType) else (element,)
    plain = [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]
    return any(isinstance(member, type) and issubclass(member, BaseModel) for member in plain)


def _form(pattern: str) -> str:
    match pattern:
        case _ if pattern.startswith("^[A-Za-z0-9](?:"):
            return (
                "may have letters, digits, dots, dashes and underscores, and begins and ends with a letter or a digit"
            )
        case _ if pattern.startswith("^[A-Za-z]["):
            return "a field's name may have letters, digits and underscores, and begins with a letter"
        case _ if pattern.startswith("^(#"):
            return 'write a channel like "#deploys", in lower case, without spaces or dots, or its ID'
        case _ if pattern.startswith("^[UW]"):
            return 'write a Slack user ID like "U012AB3CD"'
        case _ if pattern.startswith("^@"):
            return 'write a Slack user group like "slack:@sre"'
        case _ if pattern.startswith("^(?:100|"):
            return 'a share like "50%"'
        case _ if pattern.startswith("^[A-Z]{3}"):
            return 'write a currency like "EUR"'
        case _:
            return f"does not match {pattern}"


def in_file(path: Path, raw: Any, keep_last: bool) -> Path:
    """Drop the parts of a path that aren't in the file, such as the seat of a stage that is its own seat.

    `keep_last`: the last part is a key that stays even if the file doesn't have it.
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


def _follow(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[Path, Any, Any]:
    """Walk the types along a pydantic location.

    Returns its keys, without union tags and "[key]", the last table, and the type at the location.
    """
    path: list[int | str] = []
    kind: Any = model
    table: Any = model
    rest = list(loc)
    while rest:
        kind, rest = _settle(kind, rest)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind.model_rebuild()  # its types may be defined below it
            table = kind
        if not rest:
            break
        part = rest.pop(0)
        if part == "[key]":
            continue
        path.append(part)
        kind = _step(kind, part)
    return tuple(path), table, kind


def _settle(kind: Any, rest: list[int | str]) -> tuple[Any, list[int | str]]:
    """Unwrap Annotated and unions, consuming the tag that names the member."""
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


# A file without its wrong keys, so that the rest can be checked in the same pass.

Model = TypeVar("Model", bound=BaseModel)
Fit = Callable[[dict[str, Any]], tuple[Model | None, list[Finding]]]
"""Validates a file's content. Returns the model, or None and what is wrong."""

_NOBODY = "nobody@example.invalid"
_PLACEHOLDERS: dict[str, Any] = {"from": [_NOBODY], "to": [_NOBODY], "request": ["*"]}
_ROUNDS = 5  # removing a key can invalidate the table around it, and so on outwards
_TEXTS = frozenset({"when", "title", "instructions", "key", "text", "json"})  # these refer to fields


def remainder(content: Mapping[str, Any], wrong: Iterable[Finding], fit: Fit[Model]) -> Model | None:
    """Build the model without the wrong keys.

    Returns None if nothing is left, or if an element of a list would have to go, which would shift the lines.
    """
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
    """Yield the findings that the removal of wrong keys didn't cause, such as unknown names of removed fields."""
    removed = {each.path for each in wrong}
    lost_fields = any({"fields", "ask"} & set(path) for path in removed)
    lost_stages = any(path[:1] == ("stage",) and len(path) < 3 for path in removed)
    for each in found:
        in_text = bool(_TEXTS & set(each.path))
        follows_from_field = lost_fields and (in_text or "fields" in each.about)
        follows_from_stage = lost_stages and (in_text or each.path[:1] == ("stage",))
        if not (each.path in removed or _NOBODY in each.about or follows_from_field or follows_from_stage):
            yield each


def _take_out(rest: dict[str, Any], path: Path) -> bool:
    """Remove a key, or add a placeholder for a missing one. Returns False if neither is possible."""
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
        return _take_out(rest, tuple(around))  # a wrong element removes the whole list
    if not isinstance(table, dict):  # a short form, like `price = "money"`, is removed as a whole
        return bool(around) and _take_out(rest, tuple(around))
    if last in table:
        del table[last]
    elif last in _PLACEHOLDERS:
        table[last] = _PLACEHOLDERS[str(last)]
    else:  # no placeholder would do, so the table goes
        return bool(around) and not isinstance(around[-1], int) and _take_out(rest, tuple(around))
    return True
