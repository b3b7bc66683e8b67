"""One field of a workflow's form: its type and what it may hold, as the workflow's file says it.

What values mean (parsing, bounds, how people read them) is told in `approvals.fields`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import SchemaError

from approvals_bot.approvals.base import Bool, Frozen, Hint, Int, Label, refuse

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
]

LENGTH = {"string": 500, "text": 50_000, "email": 320, "url": 2_000}
"""The longest value in characters, where the file says no other."""

TAKEN = frozenset({"answers", "decision", "on_behalf_of", "request", "requester", "workflow"})
"""Names that templates use for something else."""

_TEXTS = ("string", "text", "email", "url")
ORDERED = ("integer", "decimal", "money", "date", "datetime", "duration")
_OPTIONS_FOR = {
    "min": ORDERED,
    "max": ORDERED,
    "min_length": _TEXTS,
    "max_length": _TEXTS,
    "pattern": _TEXTS,
    "values": ("enum",),
    "currency": ("money",),
    "view": ("text",),
}
_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "elif", "for", "loop", "self", "super"}
    | {"true", "false", "none", "null", "nan", "inf", "True", "False", "None"}
)


class FieldSpec(Frozen):
    """A field's type and options. In the file, `name = "string"` is short for `name = { type = "string" }`."""

    type: FieldType
    required: Bool = True
    default: Scalar | None = None
    min: Bound | None = None
    max: Bound | None = None
    min_length: Annotated[Int, Field(ge=0, le=1_000_000)] | None = None
    max_length: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1_000)] | None = None  # of the whole value
    values: Annotated[tuple[EnumValue, ...], Field(min_length=1, max_length=500)] | None = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    pinned: Bool = False  # part of the digest that is approved
    editable: Bool = False  # an approver may change it with `edit`
    untrusted: Bool = False  # shown as quoted plain text
    view: Literal["diff"] | None = None
    label: Label | None = None  # what people read instead of the field's name
    hint: Hint | None = None  # one line below the input
    example: Scalar | None = None  # in an empty input; a value that the field would take

    @property
    def longest(self) -> int | None:
        """The most characters a value may have; None for types that are not texts."""
        return self.max_length if self.max_length is not None else LENGTH.get(self.type)

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"type": value} if isinstance(value, str) else value

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
            if (values or ()).count(value) > 1:
                raise refuse(f'"{value}" stands here twice')
        return values

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> FieldSpec:
        for option, types in _OPTIONS_FOR.items():
            if getattr(self, option) is not None and self.type not in types:
                raise refuse(f'"{option}" is for {_listed(types)}, and this field is of type {self.type}', at=option)
        if self.type == "enum" and self.values is None:
            raise refuse('an enum needs its values, like values = ["staging", "prod"]', at="values")
        if self.type == "money" and self.currency is None:
            raise refuse('money needs its currency, like currency = "EUR"', at="currency")
        if self.min_length is not None and self.longest is not None and self.min_length > self.longest:
            raise refuse(f"min_length is more than the longest value allowed, {self.longest:,}", at="min_length")
        return self


def whole(pattern: str) -> str:
    """The regular expression that fits only when `pattern` fits the whole value."""
    return rf"\A(?:{pattern})\z"


def _name(value: str) -> str:
    if value in TAKEN or value in _KEYWORDS:
        raise refuse(f'"{value}" means something else in templates and conditions; take another name')
    return value


def _scalar(value: object) -> object:
    """TOML's own dates and decimals as the text that JSON carries."""
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case bool() | int() | float() | str():
            return value
        case _:
            raise refuse("write one plain value here")


def _bound(value: object) -> object:
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        raise refuse("write a number, a date or a span of time here")
    return str(scalar)


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _last_line(error: SchemaError) -> str:
    lines = [line.strip(" ^") for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), "it has a fault")


FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$"), AfterValidator(_name)]
EnumValue = Annotated[str, StringConstraints(min_length=1, max_length=75)]  # 75 characters: what a Slack option holds
Scalar = Annotated[
    bool | int | float | str,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["boolean", "integer", "number", "string"]}),
]
Bound = Annotated[str, BeforeValidator(_bound), WithJsonSchema({"type": ["integer", "number", "string"]})]

assert set(_TEXTS + ORDERED) <= set(get_args(FieldType))


class Ask(FieldSpec):
    """One thing that approvers fill in, or a field of a form."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            type: FieldType,
            required: bool = ...,
            default: bool | int | float | str | None = ...,
            min: int | float | Decimal | datetime.date | str | None = ...,
            max: int | float | Decimal | datetime.date | str | None = ...,
            min_length: int | None = ...,
            max_length: int | None = ...,
            pattern: str | None = ...,
            values: Sequence[str] | None = ...,
            currency: str | None = ...,
            pinned: bool = ...,
            editable: bool = ...,
            untrusted: bool = ...,
            view: Literal["diff"] | None = ...,
            label: str | None = ...,
            hint: str | None = ...,
            example: bool | int | float | Decimal | datetime.date | str | None = ...,
        ) -> None: ...
