"""A workflow's fields: validation, typed values, forms, and the digest that approvers sign.

One table of fields serves the API, the forms of Slack and the web, approvers' answers, conditions, templates and the
digest. A value has three representations: JSON (in the log and the API), typed (in conditions and templates), and for
people. The JSON is canonical: 1250 euro and 1250.00 euro are one value with one digest.

Slack, mail and pages send the text that people typed, the API sends JSON. Both become the same canonical values, or
rejections that say what is wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from approvals_bot.approvals.acts import Edit, Rejection, Vote
from approvals_bot.approvals.card_model import BRIEF, CardField, FormField, Via
from approvals_bot.approvals.field_specs import FieldSpec, item_of
from approvals_bot.approvals.files import StoredFile
from approvals_bot.approvals.json_values import (
    TypedText,
    UnfitError,
    check_size,
    same_json,
    shown_json,
)
from approvals_bot.approvals.leaves import addresses, is_long_text, replaced, root_of
from approvals_bot.approvals.numbers import from_format, in_format
from approvals_bot.approvals.plain_text import readable
from approvals_bot.approvals.policy import Definition
from approvals_bot.approvals.stage_policy import Stage
from approvals_bot.approvals.tool_call import ARGUMENTS, TOOL, shown_arguments
from approvals_bot.approvals.values import read, read_text, shown_value, value_schema, write
from approvals_bot.approvals.visible import NOT_GIVEN, exact_value, revealed
from approvals_bot.client.digests import digest_of, request_digest
from approvals_bot.errors import InvalidPayloadError
from approvals_bot.people import Person

Fields = Mapping[str, FieldSpec]

NOBODY: Mapping[str, Person] = {}

NUMBERS = ("decimal", "money")
"""Types whose values have decimals, so that how people write them depends on where they live."""

_TRUE = frozenset({"on", "true", "yes", "1"})


def values(of: Fields, given: Mapping[str, Any], root: str = "input") -> dict[str, Any]:
    """Validate a form. Returns the typed value of every field; None if it is optional and unset.

    Raises InvalidPayloadError with all faults at once, each at [root, name].
    """
    typed, rejections = read_values(of, given)
    if rejections:
        raise InvalidPayloadError([{"loc": [root, *each.path], "msg": each.text} for each in rejections], root)
    return typed


def read_values(of: Fields, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Rejection, ...]]:
    """Validate a form. Returns the typed values, and a rejection for each fault, at its field's name."""
    fields, typed = of, dict[str, Any]()
    rejections = [_unknown(name, fields) for name in given if name not in fields]
    for name, spec in fields.items():
        try:
            typed[name] = _read_field(spec, given.get(name))
        except UnfitError as error:
            rejections.append(Rejection((name, *error.path), error.code, error.params))
    if not rejections and any(spec.is_json and not spec.is_of_call for spec in fields.values()):
        try:
            check_size(dump(fields, typed))
        except UnfitError as error:
            rejections.append(Rejection((), error.code, error.params))
    return typed, tuple(rejections)


def dump(of: Fields, typed: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return the canonical JSON of typed values, which `values` reads back."""
    return {name: write(spec, typed.get(name)) for name, spec in of.items()}


def shown(of: Fields, name: str, value: Any) -> str:
    """Format a typed value for people: "1,250.00 EUR", "1 h 30 min", "5 Nov 2026". Unescaped plain text."""
    return shown_value(value)


def shown_with_names(spec: FieldSpec, value: Any, people: Mapping[str, Person]) -> str:
    """Format a typed value for people, with the names of those whom it names."""
    return _shown(spec, value, people) if spec.holds_people else shown_value(value)


def shown_fields(
    of: Fields, typed: Mapping[str, Any], was: Mapping[str, JsonValue], people: Mapping[str, Person] = NOBODY
) -> tuple[CardField, ...]:
    """Return the fields for cards. `was`: the earlier values of edited fields. `people`: those with a name."""
    if any(spec.is_json or spec.untrusted or spec.type == "list" for spec in of.values()):
        return tuple(
            field for name, spec in of.items() for field in _shown_of(name, spec, typed.get(name), was, people)
        )
    return tuple(shown_field(spec, name, typed.get(name), was, people) for name, spec in of.items())


def shown_field(
    spec: FieldSpec, name: str, value: Any, was: Mapping[str, JsonValue], people: Mapping[str, Person] = NOBODY
) -> CardField:
    """Return a field for cards. `was`: the earlier values of edited fields. `people`: those with a name."""
    before: str | None = None
    if name in was:
        before = _shown(spec, values({name: spec}, {name: was[name]}).get(name), people)
    return CardField(
        name=name,
        label=label(name, spec),
        value=_shown(spec, value, people),
        kind="diff" if spec.view == "diff" else _KINDS.get(spec.type, "short"),
        pinned=spec.pinned,
        was=before,
        untrusted=spec.untrusted and value is not None,
        file=value.id if isinstance(value, StoredFile) else "",
    )


_KINDS: dict[str, Literal["long", "file"]] = {"text": "long", "file": "file"}


def sendable(of: Fields) -> dict[str, FieldSpec]:
    """Return the fields that a form of ours can send: all but files, which programs upload."""
    return {name: spec for name, spec in of.items() if not spec.holds_files}


def _shown(spec: FieldSpec, value: Any, people: Mapping[str, Person] = NOBODY) -> str:
    """Format a typed value for people; of two different pinned values, never the same."""
    match value:
        case tuple():
            return _listed([_shown(item_of(spec), each, people) for each in value])
        case str() if spec.holds_people:
            return shown_person(value, people)
    if spec.pinned and isinstance(value, str) and not spec.is_of_call:
        return exact_value(value, is_block=spec.type == "text")
    return shown_value(value)


def people_in(of: Fields, given: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return the people whom these values name."""
    named = (given.get(name) for name, spec in of.items() if spec.holds_people)
    return tuple(
        each for value in named for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)
    )


def _listed(items: list[str]) -> str:
    """Join the items of a list: on one line, or one a line where a comma could be part of one."""
    if sum(map(len, items)) <= BRIEF and not any("," in item for item in items):
        return ", ".join(items) or NOT_GIVEN
    return "\n".join(items)


def shown_person(address: str, people: Mapping[str, Person]) -> str:
    """Format as "Ann Ode (ann@acme.eu)": two people may have one name."""
    name = people[address].name if address in people else ""
    return f"{name} ({address})" if name and name != address.partition("@")[0] else address


def _shown_of(
    name: str, spec: FieldSpec, value: Any, was: Mapping[str, JsonValue], people: Mapping[str, Person]
) -> tuple[CardField, ...]:
    """Return what a card shows of a field that may hold more than one value, or what somebody else wrote."""
    if spec.type == "arguments":
        return shown_arguments(value or {}, was.get(name))
    if spec.type == "id" or (value is None and spec.is_of_call):
        return ()
    if spec.type == "list" and spec.holds_files and value:
        return tuple(_shown_file(name, spec, at, each, value) for at, each in enumerate(value, 1))
    field = shown_field(spec, name, value, was, people)
    match value:
        case tuple() if "\n" in field.value:
            return (replace(field, kind="long", label=f"{field.label} ({len(value)})"),)
        case dict() | list():
            return (replace(field, value="", kind="json", was=None),)  # `with_lines` says what it is and was
        case str() if spec.type == "tool":
            return (replace(field, value=revealed(value), kind="code", pinned=False),)
        case str() if spec.type == "said" and is_long_text(value):
            return (replace(field, value=revealed(value), kind="long"),)
        case str() if spec.untrusted and not spec.pinned:
            return (replace(field, value=revealed(value)),)
        case _:
            return (field,)


def _shown_file(name: str, spec: FieldSpec, at: int, file: StoredFile, all: Sequence[StoredFile]) -> CardField:
    """Return one file of a list as a field of its own: each has its link."""
    called = label(name, spec)
    numbered = called if len(all) == 1 else f"{called} {at} of {len(all)}"
    return CardField(f"{name}.{at}", numbered, shown_value(file), "file", pinned=True, file=file.id)


def form_field(name: str, spec: FieldSpec, value: JsonValue = None) -> FormField:
    """Return a field for forms."""
    match value:
        case None:
            shown = ""
        case bool():
            shown = "true" if value else "false"
        case list() if spec.type == "list":
            shown = "\n".join(map(str, value))
        case list() | dict():
            shown = shown_json(value)
        case _:
            shown = str(value)
    return FormField(name, label(name, spec), spec, shown)


def editable_field(name: str, spec: FieldSpec, now: Mapping[str, JsonValue]) -> FormField:
    """Return a field for approvers to edit. Of a list or an object, cards make inputs of its leaves."""
    if spec.is_json:
        return form_field(name, spec.model_copy(update={"expects": None}))
    return form_field(name, spec, now.get(name))


def in_format_of(number_format: str, asks: tuple[FormField, ...]) -> tuple[FormField, ...]:
    """Return inputs whose initial numbers are written as their reader writes numbers."""
    if not number_format:
        return asks
    return tuple(
        replace(ask, value=in_format(ask.value, number_format)) if ask.spec.type in NUMBERS else ask for ask in asks
    )


def label(name: str, spec: FieldSpec) -> str:
    """Return the field's label, or one made from its name: `budget_code` → "Budget code"."""
    return spec.label or readable(name)


def digest(workflow: str, version: str, of: Fields, typed: Mapping[str, Any]) -> str:
    """Return the digest that approvers sign; "" if nothing is pinned.

    It covers the workflow, its version, and the pinned fields. That of a tool call covers the call alone, wherever it
    is asked for, so that an agent can compute it without knowing the workflow.
    """
    pinned = {name: _signed(spec, typed.get(name)) for name, spec in of.items() if spec.pinned}
    if not pinned:
        return ""
    if any(of[name].is_of_call for name in pinned):
        return digest_of(typed[TOOL], typed[ARGUMENTS])
    return request_digest(workflow, version, pinned)


def _signed(spec: FieldSpec, value: Any) -> JsonValue:
    match value:
        case StoredFile():
            return value.signed
        case tuple():
            return [_signed(spec, each) for each in value]
        case _:
            return write(spec, value)


def from_texts(of: Fields, texts: Mapping[str, str], number_format: str = "") -> dict[str, JsonValue]:
    """Convert typed-in text to JSON for `values`. A blank is unset; an absent checkbox is false.

    `number_format`: how the person who typed writes numbers.
    """
    given: dict[str, JsonValue] = {name: text for name, text in texts.items() if text.strip()}
    for name, spec in of.items():
        text = texts.get(name, "").strip()
        if number_format and (spec.type == "integer" or spec.type in NUMBERS):
            text = from_format(text, number_format)
        if spec.type == "boolean":
            given[name] = text.lower() in _TRUE
        elif spec.type == "integer" and text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20:
            given[name] = int(text)
        elif text and spec.is_json:
            given[name] = TypedText(text)
        elif spec.type == "list" and text:
            given[name] = [line.strip() for line in text.splitlines() if line.strip()]
        elif text and spec.type not in ("string", "text"):
            given[name] = text
    return given


def input_model(of: Fields) -> type[BaseModel]:
    """Return the form as a pydantic model. It validates like `values`, with the schema of `json_schema`."""
    members: dict[str, Any] = {}
    for name, spec in of.items():
        attribute = f"{name}_" if hasattr(BaseModel, name) or name.startswith("model_") else name
        kind = Annotated[
            Any, BeforeValidator(_pydantic(partial(_read_field, spec))), WithJsonSchema(value_schema(spec))
        ]
        is_asked = spec.required and spec.default is None
        default = ... if is_asked else spec.default
        members[attribute] = (kind, Field(default, alias=name, validate_default=True))
    config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, serialize_by_alias=True, protected_namespaces=()
    )
    return create_model("Input", __config__=config, **members)


def json_schema(of: Fields) -> dict[str, Any]:
    """Return the form as JSON Schema 2020-12."""
    fields = of
    return {
        "type": "object",
        "properties": {name: value_schema(spec) for name, spec in fields.items()},
        "required": [name for name, spec in fields.items() if spec.required and spec.default is None],
        "additionalProperties": False,
    }


def faults(fields: Fields) -> Iterable[tuple[tuple[str, ...], str]]:
    """Find mistakes in the field definitions: invalid bounds, defaults and examples. Yields (path, message)."""
    for name, spec in fields.items():
        bounds: dict[str, Any] = {}
        for bound in ("min", "max"):
            text = getattr(spec, bound)
            if text is not None:
                try:
                    bounds[bound] = read_text(spec.type, text)
                except UnfitError as error:
                    yield (name, bound), str(error)
        if len(bounds) == 2 and bounds["min"] > bounds["max"]:
            yield (name, "min"), f"min is more than max, {spec.max}"
        elif spec.default is not None and len(bounds) == sum(b is not None for b in (spec.min, spec.max)):
            try:
                read(spec, spec.default)
            except UnfitError as error:
                yield (name, "default"), f"not a valid value of this field: {error}"
        if spec.example is not None:
            try:
                read(item_of(spec) if spec.type == "list" else spec, spec.example)
            except UnfitError as error:
                yield (name, "example"), f"not a valid value of this field: {error}"


def raised(before: Any, after: Any) -> bool:
    """Whether an edit raised a typed value. A new value counts as raised; a removed one doesn't."""
    if after is None:
        return False
    return bool(before is None or after > before)


def _read_field(spec: FieldSpec, given: Any) -> Any:
    if given is None:
        given = spec.default
    if given is None:
        if spec.required:
            raise UnfitError("required")
        return None
    return read(spec, given)


def _unknown(name: str, fields: Fields) -> Rejection:
    near = difflib.get_close_matches(name, fields, n=1)
    return Rejection((name,), "unknown_field", {"near": near[0]} if near else {})


def _pydantic(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def validate(given: Any) -> Any:
        try:
            return read(given)
        except UnfitError as error:
            raise PydanticCustomError("unfit", "{why}", {"why": str(error)}) from None

    return validate


FORMS: tuple[Via, ...] = ("slack", "email", "inbox")
"""Channels that send values as the text that people typed."""


Changed = dict[str, Any] | tuple[Rejection, ...]
"""All fields of a request after an edit, typed; or what is wrong with the edit."""


def read_answers(
    stage: Stage, vote: Vote, number_format: str = ""
) -> tuple[dict[str, JsonValue], tuple[Rejection, ...]]:
    """Validate an approver's answers. Returns canonical JSON and rejections. Only approvals have answers."""
    if vote.choice not in ("approve", "edit") or not stage.ask:
        return {}, ()
    given = dict(vote.answers)
    if vote.choice == "edit":  # one form may hold both answers and edited fields
        given = {name: value for name, value in {**vote.fields, **given}.items() if name in stage.ask}
    if vote.via in FORMS:
        given = from_texts(stage.ask, _texts(given), number_format)
    typed, rejections = read_values(stage.ask, given)
    return ({}, rejections) if rejections else (dump(stage.ask, typed), ())


Fits = Callable[[Mapping[str, Any]], tuple[Rejection, ...]]
"""What is wrong with edited fields, typed, besides their types: they come from an author's own model."""


def approver_changes(
    definition: Definition,
    stage: Stage,
    now: Mapping[str, JsonValue],
    vote: Vote,
    fits: Fits | None = None,
    number_format: str = "",
) -> Changed:
    """Return the request's fields after an approver's `edit`: of whole fields, or of leaves by their addresses."""
    given = {name: value for name, value in {**vote.answers, **vote.fields}.items() if name not in stage.ask}
    given, rejections = _with_leaves(definition.fields, now, given, as_text=vote.via in FORMS)
    if rejections:
        return rejections
    for name in given:
        if name in definition.fields and not definition.fields[name].editable:
            return (Rejection((), "not_editable", {"name": name}),)
    return _changed(definition, now, _in_json(definition, given, vote.via, number_format), fits)


def _with_leaves(
    of: Fields, now: Mapping[str, JsonValue], given: Mapping[str, JsonValue], *, as_text: bool
) -> tuple[dict[str, JsonValue], tuple[Rejection, ...]]:
    """Put new leaves into the lists and objects that they belong to, and return these instead."""
    left, rejections = dict(given), list[Rejection]()
    for name, spec in of.items():
        value = now.get(name)
        if not spec.is_json or not isinstance(value, dict | list):
            continue
        root = root_of(name, spec)
        known = addresses(value, root)
        mine = {address: left[address] for address in given if address in known and address in left}
        if not mine:
            continue
        if not spec.editable:
            return left, (Rejection((), "not_editable", {"name": next(iter(mine))}),)
        left = {address: item for address, item in left.items() if address not in mine}
        left[name], faults = replaced(value, root, mine, as_text=as_text, is_checked=spec.expects is not None)
        rejections += faults
    return left, tuple(rejections)


def requester_changes(
    definition: Definition,
    now: Mapping[str, JsonValue],
    edit: Edit,
    fits: Fits | None = None,
    number_format: str = "",
) -> Changed:
    """Return the request's fields after the requester's edit."""
    return _changed(definition, now, _in_json(definition, dict(edit.fields), edit.via, number_format), fits)


def _in_json(definition: Definition, given: dict[str, JsonValue], via: Via, number_format: str) -> dict[str, JsonValue]:
    """Return edited fields as JSON: forms send them as texts."""
    if via not in FORMS:
        return given
    texts = {name: value for name, value in given.items() if not isinstance(value, dict | list)}  # with new leaves
    mine = {name: spec for name, spec in definition.fields.items() if name in texts}
    left = dict.fromkeys(mine)  # an emptied field is unset
    return {**given, **left, **from_texts(mine, _texts(texts), number_format)}


def _changed(
    definition: Definition, now: Mapping[str, JsonValue], given: dict[str, JsonValue], fits: Fits | None
) -> Changed:
    typed, rejections = read_values(definition.fields, {**now, **given})
    if not rejections and any(spec.expects is not None for spec in definition.fields.values()):
        rejections = _unexpected(definition.fields, typed)
    if fits is not None and not rejections:
        rejections = fits(typed)
    if rejections:
        return rejections
    return (Rejection((), "same_as_before"),) if same_json(dump(definition.fields, typed), now) else typed


def _unexpected(of: Fields, typed: Mapping[str, Any]) -> tuple[Rejection, ...]:
    """Return what a tool doesn't take of its edited arguments."""
    from approvals_bot.approvals.expected import unexpected  # most requests are no tool calls and need no jsonschema

    found = (unexpected(spec.expects, typed[name]) for name, spec in of.items() if spec.expects is not None)
    return tuple(rejection for rejections in found for rejection in rejections)


def _texts(given: Mapping[str, JsonValue]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in given.items()}
