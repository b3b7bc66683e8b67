"""Templates: the operator's texts with a request's values in them, such as `{{ amount }} for {{ purpose }}`.

A template is Jinja2 in its immutable sandbox, reduced to what such texts need: values, a few filters, `if`. Loading the
file checks the names, and refuses loops, multiplication and anything else that makes much out of little. A result that
gets too long is an error.

The result is plain text; the code that displays it escapes it. Titles and messages show values for people ("1,250.00
EUR", "Ann Ode"), keys and JSON for programs ("1250.00", "ann@acme.eu").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from approvals_bot.approvals.base import nearest
from approvals_bot.approvals.durations import duration_text
from approvals_bot.approvals.field_specs import FieldSpec
from approvals_bot.approvals.numbers import Money, decimal_text
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.values import shown_value
from approvals_bot.errors import ApprovalsBotError

LONGEST_RESULT = 100_000  # characters; a text field has 50,000
MOST_CHANNELS = 500  # that one template may mean
LONGEST_LINE = 300  # characters of a title


@dataclass(frozen=True, slots=True)
class Who:
    """A person, app or rule. On its own it renders as the name for people, as the address for programs."""

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
class AboutStage:
    """The stage that opens."""

    id: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The values for rendering a template. `fields` and `answers` (by stage) hold typed values."""

    workflow: str
    fields: Mapping[str, Any]
    requester: Who
    on_behalf_of: Who = Who()
    request: AboutRequest = AboutRequest()
    decision: AboutDecision = AboutDecision()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    untrusted: frozenset[str] = frozenset()  # fields that somebody else than the requester wrote
    revision: str = ""  # the digest of the workflow's file: `{{ workflow.version }}`
    stage: AboutStage | None = None


def answers_of(definition: Definition, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the answers by stage and name, for Facts; None for questions that nobody was asked."""
    return {stage.id: {name: given.get(stage.id, {}).get(name) for name in stage.ask} for stage in definition.stage}


def render(text: str, facts: Facts) -> str:
    """Render a template for people. Raises TemplateError."""
    return _render(_compile(text, for_people=True, untrusted=facts.untrusted), facts)


def render_line(text: str, facts: Facts) -> str:
    """Render for people on one line, without control characters, cut to the length of a title."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", render(text, facts)).strip()
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1].rstrip() + "…"


def render_key(text: str, facts: Facts) -> str:
    """Render a template for programs. Raises TemplateError."""
    return _render(_compile(text, for_people=False), facts)


def render_json(value: JsonValue, facts: Facts) -> JsonValue:
    """Render JSON in which every string is a template for programs. Keys and other values stay as they are."""
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
        "workflow": _Table({"id": facts.workflow, "version": facts.revision}),
        "requester": facts.requester,
        "on_behalf_of": facts.on_behalf_of,
        "request": facts.request,
        "decision": facts.decision,
        "answers": _Table({stage: _Table(given) for stage, given in facts.answers.items()}),
        "answer_of": lambda stage, name: facts.answers[stage][name],
    }
    if facts.stage is not None:
        known["stage"] = facts.stage
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
        raise TemplateError(f"the template can't be rendered: {error}") from None
    return "".join(chunks)


class _Table:
    """A mapping with its keys as attributes, so that a stage named "items" isn't a method."""

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
        case str() | bool() | Money() | date() | timedelta():
            return shown_value(value)
        case tuple():
            return ", ".join(str(_for_people(each)) for each in value)
        case _:
            return _for_programs(value)


def _for_programs(value: Any) -> Any:
    match value:
        case None:
            return ""
        case Who():
            return value.address
        case tuple():
            return ", ".join(str(_for_programs(each)) for each in value)
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
def _compile(text: str, for_people: bool, untrusted: frozenset[str] = frozenset()) -> Compiled:
    """Compile a template. What it shows of `untrusted` fields is in quotation marks, for people."""
    read(text)
    environment = _environment(for_people)
    if not untrusted:
        return environment.from_string(text)
    tree = environment.parse(text)
    for output in tree.find_all(nodes.Output):
        output.nodes = [
            nodes.Filter(node, "quoted", [], [], None, None, lineno=node.lineno) if _shows(node, untrusted) else node
            for node in output.nodes
        ]
    return environment.from_string(tree)


def _shows(node: nodes.Node, untrusted: frozenset[str]) -> bool:
    """Return whether the result of this expression may have text of these fields in it."""
    match node:
        case nodes.Name(name=name):
            return name in untrusted
        case nodes.CondExpr(expr1=one, expr2=other):
            return _shows(one, untrusted) or (other is not None and _shows(other, untrusted))
        case nodes.Compare() | nodes.Test() | nodes.Not():
            return False
        case _:
            return any(_shows(child, untrusted) for child in node.iter_child_nodes())


def _quoted(value: Any) -> Any:
    """Put somebody else's text in quotation marks, on one line; it has none of its own."""
    if isinstance(value, tuple):
        value = _for_people(value)
    if not isinstance(value, str) or not value:
        return value
    return f"“{' '.join(value.split()).translate(_NO_MARKS)}”"


_NO_MARKS = str.maketrans("“”", '""')


@lru_cache(maxsize=2)
def _environment(for_people: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the result is plain text, escaped where it is displayed
        finalize=_for_people if for_people else _for_programs,
        keep_trailing_newline=True,
    )
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS} | {"quoted": _quoted}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


MOST_NODES = 500  # of a template's tree
DEEPEST = 30  # levels of that tree, which Python compiles
MOST_JOINS = 20  # `~` and `+` in one template: each copies its operands

FILTERS = (
    {"default", "d", "lower", "upper", "title", "capitalize", "trim", "truncate", "string", "int", "float", "round"}
    | {"abs", "length", "count", "first", "last", "urlencode"}
)  # fmt: skip
TESTS = frozenset(
    {"defined", "undefined", "none", "true", "false", "in", "eq", "equalto", "ne", "lt", "le", "gt", "ge"}
)
_METHODS = {
    "duration": {"total_seconds": True, "days": False, "seconds": False},
    "date": {"isoformat": True, "year": False, "month": False, "day": False},
    "datetime": {"isoformat": True, "year": False, "month": False, "day": False, "hour": False, "minute": False},
    "money": {"currency": False},
    "person": {"name": False, "email": False, "address": False},
    "file": {"id": False, "name": False, "size": False, "sha256": False, "type": False},
}  # attribute → whether it is a method
_CALLED = frozenset(name for names in _METHODS.values() for name, called in names.items() if called)
_KNOWN = {
    "workflow": ("id", "version"),
    "requester": ("name", "email", "address"),
    "on_behalf_of": ("name", "email", "address"),
    "request": ("id", "title", "digest", "url"),
    "decision": ("outcome", "by", "comment", "via"),
}
_WHO = ("name", "email", "address")
_WHAT_IT_IS: tuple[tuple[type[nodes.Node] | tuple[type[nodes.Node], ...], str], ...] = (
    (nodes.For, "loops are not allowed in templates"),
    ((nodes.Mul, nodes.Pow), "multiplication is not allowed in templates"),
    (nodes.Mod, "% is not allowed in templates"),
    ((nodes.Assign, nodes.AssignBlock, nodes.With), "templates can't set variables"),
    (
        (nodes.Macro, nodes.CallBlock, nodes.Include, nodes.Import, nodes.FromImport),
        "templates can't include or import others, or define macros",
    ),
)
_ALLOWED = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.If, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Concat),
    *(nodes.Add, nodes.Sub, nodes.Div, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem),
    *(nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword),
)
_PARSER = ImmutableSandboxedEnvironment()


class TemplateError(ApprovalsBotError, ValueError):
    """A template that can't be used, or not for this request. `suggestion`: what was probably meant."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        self.suggestion = suggestion
        super().__init__(message)


Event = Literal["opened", "stage"]
"""What a follow-up follows before the decision."""


def check(text: str, definition: Definition, of_decision: bool, event: Event | None = None) -> None:
    """Raise TemplateError for an unknown name.

    `of_decision`: the template is rendered after the decision, or, with `event`, after that.
    """
    tree = read(text)
    _Names(definition, of_decision, event).check(tree)


def channels_of(text: str, fields: Mapping[str, FieldSpec]) -> list[str]:
    """Return every channel that a template of enums may mean. Raises TemplateError for anything else in it."""
    names = sorted({node.name for node in read(text).find_all(nodes.Name)})
    for name in names:
        spec = fields.get(name)
        if spec is None:
            raise TemplateError(f"no field is called {name}", nearest(name, fields))
        if spec.type != "enum" or not spec.values:
            raise TemplateError(f"{name} is no enum, so its channels can't be checked")
        if not spec.required and spec.default is None:
            raise TemplateError(f"{name} may be missing, so there would be no channel; make it required")
    values = [fields[name].values or () for name in names]
    if prod(map(len, values)) > MOST_CHANNELS:
        raise TemplateError(f"these are more than {MOST_CHANNELS} channels")
    chosen = (dict(zip(names, each, strict=True)) for each in product(*values))
    return [render_key(text, Facts(workflow="", fields=each, requester=Who())) for each in chosen]


@lru_cache(maxsize=512)
def read(text: str) -> nodes.Template:
    """Parse a template. Raises TemplateError for a syntax error, or anything that isn't allowed."""
    try:
        tree = _PARSER.parse(text)
    except TemplateSyntaxError as error:
        raise TemplateError(f"syntax error in the template: {error.message}") from None
    except RecursionError:
        raise TemplateError("the template is nested too deeply") from None
    joins = 0
    for count, node in enumerate(_all(tree), 1):
        match node:
            case nodes.Concat(nodes=joined):
                joins += len(joined) - 1
            case nodes.Add():
                joins += 1
        if count > MOST_NODES or joins > MOST_JOINS:
            raise TemplateError("the template is too long")
        _refuse(node)
    return tree


def _refuse(node: nodes.Node) -> None:
    for kinds, why in _WHAT_IT_IS:
        if isinstance(node, kinds):
            raise TemplateError(why)
    match node:
        case nodes.Filter(name=name) if name not in FILTERS:
            raise TemplateError(f"no filter is called {name}", nearest(name, FILTERS))
        case nodes.Test(name=name) if name not in TESTS:
            raise TemplateError(f"no test is called {name}", nearest(name, TESTS))
        case nodes.Call(node=nodes.Getattr(attr=attr), args=[], kwargs=[], dyn_args=None, dyn_kwargs=None) if (
            attr in _CALLED
        ):
            return
        case nodes.Call() if _answer_asked(node) is not None:
            return
        case nodes.Call():
            raise TemplateError("functions are not allowed in templates")
        case nodes.Getitem(arg=nodes.Const(value=str())):
            return
        case nodes.Getitem():
            raise TemplateError('only a name in quotes can be in brackets, like answers["cost-centre"]')
        case _ if not isinstance(node, _ALLOWED):
            raise TemplateError(f"{type(node).__name__.lower()} is not allowed in templates")


def _all(node: nodes.Node, depth: int = 0) -> Iterator[nodes.Node]:
    if depth > DEEPEST:
        raise TemplateError("the template is nested too deeply")
    yield node
    for child in node.iter_child_nodes():
        yield from _all(child, depth + 1)


@dataclass(frozen=True, slots=True)
class _Names:
    definition: Definition
    of_decision: bool
    event: Event | None = None

    def check(self, node: nodes.Node) -> None:
        if (answer := _answer_asked(node)) is not None:
            if not self.of_decision:
                raise TemplateError("answer_of is not known before the decision; use it in the texts of [[on.…]]")
            self._refuse_answers("answer_of")
            self._check_answers([*answer], called=False)
            return
        called = isinstance(node, nodes.Call)
        parts = _chain(node.node if isinstance(node, nodes.Call) else node)
        if parts is None:
            for child in node.iter_child_nodes():
                self.check(child)
            return
        name, *rest = parts
        match name:
            case "answers" if self.of_decision:
                self._refuse_answers(name)
                self._check_answers(rest, called)
            case "decision" if self.event is not None:
                raise TemplateError("decision is not known yet; use it in the texts of [[on.ended]]")
            case "stage" if self.event == "stage":
                if rest not in (["id"], ["title"]):
                    raise TemplateError("write stage.id or stage.title")
            case "request" | "decision" | "answers" if not self.of_decision:
                raise TemplateError(f"{name} is not known before the decision; use it in the texts of [[on.…]]")
            case _ if name in _KNOWN:
                self._check_known(name, rest)
            case _ if name in self.definition.fields:
                _check_attributes(name, self.definition.fields[name], rest, called)
            case _:
                names = [*self.definition.fields, *_KNOWN, "answers", "answer_of"]
                if name in ("fields", "input", "form") and rest and rest[0] in self.definition.fields:
                    raise TemplateError("fields have their name alone", rest[0])
                raise TemplateError(f"nothing is called {name}", nearest(name, names))

    def _refuse_answers(self, name: str) -> None:
        if self.event == "opened":
            raise TemplateError(f"{name} is not known yet; nobody has answered when the request opens")

    def _check_known(self, name: str, rest: list[str]) -> None:
        if not rest:
            if name not in ("requester", "on_behalf_of"):
                raise TemplateError(f"say which part of {name}: {', '.join(_KNOWN[name])}")
            return
        if rest[0] not in _KNOWN[name]:
            raise TemplateError(f"{name} has no {rest[0]}", nearest(rest[0], _KNOWN[name]))
        if rest[1:] and not (name == "decision" and rest[0] == "by" and rest[1] in _WHO and not rest[2:]):
            raise TemplateError(f"{name}.{rest[0]} has no {rest[1]}")

    def _check_answers(self, rest: list[str], called: bool) -> None:
        asked: Mapping[str, Mapping[str, FieldSpec]] = {stage.id: stage.ask for stage in self.definition.stage}
        if len(rest) < 2:
            raise TemplateError("say which answer: answers.<stage>.<name>")
        stage, name, *attributes = rest
        if stage not in asked:
            raise TemplateError(f"no stage is called {stage}", nearest(stage, asked))
        if name not in asked[stage]:
            raise TemplateError(f"the stage {stage} doesn't ask for {name}", nearest(name, asked[stage]))
        _check_attributes(name, asked[stage][name], attributes, called)


def _check_attributes(name: str, spec: FieldSpec, rest: list[str], called: bool) -> None:
    known = _METHODS.get(spec.type, {})
    if rest and (rest[1:] or rest[0] not in known):
        raise TemplateError(f"{name} has no {rest[0]}", nearest(rest[0], known))
    if rest and known[rest[0]] != called:
        right = f"{name}.{rest[0]}" + ("()" if known[rest[0]] else "")
        raise TemplateError(f"write {right}", right)


def _answer_asked(node: nodes.Node) -> tuple[str, str] | None:
    """Return stage and name of `answer_of("finance", "code")`; None if this is something else."""
    match node:
        case nodes.Call(
            node=nodes.Name(name="answer_of"),
            args=[nodes.Const(value=str(stage)), nodes.Const(value=str(name))],
            kwargs=[],
            dyn_args=None,
            dyn_kwargs=None,
        ):
            return stage, name
        case _:
            return None


def _chain(node: nodes.Node) -> list[str] | None:
    """Split `answers.finance["code"]` into its parts. Returns None if this is no chain of names."""
    match node:
        case nodes.Name(name=name):
            return [name]
        case nodes.Getattr(node=inner, attr=attr):
            last: Any = attr
        case nodes.Getitem(node=inner, arg=nodes.Const(value=last)):
            pass
        case _:
            return None
    before = _chain(inner)
    if before is None:
        raise TemplateError(f"{last} must follow a name")
    return [*before, str(last)]
