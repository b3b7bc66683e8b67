"""Templates: the operator's texts with the request's values in them.

`{{ amount }} for {{ purpose }}` is Jinja2 in its immutable sandbox, narrowed to what such a text needs: values, a few
filters, `if`. Loops, multiplication and whatever else can make much out of little are refused when the file is loaded,
names are checked then too, and a result that grows too long ends with an error.

A result is plain text. Whoever shows it escapes it. The same value is written as people read it in a title or message
("1,250.00 EUR", "Ann Ode") and as programs read it in a key or JSON ("1250.00", "ann@acme.eu").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined
from jinja2 import Template as Compiled
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from approvals_bot.approvals.shown import shown_date, shown_duration, shown_moment, shown_money
from approvals_bot.approvals.template_names import FILTERS, TESTS, read
from approvals_bot.approvals.template_names import TemplateError as TemplateError
from approvals_bot.approvals.values import Money, decimal_text
from approvals_bot.config.durations import duration_text
from approvals_bot.config.workflow import Definition

LONGEST_RESULT = 100_000  # characters; a text field has 50,000
LONGEST_LINE = 300  # characters of a title


# ── what a template may name ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Who:
    """A person, app or rule. Written by itself it is the name to people, the address to programs."""

    address: str = ""
    name: str = ""

    @property
    def email(self) -> str:
        return self.address if "@" in self.address else ""


@dataclass(frozen=True, slots=True)
class AboutRequest:
    id: str = ""
    title: str = ""
    digest: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class AboutDecision:
    outcome: str = ""
    by: Who = Who()
    comment: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a template is written out. `fields` and `answers` (by stage) hold typed values."""

    workflow: str
    fields: Mapping[str, Any]
    requester: Who
    on_behalf_of: Who = Who()
    request: AboutRequest = AboutRequest()
    decision: AboutDecision = AboutDecision()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def answers_of(definition: Definition, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The answers by stage and name, as Facts takes them: None for what nobody was asked, so every name is there."""
    return {stage.id: {name: given.get(stage.id, {}).get(name) for name in stage.ask} for stage in definition.stage}


# ── writing out ───────────────────────────────────────────────────────────────────────────────────────────────────


def render(text: str, facts: Facts) -> str:
    """The text for people. Raises TemplateError."""
    return _render(_compile(text, for_people=True), facts)


def render_line(text: str, facts: Facts) -> str:
    """The text for people on one line, without control characters, and cut to the length of a title."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", render(text, facts)).strip()
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1].rstrip() + "…"


def render_key(text: str, facts: Facts) -> str:
    """The text for programs. Raises TemplateError."""
    return _render(_compile(text, for_people=False), facts)


def render_json(value: JsonValue, facts: Facts) -> JsonValue:
    """JSON in which every text is a template for programs; names of keys and other values stay as they are."""
    match value:
        case str():
            return render_key(value, facts)
        case list():
            return [render_json(each, facts) for each in value]
        case dict():
            return {key: render_json(each, facts) for key, each in value.items()}
        case _:
            return value


def _render(compiled: Compiled, facts: Facts) -> str:
    known = {
        **facts.fields,
        "workflow": _Table({"id": facts.workflow}),
        "requester": facts.requester,
        "on_behalf_of": facts.on_behalf_of,
        "request": facts.request,
        "decision": facts.decision,
        "answers": _Table({stage: _Table(given) for stage, given in facts.answers.items()}),
    }
    chunks, length = [], 0
    try:
        for chunk in compiled.generate(known):
            length += len(chunk)
            if length > LONGEST_RESULT:
                raise TemplateError(f"the result is longer than {LONGEST_RESULT:,} characters")
            chunks.append(chunk)
    except JinjaError as error:
        raise TemplateError(str(error)) from None
    except (ArithmeticError, TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, TemplateError):
            raise
        raise TemplateError(f"the template can't be written out: {error}") from None
    return "".join(chunks)


class _Table:
    """A mapping whose keys are attributes, so that a stage named "items" is a stage and not a method."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]


def _for_people(value: Any) -> Any:
    match value:
        case Who():
            return value.name or value.address
        case Money():
            return shown_money(value)
        case timedelta():
            return shown_duration(value)
        case datetime():
            return shown_moment(value)
        case date():
            return shown_date(value)
        case bool():
            return "yes" if value else "no"
        case _:
            return _for_programs(value)


def _for_programs(value: Any) -> Any:
    match value:
        case None:
            return ""
        case Who():
            return value.address
        case bool():
            return "true" if value else "false"
        case Money():
            return str(value)
        case Decimal():
            return decimal_text(value)
        case timedelta():
            return duration_text(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case _:
            return value


@lru_cache(maxsize=512)
def _compile(text: str, for_people: bool) -> Compiled:
    read(text)
    return _environment(for_people).from_string(text)


@lru_cache(maxsize=2)
def _environment(for_people: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the result is plain text; whoever shows it escapes it
        finalize=_for_people if for_people else _for_programs,
        keep_trailing_newline=True,
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment
