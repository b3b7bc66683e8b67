"""Random annotations with values that fit them: what authors may write, combined in ways that no author would."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from functools import partial
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

import pydantic.dataclasses
from hypothesis import reject
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    computed_field,
    create_model,
)
from typing_extensions import TypedDict

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """An annotation, values that fit it, and whether the log must keep those: a refusal of them would be a fault."""

    annotation: Any
    values: st.SearchStrategy[Any]
    must_survive: bool = True
    is_hashable: bool = True

    def but(self, annotation: Any, values: st.SearchStrategy[Any], **changes: Any) -> Kind:
        return dataclasses.replace(self, annotation=annotation, values=values, **changes)


class Colour(Enum):
    RED = "red"
    NUMBER = 1


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Mode(StrEnum):
    FAST = "fast"
    ONE = "1"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Decimal = Decimal(0)


class Box(BaseModel, Generic[T]):
    inside: T
    others: list[T] = []


class Left(BaseModel):
    kind: Literal["left"] = "left"
    value: Any = None


class Right(BaseModel):
    kind: Literal["right"] = Field("right")
    value: bytes = b""


class Metres(BaseModel):
    length: int


class Feet(BaseModel):
    length: int


class Inches(Feet):
    fraction: int = 0


_ZONES = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["$", "1", "true", "2026-01-01"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXTS, inner, max_size=2),
    max_leaves=4,
)

LEAVES = [
    Kind(int, st.integers() | st.just(10**50)),
    Kind(bool, st.booleans()),
    Kind(str, _TEXTS),
    Kind(float, st.floats()),
    Kind(bytes, st.binary(max_size=4)),
    Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    Kind(type(None), st.none()),
    Kind(date, st.dates()),
    Kind(datetime, st.datetimes(timezones=st.none() | _ZONES)),
    Kind(timedelta, st.timedeltas()),
    Kind(UUID, st.uuids()),
    Kind(Colour, st.sampled_from(Colour)),
    Kind(Size, st.sampled_from(Size)),
    Kind(Mode, st.sampled_from(Mode)),
    Kind(Rights, st.sampled_from([*Rights, Rights.READ | Rights.WRITE])),
    Kind(Literal["a", 1, True, None], st.sampled_from(["a", 1, None])),
    Kind(IPv4Address, st.ip_addresses(v=4)),
    Kind(PurePosixPath, st.sampled_from(["a", "/a/b", "."]).map(PurePosixPath)),
    Kind(Point, st.builds(Point, st.integers(), st.just(Decimal(1)))),
    Kind(complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
    Kind(re.Pattern[str], st.sampled_from(["a", "(?i)b"]).map(re.compile), must_survive=False),
    Kind(SecretStr, st.sampled_from(["", "s", "**********"]).map(SecretStr), must_survive=False),
    Kind(SecretBytes, st.just(SecretBytes(b"\xff")), must_survive=False),
    Kind(Any, _JSON, is_hashable=False),
    Kind(Any, st.sampled_from([b"\xff", (1, {2}), Decimal(1), math.inf]), is_hashable=False),
    Kind(Any, st.sampled_from([object(), Colour.RED, Metres(length=1), {1: 2}]), must_survive=False, is_hashable=False),
    Kind(Metres, st.builds(Metres, length=st.integers()), is_hashable=False),
    Kind(Feet, st.builds(Inches, length=st.integers()), must_survive=False, is_hashable=False),
    Kind(Metres | Feet, st.builds(Feet, length=st.integers()), must_survive=False, is_hashable=False),
    Kind(
        Annotated[Left | Right, Discriminator("kind")],
        st.builds(Left, value=_JSON) | st.builds(Right, value=st.binary(max_size=3)),
        is_hashable=False,
    ),
]
KEYS = [each for each in LEAVES if each.annotation in (str, int, bool, UUID, date, Mode)]


def _of(generic: Any, *parts: Any) -> Any:
    """Return `generic[parts]`, which type checkers can't follow."""
    return generic[parts if len(parts) > 1 else parts[0]]


@st.composite
def kinds(draw: st.DrawFn, depth: int = 3, *, hashable: bool = False) -> Kind:
    """Draw an annotation, nested at most `depth` deep."""
    leaves = [each for each in LEAVES if each.is_hashable or not hashable]
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(leaves))
    shapes = [_tuples, _optional, _unions] if hashable else [*_SHAPES]
    return draw(draw(st.sampled_from(shapes))(depth - 1, hashable))


@st.composite
def _lists(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    item = draw(kinds(depth))
    made = item.but(_of(list, item.annotation), st.lists(item.values, max_size=3), is_hashable=False)
    if draw(st.booleans()):
        return made
    return made.but(_of(Sequence, item.annotation), made.values | made.values.map(tuple))


@st.composite
def _tuples(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    items = draw(st.lists(kinds(depth, hashable=hashable), min_size=1, max_size=3))
    annotation = _of(tuple, *(item.annotation for item in items))
    return Kind(annotation, st.tuples(*(i.values for i in items)), all(i.must_survive for i in items), hashable)


@st.composite
def _sets(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    item = draw(kinds(depth, hashable=True))
    kind = draw(st.sampled_from([set, frozenset]))
    values = st.lists(item.values, max_size=3).map(kind)
    return item.but(_of(kind, item.annotation), values, is_hashable=False)


@st.composite
def _dicts(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    has_plain_keys = draw(st.integers(0, 3)) > 0
    key = draw(st.sampled_from(KEYS) if has_plain_keys else kinds(1, hashable=True))
    item = draw(kinds(depth))
    values = st.dictionaries(key.values, item.values, max_size=3)
    annotation = _of(dict, key.annotation, item.annotation)
    return Kind(annotation, values, has_plain_keys and item.must_survive, is_hashable=False)


@st.composite
def _optional(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    item = draw(kinds(depth, hashable=hashable))
    return item.but(_of(Union, item.annotation, None), st.none() | item.values)


@st.composite
def _unions(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    """Draw a union. What comes back may be of another member, so it may be refused."""
    one, other = draw(kinds(depth, hashable=hashable)), draw(kinds(depth, hashable=hashable))
    union = _of(Union, one.annotation, other.annotation)
    if type(None) not in get_args(union) and get_origin(union) is Union and draw(st.booleans()):
        union = _of(Annotated, union, Field(union_mode="left_to_right"))
    return Kind(union, one.values | other.values, must_survive=False, is_hashable=hashable)


_NAMES = st.lists(st.sampled_from(["name", "kind", "items", "copy_", "v"]), min_size=1, max_size=3, unique=True)


@st.composite
def _models(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    members = {name: draw(kinds(depth)) for name in draw(_NAMES)}
    config = ConfigDict(
        extra=draw(st.sampled_from(["forbid", "ignore"])),
        populate_by_name=draw(st.booleans()),
        serialize_by_alias=draw(st.booleans()),
        frozen=draw(st.booleans()),
        strict=draw(st.integers(0, 4)) == 0,
    )
    fields: dict[str, Any] = {}
    must_survive = not config["strict"]
    for number, (name, member) in enumerate(members.items()):
        options: dict[str, Any] = {}
        match draw(st.integers(0, 6)):
            case 0:
                options = {"alias": f"Alias-{number}"}
            case 1:
                options = {"validation_alias": f"in{number}", "serialization_alias": f"out{number}"}
            case 2:
                options = {"serialization_alias": f"out{number}"}
            case 3:
                options, must_survive = {"exclude": True}, False
            case 4:
                options = {"default": draw(member.values), "validate_default": True}
        fields[name] = (member.annotation, Field(**options))
        must_survive = must_survive and member.must_survive
    base = create_model("Drawn", __config__=config, **fields)
    made: Any = draw(st.sampled_from([base, _with_a_computed_field(base), _with_another_field(base)]))
    must_survive = must_survive and made.__name__ != "Subclass"
    values = st.fixed_dictionaries({name: member.values for name, member in members.items()})
    annotation = made if made.__name__ == "Computed" else base
    return Kind(annotation, values.map(partial(_instance, made)), must_survive, False)


def _instance(model: type[BaseModel], given: Any) -> BaseModel:
    try:
        return model.model_validate(given, by_name=True)
    except ValidationError:  # values of unions are drawn for another member than pydantic chooses
        reject()


def _with_a_computed_field(base: type[BaseModel]) -> type[BaseModel]:
    class Computed(base):  # type: ignore[valid-type,misc]  # made at run time
        @computed_field
        def computed(self) -> str:
            return "computed"

    return Computed


def _with_another_field(base: type[BaseModel]) -> type[BaseModel]:
    class Subclass(base):  # type: ignore[valid-type,misc]  # made at run time
        another: int = 3

    return Subclass


@st.composite
def _generics(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    item = draw(kinds(depth))
    annotation = _of(Box, item.annotation)
    given = st.fixed_dictionaries({"inside": item.values, "others": st.lists(item.values, max_size=2)})
    return item.but(annotation, given.map(partial(_instance, annotation)), is_hashable=False)


@st.composite
def _dataclasses(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    members = {name: draw(kinds(depth)) for name in draw(_NAMES)}
    fields: list[Any] = [(name, member.annotation) for name, member in members.items()]
    if has_late := draw(st.booleans()):
        fields.append(("late", int, dataclasses.field(default=1, init=False)))
    options: dict[str, Any] = {"frozen": draw(st.booleans()), "slots": draw(st.booleans())}
    made: Any = dataclasses.make_dataclass("Data", fields, **options)
    if draw(st.booleans()):
        made = pydantic.dataclasses.dataclass(frozen=options["frozen"])(made)
    values = st.builds(made, **{name: member.values for name, member in members.items()})
    must_survive = all(member.must_survive for member in members.values()) and not has_late  # a strict model refuses it
    return Kind(made, values, must_survive, is_hashable=False)


@st.composite
def _typed_dicts(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    members = {name: draw(kinds(depth)) for name in draw(_NAMES)}
    needed = {name: draw(st.booleans()) for name in members}
    typed: Any = TypedDict
    annotation = typed(
        "Dict", {n: m.annotation if needed[n] else NotRequired[m.annotation] for n, m in members.items()}
    )
    values = st.fixed_dictionaries(
        {name: member.values for name, member in members.items() if needed[name]},
        optional={name: member.values for name, member in members.items() if not needed[name]},
    )
    return Kind(annotation, values, all(member.must_survive for member in members.values()), is_hashable=False)


@st.composite
def _named_tuples(draw: st.DrawFn, depth: int, hashable: bool) -> Kind:
    members = {name: draw(kinds(depth)) for name in draw(_NAMES)}
    named: Any = NamedTuple
    made = named("Named", [(name, member.annotation) for name, member in members.items()])
    values = st.tuples(*(member.values for member in members.values())).map(lambda given: made(*given))
    return Kind(made, values, all(member.must_survive for member in members.values()), is_hashable=False)


_SHAPES = [
    _lists, _tuples, _sets, _dicts, _optional, _unions, _models, _models, _generics, _dataclasses, _typed_dicts,
    _named_tuples,
]  # fmt: skip


def portrait(value: Any) -> Any:
    """Describe a value and all types in it. Two values are the same if their portraits are equal."""
    kind = type(value)
    parts: Any
    if isinstance(value, BaseModel):
        parts = (
            [(name, portrait(getattr(value, name))) for name in type(value).model_fields],
            portrait(value.model_extra),
        )
    elif dataclasses.is_dataclass(value):
        parts = [(each.name, portrait(getattr(value, each.name))) for each in dataclasses.fields(value)]
    elif isinstance(value, dict):
        parts = sorted((repr(portrait(key)), portrait(item)) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        parts = [portrait(item) for item in value]
    elif isinstance(value, (set, frozenset)):
        parts = sorted(repr(portrait(item)) for item in value)
    elif isinstance(value, datetime):
        parts = value.isoformat()
    elif isinstance(value, SecretStr | SecretBytes):
        parts = repr(value.get_secret_value())
    else:
        parts = repr(value)
    return kind.__module__, kind.__qualname__, id(kind), parts
