"""What the log does to values: each comes back with the same value and type, or is refused with its path."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Required, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    PrivateAttr,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
    model_validator,
)

from approvals_bot import DeserializationError, InvalidPayloadError, SerializationError
from approvals_bot.durable.core.fidelity import lost
from approvals_bot.durable.core.serialization import decode, encode, to_json

T = TypeVar("T")


def through_the_log(value: Any, annotation: Any = Any) -> Any:
    return decode(json.loads(to_json(encode(value, annotation, "x"))), annotation)


class Colour(Enum):
    RED = "red"
    TWO = 2


class Size(IntEnum):
    SMALL = 1


class Mode(StrEnum):
    FAST = "fast"


class Rights(Flag):
    READ = 1
    WRITE = 2


class Item(BaseModel):
    name: str
    price: Decimal | None = None
    at: datetime | None = None


Priceable = TypeVar("Priceable", bound=Item)
Sized = TypeVar("Sized", bound="Nowhere")  # type: ignore[name-defined]  # noqa: F821


class Priced(Item):
    discount: int = 0


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(alias="No")
    label: str = Field("", validation_alias="in", serialization_alias="out")
    raw: bytes = b""

    @computed_field
    def doubled(self) -> int:
        return 2 * self.number


class Swapped(BaseModel):
    """Each field has the other's name as its alias."""

    model_config = ConfigDict(populate_by_name=True)

    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Both(BaseModel):
    """As our own configuration: written and read by alias."""

    model_config = ConfigDict(serialize_by_alias=True, extra="forbid")

    from_: str = Field(alias="from")


class Box(BaseModel, Generic[T]):
    inside: T
    others: list[T] = []


class Cat(BaseModel):
    kind: Literal["cat"] = Field("cat", alias="Kind")
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = Field("dog", alias="Kind")
    lives: int = 1


Pet = Annotated[Cat | Dog, Discriminator("kind")]


class Metres(BaseModel):
    length: int


class Feet(BaseModel):
    length: int


class Point(NamedTuple):
    x: int
    label: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    ends: tuple[Point, Point]
    items: list[Item] = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(default=0, init=False)


class Form(TypedDict):
    name: str
    scan: NotRequired[bytes]


class Order(TypedDict, total=False):
    """Of `typing`, which pydantic refuses before Python 3.12."""

    form: Required[Form]
    items: list[Item]
    at: datetime


class Login(BaseModel):
    user: str
    password: SecretStr


class Shown(BaseModel):
    """A secret that its author has written."""

    password: SecretStr

    @field_serializer("password", when_used="json")
    def write(self, password: SecretStr) -> str:
        return password.get_secret_value()


class Excluded(BaseModel):
    shown: int
    hidden: int = Field(0, exclude=True)


class Rounded(BaseModel):
    price: Decimal

    @field_serializer("price")
    def write(self, price: Decimal) -> str:
        return f"{price:.1f}"


class Counted(BaseModel):
    """Validating it twice changes it."""

    times: int = 0

    @model_validator(mode="before")
    @classmethod
    def count(cls, data: Any) -> Any:
        return {"times": data["times"] + 1} if isinstance(data, dict) else data


class Noted(BaseModel):
    text: str
    _note: str = PrivateAttr("")


class Loose(BaseModel):
    what: Any


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    when: datetime
    raw: bytes = b""
    sizes: tuple[int, ...] = ()


def noted() -> Noted:
    made = Noted(text="a")
    made._note = "b"
    return made


VIENNA = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Vienna"))
LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Aliased, Aliased.model_validate({"No": 1, "in": "b", "raw": b"\xff\x00"})),
        (Aliased | None, Aliased(No=1)),
        (list[Swapped], [Swapped(a=1, b=2)]),
        (Both, Both.model_validate({"from": "a"})),
        (Item, Item(name="a", price=Decimal("1.50"), at=VIENNA)),
        (dict[str, Item | None], {"a": Item(name="a", price=Decimal("1E+3")), "b": None}),
        (Box[Decimal], Box[Decimal](inside=Decimal(1), others=[Decimal("2.0")])),
        (Box[Box[bytes]], Box[Box[bytes]](inside=Box[bytes](inside=b"\xff"))),
        (list[Pet], [Dog(Kind="dog"), Cat(Kind="cat")]),
        (Metres | Feet, Metres(length=1)),
        (Line, Line((Point(1), Point(2, "b")), [Item(name="a")])),
        (Form, {"name": "a"}),
        (Form, {"name": "a", "scan": b"\xff"}),
        (Order, {"form": {"name": "a"}}),
        (list[Order | None], [{"form": {"name": "a"}, "items": [Item(name="a")], "at": datetime(2026, 1, 1)}, None]),  # noqa: DTZ001
        (Annotated[dict[str, Form] | None, "x"], {"a": {"name": "a"}}),
        (Colour, Colour.TWO),
        (Rights, Rights.READ | Rights.WRITE),
        (dict[Size, int], {Size.SMALL: 1}),
        (dict[Mode | UUID, int], {Mode.FAST: 1, UUID(int=1): 2}),
        (dict[int, str], {1: "a", -2: "b"}),
        (dict[date, bool], {date(2026, 1, 1): True}),
        (dict[str, str], {"$": "bytes", "v": "YQ=="}),
        (datetime | str, datetime(2026, 1, 1)),  # noqa: DTZ001  # without a zone on purpose
        (datetime | str, "2026-01-01T00:00:00"),
        (int | float, 1.0),
        (float | int, 1),
        (bytes | str, b"a"),
        (Sequence[int], (1, 2)),
        (Iterable[Item], [Item(name="a")]),
        (Iterable[Decimal] | None, (Decimal("1.50"),)),
        (Priceable, Item(name="a", price=Decimal("1.50"))),
        (Sized, {"name": "a"}),
        (float, math.inf),
        (list[float], [math.nan, -math.inf, 0.5]),
        (int, 10**100),
        (str, "\ud800"),
        (Any, ["\ud800", math.nan, {"$": "bytes"}, (1, {2}), bytearray(b"a"), b"\xff"]),
        (Any, [Decimal("1.0"), time(1, tzinfo=UTC), timedelta(1), UUID(int=1)]),
        (Loose, Loose(what=[date(2026, 1, 1), {"a": (1,)}])),
        (Strict, Strict(when=VIENNA, raw=b"\xff", sizes=(1, 2))),
        (Excluded, Excluded(shown=1)),
        (Shown, Shown(password=SecretStr("hunter2"))),
        (Noted, Noted(text="a")),
        (Path, Path("a")),
        (IPv4Address, IPv4Address("10.0.0.1")),
        (HttpUrl, HttpUrl("https://example.test/")),
        (re.Pattern[str], re.compile("a+")),
        (timedelta, timedelta(days=-5, microseconds=3)),
        (OrderedDict[str, deque[int]], OrderedDict(a=deque([1]))),
        (frozenset[tuple[int, ...]], frozenset({(1, 2)})),
        (complex, 1j),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    assert lost(value, through_the_log(value, annotation)) is None


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    [
        (Login, Login(user="ann", password=SecretStr("hunter2")), "x.password", "isn't written to the log"),
        (Login, Login(user="ann", password=SecretStr("**********")), "x.password", "isn't written to the log"),
        (dict[str, list[SecretBytes]], {"a": [SecretBytes(b"s")]}, "x.a[0]", "isn't written to the log"),
        (Any, {"a": SecretStr("s")}, "x.a", "pass where the secret is"),
        (list[Item], [Item(name="a"), Priced(name="b", discount=5)], "x[1]", "type Priced would come back"),
        (Box[Item], Box[Item](inside=Priced(name="b")), "x.inside", "annotate the type that it has"),
        (Metres | Feet, Feet(length=1), "x", "type Feet would come back"),
        (Excluded, Excluded(shown=1, hidden=2), "x.hidden", "another value"),
        (Rounded, Rounded(price=Decimal("1.25")), "x.price", "another value"),
        (Counted, Counted(times=1), "x.times", "another value"),
        (Noted, noted(), "x._note", "another value"),
        (dict[tuple[int, int], str], {(1, 2): "a"}, "x.1,2", "the key couldn't be read back"),
        (dict[int | None, str], {None: "a"}, "x.None", "the key couldn't be read back"),
        (Any, {"a": {1: 2}}, "x.a", "the key 1 is of type int"),
        (Any, [Colour.RED], "x[0]", "annotate its type"),
        (Any, Mode.FAST, "x", "annotate its type"),
        (Any, OrderedDict(a=1), "x", "pass a plain dict"),
        (Any, {"a": Item(name="a")}, "x.a", "annotate its type"),
        (Any, LOOP, "x" + "[0]" * 201, "refers to itself"),
        (Loose, Loose(what=Item(name="a")), "x.what", "type Item would come back"),
        (Loose, Loose(what=[object()]), "x.what[0]", "type object would come back"),
        (re.Pattern[str], re.compile("a", re.IGNORECASE), "x", "another value"),
        (type[int], int, "x", "couldn't be read back"),
    ],
)
def test_a_value_that_would_change_is_refused(annotation: Any, value: Any, path: str, reason: str) -> None:
    with pytest.raises(SerializationError, match=reason) as refused:
        encode(value, annotation, "x")
    assert refused.value.path == path
    assert "hunter2" not in str(refused.value)


class Lenient(BaseModel):
    seconds: float = 5
    tags: tuple[str, ...] = []  # type: ignore[assignment]  # as authors write it; pydantic doesn't validate defaults
    folder: Path = "."  # type: ignore[assignment]


def test_the_order_of_a_union_is_its_own() -> None:
    """`Metres | Feet == Feet | Metres`, and so a process that has seen one must not take it for the other."""
    for annotation, kind in ((Metres | Feet, Metres), (Feet | Metres, Feet), (list[Feet | Metres], Feet)):
        value = [kind(length=1)] if annotation == list[Feet | Metres] else kind(length=1)
        assert through_the_log(value, annotation) == value


def test_defaults_come_back_as_their_type_has_them() -> None:
    assert through_the_log(Lenient(), Lenient) == Lenient(seconds=5.0, tags=(), folder=Path())


def test_a_datetime_keeps_its_instant_and_offset() -> None:
    back = through_the_log({"at": VIENNA}, dict[str, datetime])["at"]
    assert (back, back.utcoffset()) == (VIENNA, timedelta(hours=2))
    assert through_the_log(VIENNA).utcoffset() == timedelta(hours=2)


def test_a_value_that_no_longer_fits_names_its_place() -> None:
    with pytest.raises(DeserializationError, match=r"x\.price: Input should be") as refused:
        decode({"name": "a", "price": "many"}, Item, "x")
    assert refused.value.path == "x"
    assert refused.value.errors[0]["loc"] == ["price"]


def test_a_value_that_does_not_fit_its_type_is_invalid() -> None:
    with pytest.raises(InvalidPayloadError, match="price: Input should be"):
        encode({"name": "a", "price": "many"}, Item)


def test_a_payload_from_before_the_code_is_read_by_its_aliases() -> None:
    assert decode({"No": 1, "in": "b"}, Aliased) == Aliased.model_validate({"No": 1, "in": "b"})


@pytest.mark.parametrize("fold", [0, 1])
def test_an_instant_of_the_repeated_hour_survives(fold: int) -> None:
    given = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Vienna"), fold=fold)
    back = decode(encode(given, datetime), datetime)
    assert (back.replace(tzinfo=None), back.utcoffset()) == (given.replace(tzinfo=None, fold=0), given.utcoffset())
