"""Field definitions of a workflow's file: types and their options.

`approvals.values` parses and formats the values themselves.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import SchemaError

from approvals_bot.approvals.base import Bool, Frozen, Hint, Int, Label, Text, refuse
from approvals_bot.approvals.visible import first_unseen, marked, revealed

FieldType = Literal[
    "string",
    "text",
    "integer",
    "decimal",
    "money",
    "boolean",
    "enum",
    "date",
    "datetime",
    "duration",
    "email",
    "url",
    "person",
    "list",
    "file",
]

ItemType = Literal["string", "enum", "person", "file"]
"""What the items of a list are."""

JsonType = Literal["array", "object"]
"""Types of lists and objects, for `request_approval`. A workflow's file doesn't have them."""

CallType = Literal["tool", "arguments", "said", "id"]
"""Types of what a tool call consists of: its tool's name, its arguments, what its model says about it, and its id."""

LENGTH = {
    "string": 500,
    "text": 50_000,
    "email": 320,
    "url": 2_000,
    "person": 320,
    "tool": 200,
    "said": 2_000,
    "id": 500,
}
"""The default maximum length, in characters."""

TAKEN = frozenset({"answer_of", "answers", "decision", "on_behalf_of", "request", "requester", "workflow"})
"""Names with another meaning in templates."""

_TEXTS = ("string", "text", "email", "url")
ORDERED = ("integer", "decimal", "money", "date", "datetime", "duration")
OPTIONS_FOR = {
    "of": ("list",),
    "min": (*ORDERED, "list"),
    "max": (*ORDERED, "list"),
    "min_length": _TEXTS,  # those of the items, in a list
    "max_length": _TEXTS,
    "pattern": _TEXTS,
    "values": ("enum",),
    "in_": ("person",),
    "currency": ("money",),
    "view": ("text",),
    "expects": ("arguments",),
}
"""The types that an option is for."""

_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "elif", "for", "loop", "self", "super"}
    | {"true", "false", "none", "null", "nan", "inf", "True", "False", "None"}
)


class FieldSpec(Frozen):
    """A field's type and options. In the file, `name = "string"` is short for `name = { type = "string" }`."""

    type: Annotated[
        Literal[FieldType, JsonType, CallType],
        WithJsonSchema({"type": "string", "enum": list(get_args(FieldType))}),
    ]
    of: ItemType | None = None  # what the items of a list are
    required: Bool = True
    default: Scalar | None = None
    min: Bound | None = None
    max: Bound | None = None
    min_length: Annotated[Int, Field(ge=0, le=1_000_000)] | None = None
    max_length: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1_000)] | None = (
        None  # must match the whole value
    )
    values: Annotated[tuple[EnumValue, ...], Field(min_length=1, max_length=500)] | None = None
    # addresses of those whom a person may be
    in_: Annotated[Annotated[tuple[Text, ...], Field(min_length=1)] | None, Field(alias="in")] = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    pinned: Bool = False  # part of the digest that approvers sign; of a file, always
    editable: Bool = False  # approvers may change it with `edit`
    untrusted: Bool = False  # shown as quoted plain text
    view: Literal["diff"] | None = None
    label: Label | None = None  # what people read instead of the field's name
    hint: Hint | None = None  # one line below the input
    example: Scalar | None = None  # shown in an empty input; a valid value
    expects: SkipJsonSchema[dict[str, JsonValue] | None] = None  # JSON Schema of a tool's arguments

    @property
    def longest(self) -> int | None:
        """The maximum length in characters; None for types that aren't text."""
        return self.max_length if self.max_length is not None else LENGTH.get(self.item_type)

    @property
    def item_type(self) -> str:
        """The type of a single value: of a list, that of its items."""
        return self.of if self.of is not None else self.type

    @property
    def holds_files(self) -> bool:
        """Whether the values are files."""
        return self.item_type == "file"

    @property
    def _kind(self) -> str:
        return (
            f"these are items of the type {self.of}" if self.type == "list" else f"this field has the type {self.type}"
        )

    @property
    def is_json(self) -> bool:
        """Whether the values are lists or objects."""
        return self.type == "arguments" or self.type in get_args(JsonType)

    @property
    def holds_people(self) -> bool:
        """Whether the values are addresses of people."""
        return self.item_type == "person"

    @property
    def may_name_nobody(self) -> bool:
        """Whether a request may leave this field without people."""
        return (not self.required and self.default is None) or self.min == "0"

    @property
    def is_of_call(self) -> bool:
        """Whether this is a part of a tool call."""
        return self.type in get_args(CallType)

    @property
    def is_multiline(self) -> bool:
        """Whether people type several lines."""
        return self.type in ("text", "list") or self.is_json

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object, info: ValidationInfo) -> object:
        spec = {"type": value} if isinstance(value, str) else value
        if info.context is None and isinstance(spec, dict) and "in_" in spec:  # `in` is a Python keyword
            spec = {("in" if key == "in_" else key): of for key, of in spec.items()}
        if isinstance(spec, dict) and "file" in (spec.get("type"), spec.get("of")):
            return {"pinned": True, **spec}
        return spec

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            for regex in (pattern, whole(pattern)):
                try:
                    TypeAdapter(Annotated[str, StringConstraints(pattern=regex)])
                except SchemaError as error:
                    raise refuse(f"this regular expression can't be used: {_last_line(error)}") from None
        return pattern

    @field_validator("values")
    @classmethod
    def _differ(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            if (at := first_unseen(value)) is not None:
                raise refuse(f'"{revealed(value)}" contains an invisible character, {marked(value[at])}')
            if (values or ()).count(value) > 1:
                raise refuse(f'"{value}" is listed twice')
        return values

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> FieldSpec:
        for option, types in OPTIONS_FOR.items():
            own = self.type if option in ("of", "min", "max") else self.item_type
            if getattr(self, option) is not None and own not in types:
                name = option.removesuffix("_")
                raise refuse(f'"{name}" is for {_listed(types)}; {self._kind}', at=name)
        if self.type == "list" and self.of is None:
            raise refuse('a list needs the type of its items, like of = "string"', at="of")
        if self.type == "list" and self.default is not None:
            raise refuse("a list has no default; without required it may be left out", at="default")
        for value in self.values or () if self.type == "list" else ():  # a form has one a line
            if "\n" in value or value != value.strip():
                raise refuse(f'"{revealed(value)}" must be on one line, without spaces around it', at="values")
        if self.item_type == "enum" and self.values is None:
            raise refuse('an enum needs its values, like values = ["staging", "prod"]', at="values")
        if self.holds_files and not self.pinned:
            raise refuse("a file is always pinned: approvers sign its name and its content", at="pinned")
        if self.holds_files and self.editable:
            raise refuse("approvers can't change a file; its requester can, over the API", at="editable")
        if self.type == "file" and self.default is not None:
            raise refuse("a file has no default", at="default")
        if self.type == "money" and self.currency is None:
            raise refuse('money needs its currency, like currency = "EUR"', at="currency")
        if self.min_length is not None and self.longest is not None and self.min_length > self.longest:
            raise refuse(f"min_length is more than the longest value allowed, {self.longest:,}", at="min_length")
        return self


def _is_no_file(spec: FieldSpec) -> FieldSpec:
    if spec.holds_files:
        raise refuse("approvers can't upload files; a file belongs in [fields]", at="type")
    return spec


Question = Annotated[FieldSpec, AfterValidator(_is_no_file)]


@lru_cache(maxsize=1024)
def item_of(spec: FieldSpec) -> FieldSpec:
    """Return the definition of a list's items, which are never blank."""
    plain = {"type": spec.of, "of": None, "required": True, "min": None, "max": None, "example": None}
    return spec.model_copy(update=plain)


def whole(pattern: str) -> str:
    """Return a regular expression that matches only if `pattern` matches the whole value."""
    return rf"\A(?:{pattern})\z"


def _name(value: str) -> str:
    if value in TAKEN or value in _KEYWORDS:
        raise refuse(f'"{value}" has another meaning in templates and conditions; use another name')
    return value


def _scalar(value: object) -> object:
    """Convert TOML's dates and decimals to text, as in JSON."""
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bool() | int() | float() | str():
            return value
        case _:
            raise refuse("write a single value here")


def _bound(value: object) -> object:
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        raise refuse("write a number, a date or a duration here")
    return str(scalar)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _last_line(error: SchemaError) -> str:
    lines = [line.strip(" ^") for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), "it has a fault")


LONGEST_NAME = 200  # characters of a name that no file gave; Slack has room for 255, with a prefix of ours


def _named(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Take any name outside a file, which has a context: Python workflows show tools' arguments, by their names."""
    if info.context is None and isinstance(value, str) and 0 < len(value) <= LONGEST_NAME:
        return value
    return handler(value)


FieldName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$"),
    AfterValidator(_name),
    WrapValidator(_named),
]
EnumValue = Annotated[str, StringConstraints(min_length=1, max_length=75)]  # the limit of a Slack option
Scalar = Annotated[
    bool | int | float | str,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["boolean", "integer", "number", "string"]}),
]
Bound = Annotated[str, BeforeValidator(_bound), WithJsonSchema({"type": ["integer", "number", "string"]})]

assert set(_TEXTS + ORDERED) <= set(get_args(FieldType))


class Ask(FieldSpec):
    """A question to approvers, or a field of a form, for authors of Python workflows."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            type: FieldType | JsonType,
            of: ItemType | None = ...,
            required: bool = ...,
            default: bool | int | float | str | None = ...,
            min: int | float | Decimal | datetime.date | str | None = ...,
            max: int | float | Decimal | datetime.date | str | None = ...,
            min_length: int | None = ...,
            max_length: int | None = ...,
            pattern: str | None = ...,
            values: Sequence[str] | None = ...,
            in_: Sequence[str] | None = ...,
            currency: str | None = ...,
            pinned: bool = ...,
            editable: bool = ...,
            untrusted: bool = ...,
            view: Literal["diff"] | None = ...,
            label: str | None = ...,
            hint: str | None = ...,
            example: bool | int | float | Decimal | datetime.date | str | None = ...,
        ) -> None: ...
