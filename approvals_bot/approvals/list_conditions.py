"""Lists in conditions: `paths.any("infra/**")`, `paths.all("docs/**")`, `reviewers.count >= 2`.

Each such part gets a name of its own before rule-engine reads the condition, and its value is computed from the list.
A pattern becomes one of pydantic's regular expressions, which take linear time whatever they are compared with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, TypeAdapter, ValidationError

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.circumstances import ConditionError
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.files import StoredFile
from approvals_bot.approvals.reasons import noun, shortened, the

What = Literal["any", "all", "count"]
PARTS: tuple[What, ...] = ("any", "all", "count")

_PART = re.compile(
    r"""
      "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | (?<![\w.$])(?P<name>[A-Za-z]\w*)\s*\.\s*(?P<what>[A-Za-z_]\w*)
      (?:\s*\(\s*(?P<pattern>"[^"\\\n]*"|'[^'\\\n]*')?\s*\))?""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class AboutList:
    """What a condition asks about a list: how many items it has, or whether one of them, or all, match a pattern."""

    field: str
    what: What
    spec: FieldSpec
    pattern: str = ""

    def of(self, items: Sequence[Any]) -> bool | int:
        match self.what:
            case "count":
                return len(items)
            case "any":
                return any(matches(self.pattern, each) for each in texts_of(items))
            case "all":
                return bool(items) and all(matches(self.pattern, each) for each in texts_of(items))

    def sentence(self, items: Sequence[Any], spec: FieldSpec) -> str:
        """Say why a pattern matches or doesn't: `“infra/main.tf” of the paths matches infra/**`."""
        called, texts = the(self.field, spec), texts_of(items)
        first = next((each for each in texts if matches(self.pattern, each) is (self.what == "any")), None)
        match self.what, first:
            case "any", None:
                return f"none of {called} matches {self.pattern}"
            case "any", str():
                return f"“{shortened(first)}” of {called} matches {self.pattern}"
            case _, str():
                return f"“{shortened(first)}” of {called} doesn't match {self.pattern}"
            case _:
                return f"all of {called} match {self.pattern}" if texts else f"nothing is in {called}"


def texts_of(items: Iterable[Any]) -> list[str]:
    """Return what patterns are compared with: the texts themselves, and of files their names."""
    return [each.name if isinstance(each, StoredFile) else str(each) for each in items]


def about_lists(text: str, fields: Mapping[str, FieldSpec]) -> tuple[str, dict[str, AboutList]]:
    """Put a name into the place of each part about a list. Returns the text, and what the names stand for."""
    about: dict[str, AboutList] = {}

    def named(found: re.Match[str]) -> str:
        name, what = found["name"], found["what"]
        spec = fields.get(name) if name is not None else None
        if spec is None or spec.type != "list":
            if what in PARTS:
                _refuse_no_list(name, what, fields)
            return found[0]
        if what not in PARTS:
            raise ConditionError(f"a list has no .{what}", nearest(f".{what}", [f".{each}" for each in PARTS]))
        one = _part(found, name, spec)
        known = next((each for each, other in about.items() if other == one), f"_list_{len(about)}")
        about[known] = one
        return known

    return _PART.sub(named, text), about


def _refuse_no_list(name: str, what: str, fields: Mapping[str, FieldSpec]) -> None:
    if name == "requester":
        return
    if name in fields:
        raise ConditionError(f"{name} is no list, so it has no .{what}")
    near = nearest(name, [each for each, spec in fields.items() if spec.type == "list"])
    raise ConditionError(f"no field is called {name}", near and f"{near}.{what}")


def _part(found: re.Match[str], name: str, spec: FieldSpec) -> AboutList:
    what: Any = found["what"]
    if what == "count":
        if "(" in found[0]:
            raise ConditionError(f"write {name}.count without parentheses", f"{name}.count")
        return AboutList(name, what, FieldSpec(type="integer", label=f"Number of {noun(name, spec)}"[:75]))
    if found["pattern"] is None:
        raise ConditionError(f"{name}.{what} needs a pattern", f'{name}.{what}("infra/**")')
    pattern = found["pattern"][1:-1]
    _check(pattern, spec)
    return AboutList(name, what, FieldSpec(type="boolean", label=f"{what} like {pattern}"[:75]), pattern)


def _check(pattern: str, spec: FieldSpec) -> None:
    if not pattern:
        raise ConditionError("the pattern is empty")
    for part in pattern.split("/"):
        if "**" in part and part != "**":
            raise ConditionError(f"in {pattern}, ** stands for whole folders; inside a name, write *")
    if spec.values is not None and not any(matches(pattern, value) for value in spec.values):
        raise ConditionError(f"no value is like {pattern}", nearest(pattern, spec.values) or ", ".join(spec.values[:8]))


def matches(pattern: str, text: str) -> bool:
    """Check a text against a pattern: `*` is anything but a `/`, `?` one character of it, `**` whole folders.

    `infra/**` matches `infra`, too.
    """
    try:
        _compiled(pattern).validate_python(text)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> TypeAdapter[str]:
    return TypeAdapter(Annotated[str, StringConstraints(pattern=rf"(?s)\A(?:{_expression(pattern)})\z")])


def _expression(pattern: str) -> str:
    found, is_first = "", True  # whether there is no slash before the next part
    parts = [part for at, part in enumerate(pattern.split("/")) if at == 0 or part != "**" or _before(pattern, at)]
    if parts == ["**"]:
        return ".*"
    for part in parts:
        if part == "**":
            found += "(?:.*/)?" if is_first else "(?:/.*)?"
        else:
            found += ("" if is_first else "/") + re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            is_first = False
    return found


def _before(pattern: str, at: int) -> bool:
    """Whether the part before this one is anything but `**`: two of those in a row are one."""
    return pattern.split("/")[at - 1] != "**"


def example_of(pattern: str) -> str:
    """Return a text that the pattern matches."""
    return pattern.replace("**", "x").replace("*", "x").replace("?", "x")
